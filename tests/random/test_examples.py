# SPDX-License-Identifier: GPL-2.0-only
"""Any tree, any operations, before and after the detach: what the contract promises holds (D2-D10, D13)."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given

from datasets.strategies import stacks, trees
from datasets.tree import Directory, File, HardLink
from kernel.build import build
from kernel.progress import Silent
from tests.guest_unions import InGuest
from tests.random.operations import examples, mixed, plain, played
from tests.random.places import Place
from tests.random.reproducer import held
from tests.union_server import Here
from union.example import TOP, Example
from union.namecalls import RENAME_EXCHANGE, RENAME_WHITEOUT
from union.names import Name
from union.operations import MakeDirectory, Operation, RenameFlags, Unlink

LIMIT = 60  # seconds
FILE = File(b"lower")
LINKED = (Directory({"a": FILE, "b": HardLink("a")}),)


def name(path: str) -> Name:
    return Name(f"{TOP}/{path}")


@given(tree=trees(depth=6))
def test_a_tree_is_detached_and_nothing_is_lost(tree: Directory) -> None:
    held(Example((tree,)))


@given(one=examples(stacks()))
@example(one=Example(LINKED, before=(RenameFlags(path=name("b"), to=name("a"), flags=RENAME_EXCHANGE),)))
@example(one=Example(LINKED, after=(RenameFlags(path=name("b"), to=name("b"), flags=RENAME_WHITEOUT),)))
def test_operations_before_and_after_the_detach_are_as_the_model_says(one: Example) -> None:
    held(one)


@given(one=stacks().flatmap(lambda lowers: played(Example(lowers, xino="on"), 10)))
def test_operations_without_a_detach_are_as_the_model_says(one: Example) -> None:
    held(one)


@given(one=mixed())
def test_a_mix_of_options_is_detached_and_nothing_is_lost(one: Example) -> None:
    """D6, D18, D19: also above an upper layer that has whiteouts, opaque and moved directories, metadata alone."""
    held(one)


@given(one=plain())
def test_operations_on_a_plain_filesystem_are_as_the_model_says(one: Example) -> None:
    """D10: what the model says of a detached union is what a filesystem does by itself."""
    held(one)


# What must not hold.


def test_a_union_that_is_not_migrated_does_not_stand_the_fence(place: Place) -> None:
    played = place.play(Example((Directory({"a": FILE}),), migrate="none", fence=True))
    assert any("EIO" in line for line in played.complaints), played


def test_an_example_that_loses_its_guest_is_told_and_the_next_gets_another(tmp_path: Path) -> None:
    kernel = Path(shutil.copy2(build("6.12", progress=Silent()).path, tmp_path / "linux"))
    place = Place(lambda: InGuest(kernel, LIMIT))
    fine = Example((Directory({"a": FILE}),))
    assert not place.play(fine).complaints
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended meanwhile
            if path.read_bytes().startswith(os.fsencode(kernel)):
                os.kill(int(path.parent.name), signal.SIGKILL)
    [complaint] = place.play(fine).complaints
    assert complaint.startswith("the guest was lost: ")
    assert not place.play(fine).complaints
    place.close()


def nothing(self: Operation, root: str, held: object) -> None:
    """What a kernel would do that forgets an operation."""


def refuse(self: Operation, root: str, held: object) -> None:
    """What a kernel would do that refuses it."""
    raise OSError(errno.EBUSY, "made up by a test")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
@pytest.mark.parametrize(
    ("kind", "call", "complaint"),
    [
        (Unlink, nothing, "t/a: exists"),
        (Unlink, refuse, "t/a: EBUSY instead of success"),
        (MakeDirectory, nothing, "t/d: "),
    ],
)
def test_a_kernel_that_does_otherwise_is_found_out(
    monkeypatch: pytest.MonkeyPatch, kind: type[Operation], call: Callable[..., None], complaint: str
) -> None:
    operations = (MakeDirectory(path=name("d")), Unlink(path=name("a")))
    one = Example((Directory({"a": FILE}),), operations, xino="off")
    here = Here()
    assert not here.play(one).complaints
    here.close()
    monkeypatch.setattr(kind, "call", call)
    played = here.play(one)
    here.close()
    assert any(complaint in line for line in played.complaints), played
