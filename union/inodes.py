# SPDX-License-Identifier: GPL-2.0-only
"""The objects the model is made of, and what an overlay's upper layer must hold for them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeVar

from datasets import tree

CAPABILITY: Final = "security.capability"


@dataclass(frozen=True, slots=True)
class Times:
    """Times in nanoseconds that were given explicitly when the object had this version; None for one that was not."""

    version: int
    mtime: int | None
    atime: int | None


@dataclass(eq=False, slots=True, kw_only=True)
class Inode:
    """An object of the union; `version` grows with every change of content (or of entries).

    `breaks` says that it is a lower hard-link group without an index: each name that is copied up leaves it.
    With an index `lower_names` are those of its names that only lower holds, each with the id of its directory,
    and `beneath` is what they lead to in lower once another name was copied up.
    `xattrs` are the ones that the union shows, by full name; objects share the mapping, so a change makes
    a new one. `flags` are those of FS_IOC_GETFLAGS.
    """

    TYPE: ClassVar[int]  # the S_IFMT bits

    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    in_upper: bool = False
    breaks: bool = False
    lower_names: set[tuple[int, str]] = field(default_factory=set)
    beneath: Inode | None = None
    version: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    flags: int = 0
    stated: Times | None = None

    def times(self) -> Times | None:
        """The times that were given explicitly, if nothing has moved them since."""
        return self.stated if self.stated and self.stated.version == self.version else None


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
class SpecialInode(Inode):
    """Base: what has no content of its own; `rdev` is 0 but for devices."""

    rdev: int = 0


class FifoInode(SpecialInode):
    __slots__ = ()
    TYPE: ClassVar[int] = stat.S_IFIFO


class SocketInode(SpecialInode):
    __slots__ = ()
    TYPE: ClassVar[int] = stat.S_IFSOCK


class CharacterInode(SpecialInode):
    __slots__ = ()
    TYPE: ClassVar[int] = stat.S_IFCHR


class BlockInode(SpecialInode):
    __slots__ = ()
    TYPE: ClassVar[int] = stat.S_IFBLK


SPECIAL: Final[dict[int, type[SpecialInode]]] = {
    kind.TYPE: kind for kind in (FifoInode, SocketInode, CharacterInode, BlockInode)
}
"""The kinds of special files by their S_IFMT bits."""


@dataclass(eq=False, slots=True, kw_only=True)
class DirectoryInode(Inode):
    """`lower` is what it merges with, `opaque` says that it did until it was listed with all names covered."""

    TYPE: ClassVar[int] = stat.S_IFDIR
    entries: dict[str, Inode] = field(default_factory=dict)
    lower: tree.Directory | None = None
    opaque: bool = False


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

    @property
    def key(self) -> tuple[int, str]:
        """What tells this name from all others, wherever its directory is moved."""
        return id(self.parent), self.name

    @property
    def in_upper(self) -> bool:
        """Whether the upper layer holds the name itself, and not only its object under another one."""
        return self.inode is not None and self.inode.in_upper and self.key not in self.inode.lower_names


_SOMETHING = tree.File()


def sink(directory: DirectoryInode) -> tree.Directory:
    """What a directory and all below it hold is in lower from now on, and nothing of it in upper.

    Answers the names as a lower tree; what the objects hold does not matter there.
    """
    entries: dict[str, tree.Node] = {}
    for name, child in directory.entries.items():
        child.in_upper = False
        entries[name] = sink(child) if isinstance(child, DirectoryInode) else _SOMETHING
    directory.in_upper = directory.opaque = False
    directory.lower = tree.Directory(entries)
    return directory.lower


def directories(top: DirectoryInode) -> Iterator[DirectoryInode]:
    """`top` and every directory below it."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        yield directory
        waiting += [child for child in directory.entries.values() if isinstance(child, DirectoryInode)]


@dataclass(slots=True)
class Handle:
    """What a scenario holds by name: the object, the flags it was opened with, whether it was in lower then."""

    inode: Inode
    flags: int
    was_lower: bool = field(default=False, kw_only=True)


def grow(node: tree.Directory) -> DirectoryInode:
    """The objects of a lower tree, none of them copied up; the names of a hard link share one."""
    return _Grower().directory("", node)


def settle(directory: DirectoryInode, node: tree.Directory, upper: tree.Directory) -> None:
    """The directory grown from `node` is in the upper layer, and so is what `upper`, its part there, holds of it."""
    directory.in_upper, directory.lower = True, node.below
    for name, child in directory.entries.items():
        above, below = upper.entries.get(name), node.entries[name]
        if above is None:
            continue
        if isinstance(child, DirectoryInode):
            assert isinstance(above, tree.Directory) and isinstance(below, tree.Directory)
            settle(child, below, above)
        else:
            child.in_upper = True


class _Grower:
    def __init__(self) -> None:
        self.by_path: dict[str, Inode] = {}

    def directory(self, path: str, node: tree.Directory) -> DirectoryInode:
        prefix = f"{path}/" if path else ""
        entries = {name: self._node(prefix + name, child) for name, child in node.entries.items()}
        return _finished(DirectoryInode(mode=node.mode, flags=node.flags, entries=entries, lower=node), node)

    def _node(self, path: str, node: tree.Node) -> Inode:
        if isinstance(node, tree.Directory):
            return self.directory(path, node)
        if isinstance(node, tree.HardLink):
            inode = self.by_path[tree.link_target(path, node)]
            inode.nlink += 1
        else:
            inode = self.by_path[path] = grow_file(node)
        return inode


def grow_file(node: tree.Node) -> Inode:
    """The object of a non-directory that is no hard link."""
    if isinstance(node, tree.File):
        return _finished(FileInode(mode=node.mode, flags=node.flags, content=node.content), node)
    if isinstance(node, tree.Symlink):
        return _finished(LinkInode(mode=0o777, target=node.target), node)
    if isinstance(node, tree.Special):
        return _finished(SPECIAL[node.type](mode=node.mode, rdev=node.rdev), node)
    raise TypeError(f"{type(node).__name__} is nothing that a union shows")  # see datasets.layers.merged


AnInode = TypeVar("AnInode", bound=Inode)


def _finished(inode: AnInode, node: tree.Object) -> AnInode:
    inode.uid, inode.gid = node.uid, node.gid
    inode.xattrs = node.xattrs
    if node.mtime is not None:
        inode.stated = Times(inode.version, node.mtime, None)  # reading may move the other one
    return inode


def drop_privileges(inode: Inode, *, outsider: bool = False) -> None:
    """What a change of owner, and most writes, take from a non-directory: suid, sgid and capabilities.

    An `outsider` is who is neither root nor in the object's group.
    """
    if isinstance(inode, LinkInode):
        return
    # sgid without group execution is no privilege: it once asked for mandatory locking.
    inode.mode &= ~(stat.S_ISUID | (stat.S_ISGID if outsider or inode.mode & stat.S_IXGRP else 0))
    if CAPABILITY in inode.xattrs:
        inode.xattrs = {name: value for name, value in inode.xattrs.items() if name != CAPABILITY}


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
