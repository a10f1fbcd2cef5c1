# SPDX-License-Identifier: GPL-2.0-only
"""What a new object gets from the directory it is made in: group, setgid bit, ACLs."""

from __future__ import annotations

import stat

from datasets.acl import ACCESS, DEFAULT, Acl
from union.inodes import DirectoryInode, Inode, LinkInode


def inherit(parent: DirectoryInode, inode: Inode, uid: int, asked: int) -> None:
    """Complete the new `inode`, made by `uid` with mode `asked`; its mode is that one under the umask already."""
    _inherit_acl(parent, inode, asked)
    if not parent.mode & stat.S_ISGID:
        return
    inode.gid = parent.gid
    if isinstance(inode, DirectoryInode):
        inode.mode |= stat.S_ISGID
    elif inode.mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP and uid not in (0, inode.gid):
        inode.mode &= ~stat.S_ISGID  # who is not in the group cannot make a program that runs as it


def _inherit_acl(parent: DirectoryInode, inode: Inode, asked: int) -> None:
    """With a default ACL the umask does not count (acl(5), "Object creation and default ACLs")."""
    default = parent.xattrs.get(DEFAULT)
    if default is None or isinstance(inode, LinkInode):
        return
    access = Acl.parse(default).inherited(asked)
    inode.mode = asked & ~0o777 | access.mode
    if not access.minimal:
        inode.xattrs = {**inode.xattrs, ACCESS: access.raw}
    if isinstance(inode, DirectoryInode):
        inode.xattrs = {**inode.xattrs, DEFAULT: default}
