# SPDX-License-Identifier: GPL-2.0-only
"""What the operations of the classical suite must do."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from datasets.tree import APPEND_ONLY, IMMUTABLE
from union.inodes import DirectoryInode, FileInode, LinkInode, descend
from union.operations import (
    Link,
    MakeDirectory,
    OpenFile,
    Operation,
    ReadLink,
    RemoveDirectory,
    RemoveTree,
    Rename,
    Size,
    Touch,
    Truncate,
    Unlink,
    Value,
)
from union.rules.common import (
    UMASK,
    WRITE,
    Refusal,
    Rules,
    change,
    check_access,
    check_change,
    check_create,
    check_delete,
    check_open,
    copy_up,
    may,
    remove,
    same_object,
    touch_directory,
    uid_of,
)

if TYPE_CHECKING:
    from union.model import Model


def _open(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, OpenFile)
    flags, uid, path = operation.flags, uid_of(operation), str(operation.path)
    creates, exclusive = bool(flags & os.O_CREAT), bool(flags & os.O_EXCL)
    if creates and flags & os.O_DIRECTORY:
        raise Refusal(errno.EINVAL)  # commit 43b450632676 ("open: return EINVAL for O_DIRECTORY | O_CREAT")
    if creates and path.endswith("/"):
        model.walk_to(path.rstrip("/"), uid, follow=False)
        raise Refusal(errno.EISDIR)
    if creates:
        place = model.walk_to(path, uid, follow=not exclusive)
        inode = place.inode
    else:
        place, inode = model.existing(operation, follow=True)
    if inode is None:
        inode = model.create(place, FileInode(mode=operation.mode & ~UMASK), uid, operation.mode)
    else:
        check_open(inode, flags, uid)
        if flags & os.O_ACCMODE or flags & os.O_TRUNC:
            inode = copy_up(place)
    if not isinstance(inode, FileInode):
        return None
    if flags & os.O_TRUNC:
        change(inode, b"", uid)
    if operation.writes is not None:
        at = len(inode.content) if flags & os.O_APPEND else 0
        change(inode, inode.content[:at] + operation.writes + inode.content[at + len(operation.writes) :], uid)
    return inode.content if operation.reads is not None else None


def _mkdir(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, MakeDirectory)
    place = model.walk_to(str(operation.path), uid_of(operation), follow=False)
    if place.inode is not None:
        raise Refusal(errno.EEXIST)
    model.create(place, DirectoryInode(mode=operation.mode & ~UMASK), uid_of(operation), operation.mode)
    return None


def _rmdir(model: Model, operation: Operation) -> Value:
    place = model.walk_to(str(operation.path), uid_of(operation), follow=False)
    if place.inode is None:
        raise Refusal(errno.ENOENT)
    check_delete(place, uid_of(operation), directory=True)
    if isinstance(place.inode, DirectoryInode) and place.inode.entries:
        raise Refusal(errno.ENOTEMPTY)
    remove(place, indexed=model.index_all)
    return None


def _unlink(model: Model, operation: Operation) -> Value:
    place = model.walk_to(str(operation.path), uid_of(operation), follow=False)
    if place.inode is None:
        raise Refusal(errno.ENOENT)
    if place.slash:
        raise Refusal(errno.EISDIR if isinstance(place.inode, DirectoryInode) else errno.ENOTDIR)
    check_delete(place, uid_of(operation), directory=False)
    remove(place, indexed=model.index_all)
    return None


def _rename(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Rename)
    uid = uid_of(operation)
    old = model.walk_to(str(operation.path), uid, follow=False)
    new = model.walk_to(str(operation.to), uid, follow=False)
    inode = old.inode
    if inode is None:
        raise Refusal(errno.ENOENT)
    if not isinstance(inode, DirectoryInode) and (old.slash or new.slash):
        raise Refusal(errno.ENOTDIR)
    if inode in new.above:
        raise Refusal(errno.EINVAL)
    if new.inode in old.above and new.parent is not old.parent:
        raise Refusal(errno.ENOTEMPTY)
    if same_object(old, new):
        return None
    directory = isinstance(inode, DirectoryInode)
    check_delete(old, uid, directory=directory)
    if new.inode is None:
        check_create(new, uid)
    else:
        check_delete(new, uid, directory=directory)
    if isinstance(inode, DirectoryInode) and inode.lower is not None and not model.redirects:
        raise Refusal(errno.EXDEV)
    if isinstance(new.inode, DirectoryInode) and new.inode.entries:
        raise Refusal(errno.ENOTEMPTY)
    inode = copy_up(old)
    if new.inode is not None:
        remove(new, indexed=model.index_all)
    del old.parent.entries[old.name]
    touch_directory(old)
    new.parent.entries[new.name] = inode
    touch_directory(new)
    if isinstance(inode, DirectoryInode) and old.parent is not new.parent:
        inode.version += 1  # XFS takes a new parent for a change, if a whiteout stood where it moved to
    return None


def _link(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Link)
    source, inode = model.existing(operation, follow=False)
    to = model.walk_to(str(operation.to), uid_of(operation), follow=False)
    if to.inode is not None:
        raise Refusal(errno.EEXIST)
    if to.slash:
        raise Refusal(errno.ENOENT)
    check_create(to, uid_of(operation))
    check_change(inode)
    if isinstance(inode, DirectoryInode):
        raise Refusal(errno.EPERM)
    inode = copy_up(source)
    inode.nlink += 1
    to.parent.entries[to.name] = inode
    touch_directory(to)
    return None


def _readlink(model: Model, operation: Operation) -> Value:
    _, inode = model.existing(operation, follow=False)
    if not isinstance(inode, LinkInode):
        raise Refusal(errno.EINVAL)
    return inode.target


def _truncate(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Truncate)
    place, inode = model.existing(operation, follow=True)
    if isinstance(inode, DirectoryInode):
        raise Refusal(errno.EISDIR)
    if not isinstance(inode, FileInode):
        raise Refusal(errno.EINVAL)
    check_access(inode, uid_of(operation), WRITE)
    if inode.flags & APPEND_ONLY:
        raise Refusal(errno.EPERM)
    inode = copy_up(place)
    assert isinstance(inode, FileInode)
    change(inode, inode.content[: operation.size].ljust(operation.size, b"\0"), uid_of(operation))
    return None


def _touch(model: Model, operation: Operation) -> Value:
    place, inode = model.existing(operation, follow=True)
    if inode.flags & IMMUTABLE:
        raise Refusal(errno.EPERM)
    if uid_of(operation) != inode.uid and not may(inode, uid_of(operation), WRITE):
        raise Refusal(errno.EACCES)
    inode = copy_up(place)
    inode.version += 1
    if isinstance(inode, FileInode):
        inode.touched = True
    return None


def _size(model: Model, operation: Operation) -> Value:
    _, inode = model.existing(operation, follow=True)
    return len(inode.content) if isinstance(inode, FileInode) else None


def _rmtree(model: Model, operation: Operation) -> Value:
    place = model.walk_to(str(operation.path).rstrip("/"), uid_of(operation), follow=False)
    if place.inode is None:
        raise Refusal(errno.ENOENT)
    if not isinstance(place.inode, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    for _, below in descend("", place):
        assert below.inode is not None
        below.inode.nlink -= 1
    place.inode.nlink += 1
    remove(place, indexed=model.index_all)
    return None


RULES: Rules = {
    OpenFile: _open,
    MakeDirectory: _mkdir,
    RemoveDirectory: _rmdir,
    Unlink: _unlink,
    Rename: _rename,
    Link: _link,
    ReadLink: _readlink,
    Truncate: _truncate,
    Touch: _touch,
    Size: _size,
    RemoveTree: _rmtree,
}
