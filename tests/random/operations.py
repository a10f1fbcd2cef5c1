# SPDX-License-Identifier: GPL-2.0-only
"""Operations for hypothesis to draw, one after the other on the model: what is there is more likely to be named."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st

from datasets.layers import merged, populated
from datasets.reference import SAMPLE, SAMPLE_NAME
from datasets.strategies import NAMES, OPTIONS, populated_stacks, trees
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
MODES: Final = (0o600, 0o755, 0o4711)
OWNERS: Final = ((0, 0), (0, 4), (1, 0), (1, 4))
KEY: Final = "trusted.b"

Kind = Callable[[Name, Name], Operation]
"""An operation but for its names, of which most have one."""


def _opened(path: Name, flags: int) -> Operation:
    return OpenFile(path=path, flags=flags, mode=0o640, writes=None if flags & 3 == R else b"new")


def _one(kind: Callable[..., Operation], **more: Any) -> Kind:
    return lambda path, _: kind(path=path, **more)


def _two(kind: Callable[..., Operation], **more: Any) -> Kind:
    return lambda path, to: kind(path=path, to=to, **more)


# One choice draws all of an operation but its names, as it would take four otherwise. What changes names comes often.
KINDS: Final[tuple[Kind, ...]] = (
    *[_one(RemoveDirectory), _one(Unlink), _two(Rename), _two(Link), _one(MakeDirectory)] * 4,
    *(_two(RenameFlags, flags=flags) for flags in FLAGS * 2),
    *(_one(_opened, flags=flags) for flags in OPENS),
    *(_one(Make, type=kind, target="a") for kind in TYPES),
    *(_one(Truncate, size=size) for size in (0, 3, 5000)),
    *(_one(ChangeMode, mode=mode) for mode in MODES),
    *(_one(ChangeOwner, uid=uid, gid=gid) for uid, gid in OWNERS),
    *(_one(SetXattr, key=KEY, value=value) for value in (b"", b"set")),
    *(_one(kind, key=KEY) for kind in (RemoveXattr, GetXattr)),
    *[_one(ListXattrs), _one(ReadLink), _one(ListDirectory)] * 2,
)
_kinds: Final = st.sampled_from(KINDS)


def model_of(example: Example) -> Model:
    """The model of its union before anything is done to it."""
    trees = [Directory({TOP: tree}) for tree in example.lowers]
    options = dict(example.options)
    upper = Directory({TOP: example.upper}) if example.upper else None
    return Model(
        populated(upper, trees) if upper else merged(trees),
        populated=upper,
        upper={} if example.plain else {SAMPLE_NAME: SAMPLE},
        redirects=example.plain or (options.get("redirect_dir", "on") == "on" and "userxattr" not in options),
        indexed=example.plain or options.get("index") == "on",
        renumbers=True,
    )


def paths(model: Model) -> st.SearchStrategy[Name]:
    """Names below the top: those that there are, and others in directories that there are."""
    there = [path for path, _ in model.walk(TOP) if path != TOP]
    homes = [path for path, inode in model.walk(TOP) if isinstance(inode, DirectoryInode)]
    other = [f"{home}/{name}" for home in homes for name in NAMES]
    return st.sampled_from([Name(path) for path in (*there, *there, *other)])


def _is_special(model: Model, path: Name) -> bool:
    """Whether it leads to what opening means another thing for: a fifo waits, a socket refuses, a device is itself."""
    try:
        inode = model.walk_to(path, 0, follow=True).inode
    except Refusal:
        return False
    return isinstance(inode, SpecialInode)


def _makes_whiteout(operation: Operation) -> bool:
    """Whether it is about what an overlay takes for a removed name, and other filesystems for a device."""
    if isinstance(operation, RenameFlags):
        return operation.flags == namecalls.RENAME_WHITEOUT
    return isinstance(operation, Make) and operation.type == stat.S_IFCHR


@st.composite
def operations(draw: st.DrawFn, model: Model, plain: bool = False) -> Operation | None:
    """One operation, which is not done on the model; None for one that would wait, or speak to a device.

    What is `plain` is not for unions alone.
    """
    some = paths(model)
    operation = draw(_kinds)(draw(some), draw(some))
    if isinstance(operation, OpenFile) and _is_special(model, operation.path):
        return None
    return None if plain and _makes_whiteout(operation) else operation


@st.composite
def sequences(draw: st.DrawFn, model: Model, most: int, plain: bool = False) -> Sequence[Operation]:
    """Up to `most` operations, which are done on the model as they are drawn."""
    drawn: list[Operation] = []
    for _ in range(draw(st.integers(0, most))):
        operation = draw(operations(model, plain))
        if operation:
            model.apply(operation)
            drawn.append(operation)
    return drawn


@st.composite
def played(draw: st.DrawFn, bare: Example, most: int = 6) -> Example:
    """The example with operations before and, if there is one, after its detach."""
    model = model_of(bare)
    before = draw(sequences(model, most, bare.plain))
    if not bare.detaches:
        return replace(bare, before=tuple(before))
    model.copy_up_all(None)
    model.detach()
    return replace(bare, before=tuple(before), after=tuple(draw(sequences(model, most))))


@st.composite
def examples(draw: st.DrawFn, stacks: st.SearchStrategy[tuple[Directory, ...]], most: int = 6) -> Example:
    """A stack of layers and operations before and after its detach."""
    return draw(played(Example(draw(stacks)), most))


@st.composite
def mixed(draw: st.DrawFn, most: int = 6) -> Example:
    """The same under a mix of mount options, above which the upper layer has something already (D18)."""
    options = draw(st.sampled_from(OPTIONS))
    lowers, upper = draw(populated_stacks(options))
    return draw(played(Example(lowers, upper=upper, options=options), most))


@st.composite
def plain(draw: st.DrawFn, most: int = 10) -> Example:
    """Operations on a filesystem without any union."""
    return draw(played(Example((draw(trees()),), plain=True), most))
