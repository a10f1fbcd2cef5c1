# SPDX-License-Identifier: GPL-2.0-only
"""The objects the model is made of, and what an overlay's upper layer must hold for them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from datasets import tree


@dataclass(eq=False, slots=True, kw_only=True)
class Inode:
    """An object of the union; `version` grows with every change of content (or of entries)."""

    TYPE: ClassVar[int]  # the S_IFMT bits

    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    in_upper: bool = False
    version: int = 0


@dataclass(eq=False, slots=True, kw_only=True)
class FileInode(Inode):
    TYPE: ClassVar[int] = stat.S_IFREG
    content: bytes = b""
    touched: bool = False  # the last change set both times to now


@dataclass(eq=False, slots=True, kw_only=True)
class LinkInode(Inode):
    TYPE: ClassVar[int] = stat.S_IFLNK
    target: str


@dataclass(eq=False, slots=True, kw_only=True)
class DirectoryInode(Inode):
    TYPE: ClassVar[int] = stat.S_IFDIR
    entries: dict[str, Inode] = field(default_factory=dict)
    lower: tree.Directory | None = None


@dataclass(slots=True)
class Place:
    """Where a walk ended: the directories above (last one the parent), the last name, what it names."""

    above: list[DirectoryInode]
    name: str
    inode: Inode | None
    slash: bool

    @property
    def parent(self) -> DirectoryInode:
        return self.above[-1]


@dataclass(slots=True)
class Handle:
    """What a scenario holds by name: the object, and the flags it was opened with."""

    inode: Inode
    flags: int


def grow(node: tree.Node) -> Inode:
    """The objects of a lower tree, none of them copied up."""
    if isinstance(node, tree.Directory):
        entries = {name: grow(child) for name, child in node.entries.items()}
        return DirectoryInode(mode=node.mode, uid=node.uid, gid=node.gid, entries=entries, lower=node)
    if isinstance(node, tree.Symlink):
        return LinkInode(mode=0o777, uid=node.uid, gid=node.gid, target=node.target)
    return FileInode(mode=node.mode, uid=node.uid, gid=node.gid, content=node.content)


def descend(path: str, place: Place) -> Iterator[tuple[str, Place]]:
    """`place` and every place below it, parents first, each with its path."""
    waiting = [(path, place)]
    while waiting:
        path, place = waiting.pop()
        yield path, place
        if isinstance(place.inode, DirectoryInode):
            above = [*place.above, place.inode] if path else [place.inode]
            prefix = f"{path}/" if path else ""
            entries = place.inode.entries.items()
            waiting += [(prefix + name, Place(above, name, child, False)) for name, child in entries]


def needs_whiteout(place: Place) -> bool:
    """Whether the absent name must be hidden by a whiteout: its directory still merges a lower that has it."""
    lower = place.parent.lower
    return place.inode is None and lower is not None and place.name in lower.entries


def needs_opaque(place: Place) -> bool:
    """Whether the directory must be opaque: it covers an unrelated lower directory of the same name."""
    lower = place.parent.lower
    if not isinstance(place.inode, DirectoryInode) or place.inode.lower is not None or lower is None:
        return False
    return isinstance(lower.entries.get(place.name), tree.Directory)
