# SPDX-License-Identifier: GPL-2.0-only
"""What must happen: a pure in-memory tree with the errno rules of Linux, no I/O.

The model predicts an operation's result and keeps the tree as it must look afterwards, and what an
overlay must have done to get there: which objects were copied up, where a whiteout or an opaque
directory is needed. `lower` of a directory is the lower directory it merges with; it is None for a
directory made on upper and, after detach, for all (contract D4, D9).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from datasets import tree
from union.inodes import DirectoryInode, FileInode, Inode, LinkInode, Place, descend, grow
from union.operations import (
    UNPRIVILEGED,
    ChangeMode,
    Link,
    MakeDirectory,
    OpenFile,
    Operation,
    ReadLink,
    RemoveDirectory,
    RemoveTree,
    Rename,
    Result,
    Size,
    Touch,
    Truncate,
    Unlink,
    Value,
)

UMASK = 0o022
MAX_LINKS = 40  # symlinks followed in one walk before ELOOP
READ, WRITE, SEARCH = 4, 2, 1


class Refusal(Exception):
    """The operation must fail with this errno number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


class Model:
    """The union as it must be."""

    def __init__(
        self, lower: tree.Directory, *, upper: Mapping[str, tree.File] | None = None, redirects: bool = True
    ) -> None:
        """Start from the lower tree and the files that the root of the upper layer holds already.

        `redirects` says whether directory renames are enabled.
        """
        root = grow(lower)
        assert isinstance(root, DirectoryInode)
        root.in_upper = True
        for name, node in (upper or {}).items():
            root.entries[name] = grow(node)
            root.entries[name].in_upper = True
        self.root = root
        self.redirects = redirects

    # queries --------------------------------------------------------------------------------------

    def find(self, path: str) -> Place | None:
        """What lstat(`path`) must find; None when a directory above it is missing or is none."""
        try:
            return self._walk(path.rstrip("/"), 0, follow=False)
        except Refusal:
            return None

    def target(self, path: str) -> str | None:
        """The path one step further if `path` is a symlink, relative to the root."""
        place = self.find(path)
        if place is None or not isinstance(place.inode, LinkInode):
            return None
        return os.path.normpath(os.path.join(os.path.dirname(path), place.inode.target))

    def places(self, top: str = "") -> Iterator[tuple[str, Place]]:
        """Every place below `top` (itself included), parents first."""
        place = self.find(top) if top else Place([self.root], ".", self.root, False)
        if place is not None and place.inode is not None:
            yield from descend(top, place)

    def walk(self, top: str = "") -> Iterator[tuple[str, Inode]]:
        """Every object below `top` (itself included), parents first."""
        for path, place in self.places(top):
            assert place.inode is not None
            yield path, place.inode

    # events ---------------------------------------------------------------------------------------

    def copy_up_all(self, owner: tuple[int, int] | None) -> None:
        """Everything was copied up; `owner` if that changed every owner (chown -R)."""
        for _, inode in self.walk():
            inode.in_upper = True
            if owner is not None:
                inode.uid, inode.gid = owner

    def detach(self) -> None:
        """No directory needs its lower any more."""
        for _, inode in self.walk():
            if isinstance(inode, DirectoryInode):
                inode.lower = None

    def apply(self, operation: Operation) -> Result:
        """Predict `operation` and, when it succeeds, change the tree accordingly."""
        try:
            return Result(0, self._rules[type(operation)](self, operation))
        except Refusal as refusal:
            return Result(refusal.number)

    # walking --------------------------------------------------------------------------------------

    def _walk(
        self, path: str, uid: int, *, follow: bool, above: list[DirectoryInode] | None = None, links: int = 0
    ) -> Place:
        """Resolve `path`. The last name is followed if `follow`; it may be absent (inode None)."""
        above = [self.root] if above is None else above
        parts = [part for part in path.split("/") if part not in ("", ".")]
        slash = path.endswith("/")
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if not _may(above[-1], uid, SEARCH):
                raise Refusal(errno.EACCES)
            if part == "..":
                above = above[:-1] or above
                if last:
                    return Place(above[:-1] or above, ".", above[-1], slash)
                continue
            child = above[-1].entries.get(part)
            if last and not (follow and isinstance(child, LinkInode)):
                return Place(above, part, child, slash)
            if isinstance(child, LinkInode):
                if links >= MAX_LINKS:
                    raise Refusal(errno.ELOOP)
                place = self._walk(child.target, uid, follow=True, above=list(above), links=links + 1)
                if last:
                    place.slash = place.slash or slash
                    return place
                above, child = place.above, place.inode
            if child is None:
                raise Refusal(errno.ENOENT)
            if not isinstance(child, DirectoryInode):
                raise Refusal(errno.ENOTDIR)
            above = [*above, child]
        return Place(above[:-1] or above, ".", above[-1], slash)

    def _existing(self, operation: Operation, *, follow: bool) -> tuple[Place, Inode]:
        """The object `operation.path` names; a terminal slash follows and asks for a directory."""
        path = str(operation.path)
        place = self._walk(path, _uid(operation), follow=follow or path.endswith("/"))
        if place.inode is None:
            raise Refusal(errno.ENOENT)
        if place.slash and not isinstance(place.inode, DirectoryInode):
            raise Refusal(errno.ENOTDIR)
        return place, place.inode

    # one rule per operation -----------------------------------------------------------------------

    def _open(self, operation: Operation) -> Value:
        assert isinstance(operation, OpenFile)
        flags, uid, path = operation.flags, _uid(operation), str(operation.path)
        creates, exclusive = bool(flags & os.O_CREAT), bool(flags & os.O_EXCL)
        if creates and flags & os.O_DIRECTORY:
            raise Refusal(errno.EINVAL)  # commit 43b450632676 ("open: return EINVAL for O_DIRECTORY | O_CREAT")
        if creates and path.endswith("/"):
            self._walk(path.rstrip("/"), uid, follow=False)
            raise Refusal(errno.EISDIR)
        if creates:
            place = self._walk(path, uid, follow=not exclusive)
            inode = place.inode
        else:
            place, inode = self._existing(operation, follow=True)
        if inode is None:
            inode = self._create(place, FileInode(mode=operation.mode & ~UMASK), uid)
        else:
            _check_open(inode, flags, uid)
            if flags & os.O_ACCMODE or flags & os.O_TRUNC:
                _copy_up(place)
        if not isinstance(inode, FileInode):
            return None
        if flags & os.O_TRUNC:
            _change(inode, b"")
        if operation.writes is not None:
            at = len(inode.content) if flags & os.O_APPEND else 0
            _change(inode, inode.content[:at] + operation.writes + inode.content[at + len(operation.writes) :])
        return inode.content if operation.reads is not None else None

    def _mkdir(self, operation: Operation) -> Value:
        assert isinstance(operation, MakeDirectory)
        place = self._walk(str(operation.path), _uid(operation), follow=False)
        if place.inode is not None:
            raise Refusal(errno.EEXIST)
        self._create(place, DirectoryInode(mode=operation.mode & ~UMASK), _uid(operation))
        return None

    def _rmdir(self, operation: Operation) -> Value:
        place = self._walk(str(operation.path), _uid(operation), follow=False)
        if place.inode is None:
            raise Refusal(errno.ENOENT)
        _check_delete(place, _uid(operation), directory=True)
        if isinstance(place.inode, DirectoryInode) and place.inode.entries:
            raise Refusal(errno.ENOTEMPTY)
        _remove(place)
        return None

    def _unlink(self, operation: Operation) -> Value:
        place = self._walk(str(operation.path), _uid(operation), follow=False)
        if place.inode is None:
            raise Refusal(errno.ENOENT)
        if place.slash:
            raise Refusal(errno.EISDIR if isinstance(place.inode, DirectoryInode) else errno.ENOTDIR)
        _check_delete(place, _uid(operation), directory=False)
        _remove(place)
        return None

    def _rename(self, operation: Operation) -> Value:
        assert isinstance(operation, Rename)
        uid = _uid(operation)
        old = self._walk(str(operation.path), uid, follow=False)
        new = self._walk(str(operation.to), uid, follow=False)
        inode = old.inode
        if inode is None:
            raise Refusal(errno.ENOENT)
        if not isinstance(inode, DirectoryInode) and (old.slash or new.slash):
            raise Refusal(errno.ENOTDIR)
        if inode in new.above:
            raise Refusal(errno.EINVAL)
        if new.inode in old.above and new.parent is not old.parent:
            raise Refusal(errno.ENOTEMPTY)
        if inode is new.inode:
            return None  # the same object under both names: nothing happens
        directory = isinstance(inode, DirectoryInode)
        _check_delete(old, uid, directory=directory)
        if new.inode is None:
            _check_create(new, uid)
        else:
            _check_delete(new, uid, directory=directory)
        if isinstance(inode, DirectoryInode) and inode.lower is not None and not self.redirects:
            raise Refusal(errno.EXDEV)
        if isinstance(new.inode, DirectoryInode) and new.inode.entries:
            raise Refusal(errno.ENOTEMPTY)
        _copy_up(old)
        if new.inode is not None:
            _remove(new)
        del old.parent.entries[old.name]
        _touch_directory(old)
        new.parent.entries[new.name] = inode
        _touch_directory(new)
        return None

    def _link(self, operation: Operation) -> Value:
        assert isinstance(operation, Link)
        source, inode = self._existing(operation, follow=False)
        to = self._walk(str(operation.to), _uid(operation), follow=False)
        if to.inode is not None:
            raise Refusal(errno.EEXIST)
        if to.slash:
            raise Refusal(errno.ENOENT)
        _check_create(to, _uid(operation))
        if isinstance(inode, DirectoryInode):
            raise Refusal(errno.EPERM)
        _copy_up(source)
        inode.nlink += 1
        to.parent.entries[to.name] = inode
        _touch_directory(to)
        return None

    def _readlink(self, operation: Operation) -> Value:
        _, inode = self._existing(operation, follow=False)
        if not isinstance(inode, LinkInode):
            raise Refusal(errno.EINVAL)
        return inode.target

    def _truncate(self, operation: Operation) -> Value:
        assert isinstance(operation, Truncate)
        place, inode = self._existing(operation, follow=True)
        if isinstance(inode, DirectoryInode):
            raise Refusal(errno.EISDIR)
        if not _may(inode, _uid(operation), WRITE):
            raise Refusal(errno.EACCES)
        _copy_up(place)
        assert isinstance(inode, FileInode)
        _change(inode, inode.content[: operation.size].ljust(operation.size, b"\0"))
        return None

    def _touch(self, operation: Operation) -> Value:
        place, inode = self._existing(operation, follow=True)
        if _uid(operation) != inode.uid and not _may(inode, _uid(operation), WRITE):
            raise Refusal(errno.EACCES)
        _copy_up(place)
        inode.version += 1
        if isinstance(inode, FileInode):
            inode.touched = True
        return None

    def _chmod(self, operation: Operation) -> Value:
        assert isinstance(operation, ChangeMode)
        place, inode = self._existing(operation, follow=True)
        if _uid(operation) not in (0, inode.uid):
            raise Refusal(errno.EPERM)
        _copy_up(place)
        inode.mode = operation.mode
        return None

    def _size(self, operation: Operation) -> Value:
        _, inode = self._existing(operation, follow=True)
        return len(inode.content) if isinstance(inode, FileInode) else None

    def _rmtree(self, operation: Operation) -> Value:
        place = self._walk(str(operation.path).rstrip("/"), _uid(operation), follow=False)
        if place.inode is None:
            raise Refusal(errno.ENOENT)
        if not isinstance(place.inode, DirectoryInode):
            raise Refusal(errno.ENOTDIR)
        for _, below in descend("", place):
            assert below.inode is not None
            below.inode.nlink -= 1
        place.inode.nlink += 1
        _remove(place)
        return None

    def _create(self, place: Place, inode: Inode, uid: int) -> Inode:
        _check_create(place, uid)
        inode.uid = inode.gid = uid
        inode.in_upper = True
        place.parent.entries[place.name] = inode
        _touch_directory(place)
        return inode

    _rules: ClassVar[dict[type[Operation], Callable[[Model, Operation], Value]]] = {
        OpenFile: _open,
        MakeDirectory: _mkdir,
        RemoveDirectory: _rmdir,
        Unlink: _unlink,
        Rename: _rename,
        Link: _link,
        ReadLink: _readlink,
        Truncate: _truncate,
        Touch: _touch,
        ChangeMode: _chmod,
        Size: _size,
        RemoveTree: _rmtree,
    }


