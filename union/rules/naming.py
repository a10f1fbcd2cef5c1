# SPDX-License-Identifier: GPL-2.0-only
"""What making objects of every kind and renaming with flags must do."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from union.inodes import SPECIAL, DirectoryInode, FileInode, Inode, LinkInode, Place
from union.namecalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from union.operations import Make, Operation, Rename, RenameFlags, Value
from union.rules import classical
from union.rules.attributes import raised
from union.rules.common import Refusal, Rules, check_create, check_delete, same_object, touch_directory, uid_of

if TYPE_CHECKING:
    from union.model import Model

PATH_MAX = 4096  # bytes, with the terminator


def _make(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Make)
    uid = uid_of(operation)
    if operation.type == stat.S_IFLNK:
        if not operation.target:
            raise Refusal(errno.ENOENT)
        if len(os.fsencode(operation.target)) >= PATH_MAX:
            raise Refusal(errno.ENAMETOOLONG)
    place = model.walk_to(str(operation.path), uid, follow=False)
    if place.inode is not None:
        raise Refusal(errno.EEXIST)
    check_create(place, uid)
    if operation.type in (stat.S_IFCHR, stat.S_IFBLK) and uid:
        raise Refusal(errno.EPERM)
    if operation.type == stat.S_IFCHR and operation.rdev == 0:
        raise Refusal(errno.EPERM)  # that would be a whiteout
    model.create(place, _new(operation), uid, operation.mode)
    return None


def _new(operation: Make) -> Inode:
    mode = operation.mode & ~operation.umask
    if operation.type == stat.S_IFREG:
        return FileInode(mode=mode)
    if operation.type == stat.S_IFDIR:
        # mkdir(2) takes no suid and sgid bit; what a setgid parent gives comes on top.
        return DirectoryInode(mode=mode & ~(stat.S_ISUID | stat.S_ISGID))
    if operation.type == stat.S_IFLNK:
        return LinkInode(mode=0o777, target=operation.target)
    rdev = operation.rdev if operation.type in (stat.S_IFCHR, stat.S_IFBLK) else 0
    return SPECIAL[operation.type](mode=mode, rdev=rdev)


def _rename(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, RenameFlags)
    flags, uid = operation.flags, uid_of(operation)
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise Refusal(errno.EINVAL)
    old = model.walk_to(str(operation.path), uid, follow=False)
    new = model.walk_to(str(operation.to), uid, follow=False)
    if old.inode is None or (new.inode is None and flags & RENAME_EXCHANGE):
        raise Refusal(errno.ENOENT)
    if flags & RENAME_NOREPLACE and new.inode is not None:
        raise Refusal(errno.EEXIST)
    if flags & RENAME_EXCHANGE:
        _exchange(model, old, new, uid)
        return None
    if flags & RENAME_WHITEOUT:
        _whiteout(old, new, uid)
        return None
    plain = Rename(path=operation.path, to=operation.to, unprivileged=operation.unprivileged)
    return classical.RULES[Rename](model, plain)


def _whiteout(old: Place, new: Place, uid: int) -> None:
    """An overlay makes its whiteouts itself, but is asked only for what no rule of all filesystems settles."""
    if new.inode in old.above:
        raise Refusal(errno.ENOTEMPTY)
    if same_object(old, new):
        return
    if new.inode is not None and old.inode not in new.above:
        check_delete(new, uid, directory=isinstance(old.inode, DirectoryInode))
    raise Refusal(errno.EINVAL)


def _exchange(model: Model, old: Place, new: Place, uid: int) -> None:
    for place in (old, new):
        if place.slash and not isinstance(place.inode, DirectoryInode):
            raise Refusal(errno.ENOTDIR)
    if old.inode in new.above or new.inode in old.above:
        raise Refusal(errno.EINVAL)
    if same_object(old, new):
        return
    for place in (old, new):
        check_delete(place, uid, directory=isinstance(place.inode, DirectoryInode))
    for place in (old, new):
        inode = place.inode
        if isinstance(inode, DirectoryInode) and inode.lower is not None and not model.redirects:
            raise Refusal(errno.EXDEV)
    one, other = raised(old), raised(new)
    if old.parent is not new.parent and DirectoryInode in (type(one), type(other)):
        one.version += 1  # XFS takes it for a change of both that a directory has another parent
        other.version += 1
    old.parent.entries[old.name], new.parent.entries[new.name] = other, one
    touch_directory(old)
    touch_directory(new)


RULES: Rules = {Make: _make, RenameFlags: _rename}
