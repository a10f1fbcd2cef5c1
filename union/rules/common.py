# SPDX-License-Identifier: GPL-2.0-only
"""What the rules share: how an operation is refused, who may do what, and what a change leaves behind."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from datasets.acl import ACCESS, Acl
from datasets.tree import APPEND_ONLY, IMMUTABLE
from union.inodes import DirectoryInode, FileInode, Inode, Place, drop_privileges
from union.operations import UNPRIVILEGED, Operation, Value

if TYPE_CHECKING:
    from union.model import Model

UMASK = 0o022
READ, WRITE, SEARCH = 4, 2, 1

Rule = Callable[["Model", Operation], Value]
Rules = dict[type[Operation], Rule]
"""Per kind of operation what it must do: changes the model and gives its value, or raises Refusal."""


class Refusal(Exception):
    """The operation must fail with this errno number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


def uid_of(operation: Operation) -> int:
    return UNPRIVILEGED if operation.unprivileged else 0


def same_object(old: Place, new: Place) -> bool:
    """Whether both names are of one object to the kernel, so that a rename does nothing.

    The names of a lower hard-link group that an index does not hold together are objects of their own.
    """
    if old.inode is not new.inode or old.inode is None:
        return False
    return not old.inode.breaks or (old.parent is new.parent and old.name == new.name)


def may(inode: Inode, uid: int, access: int) -> bool:
    """Permission bits and ACL; root may all (search asks for one x bit, which directories here always have)."""
    if uid == 0:
        return True
    if ACCESS in inode.xattrs:
        return Acl.parse(inode.xattrs[ACCESS]).permits(inode.uid == uid, uid, uid, inode.gid, access)
    shift = 6 if inode.uid == uid else 3 if inode.gid == uid else 0
    return (inode.mode >> shift) & access == access


def check_access(inode: Inode, uid: int, access: int) -> None:
    """May `uid` do that; an immutable object is for nobody to write."""
    if access & WRITE and inode.flags & IMMUTABLE:
        raise Refusal(errno.EPERM)
    if not may(inode, uid, access):
        raise Refusal(errno.EACCES)


def check_change(inode: Inode) -> None:
    """Attributes and links of an immutable or append-only object cannot be changed, by nobody."""
    if inode.flags & (IMMUTABLE | APPEND_ONLY):
        raise Refusal(errno.EPERM)


def check_open(inode: Inode, flags: int, uid: int) -> None:
    creates, writes = bool(flags & os.O_CREAT), bool(flags & (os.O_ACCMODE | os.O_TRUNC))
    if creates and flags & os.O_EXCL:
        raise Refusal(errno.EEXIST)
    if isinstance(inode, DirectoryInode):
        if creates or writes:
            raise Refusal(errno.EISDIR)
    elif flags & os.O_DIRECTORY:
        raise Refusal(errno.ENOTDIR)
    reads = (flags & os.O_ACCMODE) != os.O_WRONLY
    check_access(inode, uid, READ * reads | WRITE * writes)
    rewrites = flags & os.O_TRUNC or (flags & os.O_ACCMODE and not flags & os.O_APPEND)
    if inode.flags & APPEND_ONLY and rewrites:
        raise Refusal(errno.EPERM)


def check_create(place: Place, uid: int) -> None:
    check_access(place.parent, uid, WRITE | SEARCH)


def check_delete(place: Place, uid: int, *, directory: bool) -> None:
    """The checks the kernel makes before it removes or replaces a name by a (non-)directory."""
    check_create(place, uid)
    parent, inode = place.parent, place.inode
    sticky = parent.mode & stat.S_ISVTX and uid not in (0, parent.uid, inode.uid if inode else 0)
    if sticky or parent.flags & APPEND_ONLY or (inode and inode.flags & (IMMUTABLE | APPEND_ONLY)):
        raise Refusal(errno.EPERM)
    if directory and not isinstance(place.inode, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    if not directory and isinstance(place.inode, DirectoryInode):
        raise Refusal(errno.EISDIR)


def copy_up(place: Place) -> Inode:
    """The object at `place` is in the upper layer from now on, and so are the directories above it.

    Without an index a name of a lower hard-link group becomes an object of its own, with it the name joins
    those that are copied up (kernel doc, "Index"). The answer is the object that the name leads to then.
    """
    inode = place.inode
    assert inode is not None
    if inode.breaks:
        inode = place.inode = place.parent.entries[place.name] = _copy(inode, nlink=1)
    if inode.lower_names:
        inode.beneath = inode.beneath or _copy(inode, nlink=inode.nlink)
        inode.lower_names.discard(place.key)
    for one in (*place.above, inode):
        one.in_upper = True
    return inode


def _copy(inode: Inode, *, nlink: int) -> Inode:
    """Another object that looks the same but for its number of names."""
    return replace(inode, nlink=nlink, breaks=False, lower_names=set(), beneath=None)


def touch_directory(place: Place) -> None:
    """An entry of the parent changed: it is copied up and its times move."""
    for directory in place.above:
        directory.in_upper = True
    place.parent.version += 1


def remove(place: Place, *, indexed: bool = False) -> None:
    """Take the name at `place` away. What is `indexed` by all its names is copied up first: the index keeps count."""
    assert place.inode is not None
    if place.inode.lower_names or (indexed and not isinstance(place.inode, DirectoryInode)):
        copy_up(place)
    if not place.inode.breaks:  # the lower group keeps its count: nobody takes a name out of it
        place.inode.nlink -= 1
    del place.parent.entries[place.name]
    touch_directory(place)


def change(inode: FileInode, content: bytes, uid: int = 0) -> None:
    """`uid` writes or truncates: capabilities go whoever it is, suid and sgid stay for root alone."""
    mode = inode.mode
    drop_privileges(inode, outsider=uid not in (0, inode.gid))
    if uid == 0:
        inode.mode = mode
    inode.content = content
    inode.version += 1
    inode.touched = False
