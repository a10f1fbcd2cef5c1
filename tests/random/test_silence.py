# SPDX-License-Identifier: GPL-2.0-only
"""After the detach of any tree no operation whatever asks its lower for anything (D9)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from datasets.strategies import stacks
from datasets.tree import Directory, File
from tests.random.operations import examples, mixed
from tests.random.places import Place
from tests.random.reproducer import held
from union.example import TOP, Example
from union.names import Name
from union.operations import Unlink

TREE = (Directory({"d": Directory({"a": File(b"lower")}), "b": File(b"b")}),)


@given(one=examples(stacks()))
def test_no_operation_asks_the_lower(one: Example) -> None:
    held(replace(one, lower="fuse"))


@given(one=mixed())
def test_nor_under_a_mix_of_options(one: Example) -> None:
    held(replace(one, lower="fuse"))


def test_a_union_that_still_needs_its_lower_is_heard(place: Place) -> None:
    played = place.play(Example(TREE, after=(Unlink(path=Name(f"{TOP}/b")),), migrate="none", lower="fuse"))
    assert any("the lower was asked: LOOKUP " in line for line in played.complaints), played
