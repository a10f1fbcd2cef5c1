# SPDX-License-Identifier: GPL-2.0-only
"""What operations on mode, owner, times and flags must do."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from datasets.acl import ACCESS, Acl
from datasets.tree import APPEND_ONLY, IMMUTABLE
from union.inodes import DirectoryInode, FileInode, Inode, LinkInode, Place, SpecialInode, Times, drop_privileges
from union.namecalls import KEPT_FLAGS
from union.operations import (
    KEEP,
    ChangeMode,
    ChangeOwner,
    GetFlags,
    Looks,
    Operation,
    SetFlags,
    SetTimes,
    Value,
    looks,
)
from union.rules.common import READ, Refusal, Rules, check_access, check_change, copy_up, uid_of

if TYPE_CHECKING:
    from union.model import Model


def raised(place: Place) -> Inode:
    """The object at `place`, copied up: maybe not the one that was there before."""
    copy_up(place)
    assert place.inode is not None
    return place.inode


def check_owner(inode: Inode, uid: int) -> None:
    if uid not in (0, inode.uid):
        raise Refusal(errno.EPERM)


def _chmod(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ChangeMode)
    uid = uid_of(operation)
    place, inode = model.existing(operation, follow=True)
    check_change(inode)
    check_owner(inode, uid)
    inode = raised(place)
    outsider = uid not in (0, inode.gid)
    inode.mode = operation.mode & ~(stat.S_ISGID if outsider else 0)
    if ACCESS in inode.xattrs:
        inode.xattrs = {**inode.xattrs, ACCESS: Acl.parse(inode.xattrs[ACCESS]).with_mode(inode.mode).raw}
    return None


def _chown(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ChangeOwner)
    uid = uid_of(operation)
    place, inode = model.existing(operation, follow=operation.follow)
    if (operation.uid, operation.gid) != (KEEP, KEEP):
        check_change(inode)
        own = uid == inode.uid and operation.uid in (KEEP, uid) and operation.gid in (KEEP, uid)
        if uid and not own:
            raise Refusal(errno.EPERM)
    outsider = uid not in (0, inode.gid)
    privileged = inode.mode & stat.S_ISUID or (inode.mode & stat.S_ISGID and (outsider or inode.mode & stat.S_IXGRP))
    if privileged and not isinstance(inode, DirectoryInode | LinkInode):
        check_owner(inode, uid)  # to take the bits away is a change of the mode, whatever is asked for
    inode = raised(place)
    if not isinstance(inode, DirectoryInode):
        drop_privileges(inode, outsider=outsider)
    inode.uid = inode.uid if operation.uid == KEEP else operation.uid
    inode.gid = inode.gid if operation.gid == KEEP else operation.gid
    return None


def _set_times(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SetTimes)
    place, inode = model.existing(operation, follow=operation.follow)
    check_change(inode)
    check_owner(inode, uid_of(operation))
    inode = raised(place)
    known = inode.times()
    mtime = known.mtime if known and operation.mtime is None else operation.mtime
    if operation.mtime is not None:
        inode.version += 1
        if isinstance(inode, FileInode):
            inode.touched = False
    inode.stated = Times(inode.version, mtime, operation.atime)
    return None


def _looks(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Looks)
    _, inode = model.existing(operation, follow=operation.follow)
    size, rdev, flags = 0, 0, inode.flags if operation.flags else 0
    if isinstance(inode, FileInode):
        size = len(inode.content)
    elif isinstance(inode, LinkInode):
        size = len(os.fsencode(inode.target))
    elif isinstance(inode, SpecialInode):
        rdev = inode.rdev
    return looks(
        inode.TYPE | inode.mode, inode.uid, inode.gid, inode.nlink, size, (os.major(rdev), os.minor(rdev)),
        immutable=bool(flags & IMMUTABLE), append=bool(flags & APPEND_ONLY),
    )  # fmt: skip


def _get_flags(model: Model, operation: Operation) -> Value:
    _, inode = model.existing(operation, follow=True)
    check_access(inode, uid_of(operation), READ)
    return inode.flags & KEPT_FLAGS


def _set_flags(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SetFlags)
    uid = uid_of(operation)
    place, inode = model.existing(operation, follow=True)
    check_access(inode, uid, READ)
    check_owner(inode, uid)
    if uid and (inode.flags ^ operation.flags) & (IMMUTABLE | APPEND_ONLY):
        raise Refusal(errno.EPERM)
    raised(place).flags = operation.flags
    return None


RULES: Rules = {
    ChangeMode: _chmod,
    ChangeOwner: _chown,
    SetTimes: _set_times,
    Looks: _looks,
    GetFlags: _get_flags,
    SetFlags: _set_flags,
}
