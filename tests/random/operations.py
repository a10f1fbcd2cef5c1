# SPDX-License-Identifier: GPL-2.0-only
"""Operations for hypothesis to draw, one after the other on the model: what is there is more likely to be named."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from functools import cache
from typing import Final

from hypothesis import strategies as st

from datasets.layers import merged
from datasets.reference import SAMPLE, SAMPLE_NAME
from datasets.strategies import NAMES
from datasets.tree import Directory
from union import namecalls
from union.example import TOP, Example
from union.inodes import DirectoryInode, SpecialInode
from union.model import Model
from union.names import Name
from union.operations import (
    CREAT,
    EXCL,
    RW,
    TRUNC,
    ChangeMode,
    ChangeOwner,
    GetXattr,
    Link,
    ListDirectory,
    ListXattrs,
    Make,
    MakeDirectory,
    OpenFile,
    Operation,
    R,
    ReadLink,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    RenameFlags,
    SetXattr,
    Truncate,
    Unlink,
    W,
)
from union.rules.common import Refusal

TYPES: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR)
OPENS: Final = (R, W, RW, W | TRUNC, W | CREAT, W | CREAT | EXCL, RW | CREAT | TRUNC)
FLAGS: Final = (namecalls.RENAME_NOREPLACE, namecalls.RENAME_EXCHANGE, namecalls.RENAME_WHITEOUT)


def model_of(example: Example) -> Model:
    """The model of its union before anything is done to it."""
    trees = [Directory({TOP: tree}) for tree in example.lowers]
    return Model(merged(trees), upper={SAMPLE_NAME: SAMPLE}, redirects=True, renumbers=True)


def paths(model: Model) -> st.SearchStrategy[Name]:
    """Names below the top: those that there are, and others in directories that there are."""
    there = [path for path, _ in model.walk(TOP) if path != TOP]
    homes = [path for path, inode in model.walk(TOP) if isinstance(inode, DirectoryInode)]
    other = st.sampled_from([f"{home}/{name}" for home in homes for name in NAMES])
    return (st.one_of(st.sampled_from(there), other) if there else other).map(Name)


@cache  # to build them takes longer than to draw
def _one(path: Name) -> list[st.SearchStrategy[Operation]]:
    return [
        st.builds(_opened, st.just(path), st.sampled_from(OPENS)),
        st.builds(Make, path=st.just(path), type=st.sampled_from(TYPES), target=st.just("a")),
        st.builds(MakeDirectory, path=st.just(path)),
        st.just(RemoveDirectory(path=path)),
        st.just(Unlink(path=path)),
        st.just(ReadLink(path=path)),
        st.builds(Truncate, path=st.just(path), size=st.sampled_from((0, 3, 5000))),
        st.builds(ChangeMode, path=st.just(path), mode=st.sampled_from((0o600, 0o755, 0o4711))),
        st.builds(ChangeOwner, path=st.just(path), uid=st.sampled_from((0, 1)), gid=st.sampled_from((0, 4))),
        st.builds(SetXattr, path=st.just(path), key=st.just("trusted.b"), value=st.sampled_from((b"", b"set"))),
        st.builds(RemoveXattr, path=st.just(path), key=st.just("trusted.b")),
        st.builds(GetXattr, path=st.just(path), key=st.just("trusted.b")),
        st.just(ListXattrs(path=path)),
        st.just(ListDirectory(path=path)),
    ]


def _is_special(model: Model, path: Name) -> bool:
    """Whether it leads to what opening means another thing for: a fifo waits, a socket refuses, a device is itself."""
    try:
        inode = model.walk_to(path, 0, follow=True).inode
    except Refusal:
        return False
    return isinstance(inode, SpecialInode)


def _opened(path: Name, flags: int) -> Operation:
    return OpenFile(path=path, flags=flags, mode=0o640, writes=None if flags & 3 == R else b"new")


@cache
def _two(path: Name, to: Name) -> list[st.SearchStrategy[Operation]]:
    return [
        st.just(Rename(path=path, to=to)),
        st.just(Link(path=path, to=to)),
        st.builds(RenameFlags, path=st.just(path), to=st.just(to), flags=st.sampled_from(FLAGS)),
    ]


@cache
def _any(path: Name, to: Name) -> st.SearchStrategy[Operation]:
    return st.one_of([*_one(path), *_two(path, to)])


@st.composite
def operations(draw: st.DrawFn, model: Model) -> Operation | None:
    """One operation, which is not done on the model; None if what was drawn would wait or speak to a device."""
    some = paths(model)
    path = draw(some)
    operation = draw(_any(path, draw(some)))
    return None if isinstance(operation, OpenFile) and _is_special(model, path) else operation


@st.composite
def sequences(draw: st.DrawFn, model: Model, most: int) -> Sequence[Operation]:
    """Up to `most` operations, which are done on the model as they are drawn."""
    drawn: list[Operation] = []
    for _ in range(draw(st.integers(0, most))):
        some = paths(model)
        path = draw(some)
        operation = draw(st.one_of([*_one(path), *_two(path, draw(some))]))
        if isinstance(operation, OpenFile) and _is_special(model, path):
            continue
        model.apply(operation)
        drawn.append(operation)
    return drawn


@st.composite
def examples(draw: st.DrawFn, stacks: st.SearchStrategy[tuple[Directory, ...]], most: int = 6) -> Example:
    """A stack of layers and operations before and after its detach."""
    empty = Example(draw(stacks))
    model = model_of(empty)
    before = draw(sequences(model, most))
    model.copy_up_all(None)
    model.detach()
    after = draw(sequences(model, most))
    return Example(empty.lowers, tuple(before), tuple(after))
