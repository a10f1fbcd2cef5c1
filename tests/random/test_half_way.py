# SPDX-License-Identifier: GPL-2.0-only
"""Half-way through its detach names of a union are moved and linked: nothing that lower has is lost (D4, D7, D19).

Histories of one kind, so that what takes certain steps in a certain order is come by: some directories are copied up
and listed, names cross the border, the rest follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import UnionType
from typing import Final

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from datasets.tree import Directory, File, HardLink
from tests.random.reproducer import held
from union.example import TOP
from union.history import DropCaches, Fence, History, ListAll, Migrate, Remount, Step, crosses, foresee
from union.inodes import DirectoryInode, FileInode, Inode
from union.model import Model
from union.namecalls import RENAME_EXCHANGE
from union.names import Name
from union.operations import ChangeMode, Link, ListDirectory, MakeDirectory, Operation, Rename, RenameFlags, Unlink

FILE: Final = File(b"lower")
LOWERS: Final = (
    (Directory({"d": Directory({"a": FILE})}),),
    (Directory({"d": Directory({"e": Directory({"a": FILE})})}),),
    (Directory({"d": Directory({"a": FILE})}), Directory({"d": Directory({"b": FILE})})),
    (Directory({"a": FILE, "b": HardLink("a")}),),
)
ENDS: Final[tuple[Step, ...]] = (ListAll(), ListAll(), DropCaches(), Remount())


def _paths(model: Model, kind: type[Inode] | UnionType) -> list[str]:
    """What there is of a kind, the top included."""
    return [path for path, inode in model.walk(TOP) if isinstance(inode, kind)]


def _directories(model: Model, *, needing: bool) -> list[str]:
    """Those that there are, one that needs its lower or, if not `needing` it, one that does not thrice."""
    found = [(path, inode) for path, inode in model.walk(TOP) if isinstance(inode, DirectoryInode)]
    return [path for path, inode in found for _ in range(3 if (inode.lower is not None) == needing else 1)]


@st.composite
def moves(draw: st.DrawFn, model: Model) -> Operation:
    """One operation on names: often across the border."""
    home = draw(st.sampled_from(_directories(model, needing=False)))
    new = Name(f"{home}/{draw(st.sampled_from(('a', 'd', 'n')))}")
    kinds: list[Operation] = [MakeDirectory(path=new)]
    if inner := [Name(path) for path in _directories(model, needing=True) if path != TOP]:
        one, other = draw(st.sampled_from(inner)), draw(st.sampled_from(inner))
        move = Rename(path=one, to=new)
        kinds += [move, move, move, RenameFlags(path=one, to=other, flags=RENAME_EXCHANGE)]
    if files := _paths(model, FileInode):
        file = Name(draw(st.sampled_from(files)))
        kinds += [Rename(path=file, to=new), Link(path=file, to=new), Unlink(path=file)]
    return draw(st.sampled_from(kinds))


def _detached(model: Model, top: str) -> Iterator[Operation]:
    """What detaches a directory: all below it is copied up, then each is listed, both after what is in it."""
    below = [(path, inode) for path, inode in model.walk(top) if isinstance(inode, FileInode | DirectoryInode)]
    deepest = below[::-1]
    for path, inode in deepest:
        if not any(other.startswith(f"{path}/") for other, _ in below):  # its parents go along
            yield ChangeMode(path=Name(path), mode=inode.mode)
    yield from (ListDirectory(path=Name(path)) for path, inode in deepest if isinstance(inode, DirectoryInode))


@st.composite
def half_way(draw: st.DrawFn) -> History:
    """A part that is detached or copied up, a directory without a lower, up to three moves, then more of the detach."""
    bare = History(draw(st.sampled_from(LOWERS)), options=draw(st.sampled_from(((), (("index", "on"),)))))
    model = bare.model()
    steps: list[Step] = []

    def take(*some: Step) -> None:
        for step in some:
            foresee(model, step)
            steps.append(step)

    part = list(_detached(model, draw(st.sampled_from(_paths(model, DirectoryInode | FileInode)))))
    take(*[step for step in part if draw(st.integers(0, 2))])
    if draw(st.integers(0, 3)):
        take(MakeDirectory(path=Name(f"{TOP}/n")))
    for _ in range(draw(st.integers(0, 3))):
        take(draw(moves(model)))
    take(*draw(st.lists(st.sampled_from(ENDS), min_size=1, max_size=3)))
    if draw(st.booleans()):
        take(Migrate(), Fence())
    return replace(bare, steps=tuple(steps))


@given(history=half_way())
def test_names_that_move_half_way_are_not_lost(history: History) -> None:
    held(history)


def test_many_a_move_is_across_the_border() -> None:
    crossed: list[bool] = []

    @settings(max_examples=100, derandomize=True, database=None, phases=[Phase.generate])
    @given(history=half_way())
    def draw(history: History) -> None:
        model = history.model()
        across = False
        for step in history.steps:
            across = across or (isinstance(step, Rename) and crosses(model, step))
            foresee(model, step)
        crossed.append(across)

    draw()
    assert sum(crossed) > 5