# helpers ------------------------------------------------------------------------------------------


def _uid(operation: Operation) -> int:
    return UNPRIVILEGED if operation.unprivileged else 0


def _may(inode: Inode, uid: int, access: int) -> bool:
    """Permission bits; root may all (search asks for one x bit, which directories here always have)."""
    if uid == 0:
        return True
    shift = 6 if inode.uid == uid else 3 if inode.gid == uid else 0
    return (inode.mode >> shift) & access == access


def _check_open(inode: Inode, flags: int, uid: int) -> None:
    creates, writes = bool(flags & os.O_CREAT), bool(flags & (os.O_ACCMODE | os.O_TRUNC))
    if creates and flags & os.O_EXCL:
        raise Refusal(errno.EEXIST)
    if isinstance(inode, DirectoryInode):
        if creates or writes:
            raise Refusal(errno.EISDIR)
    elif flags & os.O_DIRECTORY:
        raise Refusal(errno.ENOTDIR)
    reads = (flags & os.O_ACCMODE) != os.O_WRONLY
    if not _may(inode, uid, READ * reads | WRITE * writes):
        raise Refusal(errno.EACCES)


def _check_create(place: Place, uid: int) -> None:
    if not _may(place.parent, uid, WRITE | SEARCH):
        raise Refusal(errno.EACCES)


def _check_delete(place: Place, uid: int, *, directory: bool) -> None:
    """The checks the kernel makes before it removes or replaces a name by a (non-)directory."""
    _check_create(place, uid)
    if directory and not isinstance(place.inode, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    if not directory and isinstance(place.inode, DirectoryInode):
        raise Refusal(errno.EISDIR)


def _copy_up(place: Place) -> None:
    assert place.inode is not None
    for inode in (*place.above, place.inode):
        inode.in_upper = True


def _touch_directory(place: Place) -> None:
    """An entry of the parent changed: it is copied up and its times move."""
    for directory in place.above:
        directory.in_upper = True
    place.parent.version += 1


def _remove(place: Place) -> None:
    assert place.inode is not None
    place.inode.nlink -= 1
    del place.parent.entries[place.name]
    _touch_directory(place)


def _change(inode: FileInode, content: bytes) -> None:
    inode.content = content
    inode.version += 1
    inode.touched = False
