# SPDX-License-Identifier: GPL-2.0-only
"""How many listings it takes: as many passes as the tree has levels, in whatever order, or one from the deepest up
(D4, D5, D13).
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from datasets.strategies import stacks
from datasets.tree import Directory, File
from tests.random.machine import copy_up
from tests.random.reproducer import held
from union.coverage import is_detached
from union.history import Fence, History, ListAll, Step, foresee
from union.inodes import DirectoryInode
from union.model import Model
from union.names import Name
from union.operations import ListDirectory

Passes = Callable[[st.DrawFn, list[str]], list[Step]]


def listed(paths: list[str]) -> list[Step]:
    return [ListDirectory(path=Name(path)) for path in paths]


def levels(paths: list[str]) -> int:
    """Of directories, the root of the union counted, which is the first."""
    return max(path.count("/") + 2 if path else 1 for path in paths)


def from_the_root_down(draw: st.DrawFn, paths: list[str]) -> list[Step]:
    return [ListAll()] * levels(paths)


def in_any_order(draw: st.DrawFn, paths: list[str]) -> list[Step]:
    return [step for _ in range(levels(paths)) for step in listed(draw(st.permutations(paths)))]


def from_the_deepest_up(draw: st.DrawFn, paths: list[str]) -> list[Step]:
    return listed(sorted(paths, key=lambda path: path.count("/") if path else -1, reverse=True))


@st.composite
def histories(draw: st.DrawFn, passes: Passes) -> History:
    """Everything is copied up, then listed: nothing needs the lower after that, so that it is fenced."""
    history = History(draw(stacks()))
    model = history.model()
    objects = [(path, place.inode) for path, place in model.places() if place.inode and not place.in_upper]
    steps: list[Step] = [copy_up(Name(path), inode) for path, inode in objects]
    steps += passes(draw, [path for path, inode in model.walk() if isinstance(inode, DirectoryInode)])
    model = after(history, steps)
    assert is_detached(model)
    return History(history.lowers, (*steps, Fence()))


def after(history: History, steps: list[Step]) -> Model:
    model = history.model()
    for step in steps:
        foresee(model, step)
    return model


@given(history=histories(from_the_root_down))
def test_as_many_passes_as_there_are_levels_are_enough(history: History) -> None:
    held(history)


@given(history=histories(in_any_order))
def test_so_they_are_in_any_order(history: History) -> None:
    held(history)


@given(history=histories(from_the_deepest_up))
def test_one_pass_from_the_deepest_up_is_enough(history: History) -> None:
    held(history)


# What must not hold.


def test_one_pass_less_is_not_enough_from_the_root_down() -> None:
    history = History((Directory({"d": Directory({"e": Directory({"f": File()})})}),))
    model = history.model()
    steps: list[Step] = [copy_up(Name(path), place.inode) for path, place in model.places() if place.inode]
    assert is_detached(after(history, [*steps, *[ListAll()] * 4]))
    assert not is_detached(after(history, [*steps, *[ListAll()] * 3]))
