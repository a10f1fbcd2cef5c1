# SPDX-License-Identifier: GPL-2.0-only
"""ACLs where lower has none or upper takes none: nothing is copied up for a change that is no change."""

from __future__ import annotations

import errno
import os
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File
from tests.mounts.marked import layers, names, xattr
from union import syscalls
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt

SOME: Final = acl("u::rw-,u:1:r--,g::r--,m::r--,o::---")
OPTIONS: Final = "lowerdir={l},upperdir={top/u},workdir={top/w}"


def mounted(stand: Stand) -> str:
    """A lower file, one with an ACL, a directory and an upper file. Raises Missing where tmpfs has no ACLs."""
    tree = Directory({"f": File(b"lower"), "acl": File(b"lower"), "d": Directory()})
    layers(stand, l=tree)
    if attempt(os.setxattr, stand.path("l/acl"), ACCESS, SOME) == errno.EOPNOTSUPP:
        raise Missing("the kernel's tmpfs has no ACLs")
    stand.filesystem("top", "tmpfs", Directory({"u": Directory({"own": File(b"own")}), "w": Directory()}))
    return stand.mount(OPTIONS)


def nothing_to_remove(stand: Stand) -> None:
    """Removing what lower has not is not worth a copy-up."""
    at = mounted(stand)
    stand.fails((0, errno.ENODATA), os.removexattr, f"{at}/f", ACCESS)
    stand.same("upper", names(stand.path("top/u")), {"own"})


def removed(stand: Stand) -> None:
    """Removing what lower has is: lower keeps it."""
    at = mounted(stand)
    stand.same("shown", os.getxattr(f"{at}/acl", ACCESS), SOME)
    os.removexattr(f"{at}/acl", ACCESS)
    stand.same("shown then", xattr(f"{at}/acl", ACCESS), None)
    stand.same("in upper", xattr(stand.path("top/u/acl"), ACCESS), None)
    stand.same("in lower", xattr(stand.path("l/acl"), ACCESS), SOME)


def default_of_a_file(stand: Stand) -> None:
    """Only a directory has a default ACL."""
    at = mounted(stand)
    stand.fails(errno.EACCES, os.setxattr, f"{at}/f", DEFAULT, SOME)
    stand.fails(0, os.removexattr, f"{at}/own", DEFAULT)
    stand.same("upper", names(stand.path("top/u")), {"own"})


def read_only_upper(stand: Stand) -> None:
    """Where upper cannot be written no ACL is set, and nothing is copied up."""
    at = mounted(stand)
    os.stat(f"{at}/own")
    stand.remount("", "top", syscalls.MS_RDONLY)
    for name in ("f", "own", "d"):
        stand.fails(errno.EROFS, os.setxattr, f"{at}/{name}", ACCESS, SOME)
        stand.same(f"ACL of {name}", xattr(f"{at}/{name}", ACCESS), None)
    stand.same("upper", names(stand.path("top/u")), {"own"})


GROUPS = (
    Group(
        "acl-changes",
        "ACLs where lower has none or upper takes none.",
        trials=(
            Trial("nothing to remove", nothing_to_remove),
            Trial("removed from a lower file", removed),
            Trial("a default ACL of a file", default_of_a_file),
            Trial("upper is read-only", read_only_upper),
        ),
    ),
)
