# SPDX-License-Identifier: GPL-2.0-only
"""What operations on extended attributes and ACLs must do (xattr(7), acl(5))."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from datasets.acl import ACCESS, DEFAULT, Acl
from union.inodes import CAPABILITY, DirectoryInode, FileInode, Inode, LinkInode, Place
from union.operations import GetXattr, ListXattrs, Operation, RemoveXattr, SetXattr, Value
from union.rules.attributes import check_owner, raised
from union.rules.common import READ, WRITE, Refusal, Rules, check_access, check_change, uid_of

if TYPE_CHECKING:
    from union.model import Model

NAME_MAX, SIZE_MAX = 255, 64 * 1024  # XATTR_NAME_MAX, XATTR_SIZE_MAX
PRIVATE, ESCAPE = "trusted.overlay.", "overlay."
NAMESPACES = ("user.", "trusted.", "security.")
CAPABILITY_SIZES = {1: 12, 2: 20, 3: 24}  # bytes of a capability, by the revision in its first word


def _set(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SetXattr)
    key, uid = operation.key, uid_of(operation)
    if len(operation.value) > SIZE_MAX:
        raise Refusal(errno.E2BIG)
    if not 0 < len(os.fsencode(key)) <= NAME_MAX:
        raise Refusal(errno.ERANGE)
    place, inode = model.existing(operation, follow=operation.follow)
    if key in (ACCESS, DEFAULT):
        acl = _parsed(operation.value)
        _check_acl(inode, key, uid)
        if not acl.valid:
            raise Refusal(errno.EINVAL)
        _set_acl(_risen(place), key, acl, uid)
        return None
    if key == CAPABILITY and not _is_capability(operation.value):
        raise Refusal(errno.EINVAL)
    _check(inode, key, uid, WRITE)
    _check_storable(key)
    # What only the upper filesystem can tell comes when the object has been copied up to it.
    inode = _risen(place)
    if not key.startswith(NAMESPACES):
        raise Refusal(errno.EOPNOTSUPP)
    if operation.how == os.XATTR_CREATE and key in inode.xattrs:
        raise Refusal(errno.EEXIST)
    if operation.how == os.XATTR_REPLACE and key not in inode.xattrs:
        raise Refusal(errno.ENODATA)
    inode.xattrs = {**inode.xattrs, key: operation.value}
    return None


def _risen(place: Place) -> Inode:
    """The object in upper: one that is there under another name, by the index, gets no second one for its xattrs."""
    inode = place.inode
    return inode if inode is not None and inode.in_upper else raised(place)


def _remove(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, RemoveXattr)
    key, uid = operation.key, uid_of(operation)
    place, inode = model.existing(operation, follow=operation.follow)
    if key in (ACCESS, DEFAULT):
        _check_acl(inode, key, uid)
    else:
        _check(inode, key, uid, WRITE)
        _check_storable(key)
        if not key.startswith(NAMESPACES):
            raise Refusal(errno.EOPNOTSUPP)
    if key not in inode.xattrs:
        raise Refusal(errno.ENODATA)
    inode = _risen(place)
    inode.xattrs = {name: value for name, value in inode.xattrs.items() if name != key}
    return None


def _get(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, GetXattr)
    key = operation.key
    _, inode = model.existing(operation, follow=operation.follow)
    if key in (ACCESS, DEFAULT):
        if isinstance(inode, LinkInode):
            raise Refusal(errno.EOPNOTSUPP)
    else:
        _check(inode, key, uid_of(operation), READ)
        _check_storable(key)
        if not key.startswith(NAMESPACES):
            raise Refusal(errno.EOPNOTSUPP)
    if key not in inode.xattrs:
        raise Refusal(errno.ENODATA)
    return inode.xattrs[key]


def _list(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ListXattrs)
    _, inode = model.existing(operation, follow=operation.follow)
    root = uid_of(operation) == 0
    return " ".join(sorted(key for key in inode.xattrs if root or not key.startswith("trusted.")))


def _check(inode: Inode, key: str, uid: int, access: int) -> None:
    """Whether `uid` may read or write the xattr, each namespace with a rule of its own."""
    writes = access == WRITE
    if writes:
        check_change(inode)
    if key.startswith("security."):
        if writes and uid:
            raise Refusal(errno.EPERM)
    elif key.startswith("trusted."):
        if uid:
            raise Refusal(errno.EPERM if writes else errno.ENODATA)
    else:
        if key.startswith("user."):
            _check_user(inode, uid, writes)
        check_access(inode, uid, access)


def _check_user(inode: Inode, uid: int, writes: bool) -> None:
    if not isinstance(inode, FileInode | DirectoryInode):
        raise Refusal(errno.EPERM if writes else errno.ENODATA)
    if writes and isinstance(inode, DirectoryInode) and inode.mode & stat.S_ISVTX:
        check_owner(inode, uid)


def _check_storable(key: str) -> None:
    """The overlay's own names are stored with one more `overlay.`, for which there must be room."""
    if key.startswith(PRIVATE) and len(os.fsencode(key)) + len(ESCAPE) > NAME_MAX:
        raise Refusal(errno.EOPNOTSUPP)


def _is_capability(value: bytes) -> bool:
    return len(value) >= 4 and len(value) == CAPABILITY_SIZES.get(value[3])


def _parsed(value: bytes) -> Acl:
    try:
        return Acl.parse(value)
    except ValueError:
        raise Refusal(errno.EINVAL) from None


def _check_acl(inode: Inode, key: str, uid: int) -> None:
    if isinstance(inode, LinkInode):
        raise Refusal(errno.EOPNOTSUPP)
    check_change(inode)
    if key == DEFAULT and not isinstance(inode, DirectoryInode):
        raise Refusal(errno.EACCES)
    check_owner(inode, uid)


def _set_acl(inode: Inode, key: str, acl: Acl, uid: int) -> None:
    """Give the object an ACL; what permission bits can say is kept in them alone."""
    others = {name: value for name, value in inode.xattrs.items() if name != key}
    keep = key == DEFAULT or not acl.minimal
    inode.xattrs = {**others, key: acl.raw} if keep else others
    if key == ACCESS:
        outsider = uid not in (0, inode.gid)
        inode.mode = inode.mode & ~0o777 & ~(stat.S_ISGID if outsider else 0) | acl.mode


RULES: Rules = {
    SetXattr: _set,
    RemoveXattr: _remove,
    GetXattr: _get,
    ListXattrs: _list,
}
