# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out while the union is read: no name is lost from a listing, no answer is wrong."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from typing import Final

from datasets.acl import ACCESS, DEFAULT
from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File, Node, Whiteout
from tests.mounts.out_of_memory import (
    LOWER,
    NO_MEMORY,
    TEXT,
    both,
    chown,
    cold,
    disturbed,
    lists,
    mkdir,
    opened,
    rename,
    unlink,
)
from union import namecalls
from union.faults import Call
from union.scenario import Group, Trial, When

UPPER: Final[Mapping[str, Node]] = {
    "dir": Directory({"of upper": File(b"u"), "file": Whiteout()}),
    "moved": Directory({"new": File(b"n")}, xattrs={REDIRECT: b"away"}),
    "away": Whiteout(),
    "hollow": File(bytes(len(TEXT)), 0o600, xattrs={METACOPY: b"", REDIRECT: b"plain"}),
    "plain": Whiteout(),
}
BELOW: Final = Directory({**LOWER.entries, "away": Directory({"old": File(b"old")})})
MIDDLE: Final[Mapping[str, Node]] = {
    "dir": Directory({"of middle": File(b"m"), "deep": Directory()}),
    "empty": Directory({"x": File(b"x")}),
}
CREATE: Final = os.O_CREAT | os.O_RDWR
FOLLOW: Final = "redirect_dir=on,metacopy=on"


def stat(*names: str) -> Call:
    """lstat(2): what copy-up does not change."""

    def call(top: str) -> list[tuple[int, int]]:
        found = [os.lstat(f"{top}/{name}") for name in names]
        return [(status.st_mode, status.st_uid) for status in found]

    return call


def missing(*names: str) -> Call:
    """lstat(2) of names that are not there."""

    def call(top: str) -> int:
        for name in names:
            try:
                os.lstat(f"{top}/{name}")
            except FileNotFoundError:
                continue
            return 0
        return errno.ENOENT

    return call


def read(name: str) -> Call:
    """Open and read."""

    def call(top: str) -> bytes:
        fd = os.open(f"{top}/{name}", os.O_RDONLY)
        try:
            return os.read(fd, 1000)
        finally:
            os.close(fd)

    return call


def mapped(top: str) -> None:
    """Open and map the file, touching no page."""
    fd = os.open(f"{top}/plain", os.O_RDONLY)
    try:
        mmap.mmap(fd, len(TEXT), mmap.MAP_SHARED, mmap.PROT_READ).close()
    finally:
        os.close(fd)


def xattr(name: str, key: str) -> Call:
    """lgetxattr(2)."""
    return lambda top: os.getxattr(f"{top}/{name}", key, follow_symlinks=False)


def xattrs(name: str) -> Call:
    """llistxattr(2)."""
    return lambda top: sorted(os.listxattr(f"{top}/{name}", follow_symlinks=False))


def flags(name: str) -> Call:
    """lsattr."""
    return lambda top: namecalls.get_flags(f"{top}/{name}")


def looks(label: str, call: Call, before: Call | None = None, options: str = "") -> Trial:
    """A call that changes nothing, on lower and upper alone."""
    return disturbed(label, call, before=before, options=options, errors=NO_MEMORY)


def merges(label: str, call: Call) -> Trial:
    """A call that changes nothing, on three layers with redirects, metadata copies and whiteouts."""
    return disturbed(label, call, BELOW, middle=MIDDLE, upper=UPPER, options=FOLLOW, errors=NO_MEMORY)


GROUPS = (
    Group(
        "memory-reading",
        "Look at the union with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=(
            looks("stat of a lower file", stat("dir/file")),
            looks("stat of a copied file", stat("dir/file"), cold(chown("dir/file"))),
            looks("stat of a file of upper", stat("new/f"), cold(mkdir("new"), opened("new/f", CREATE))),
            looks("stat of an indexed link", stat("two"), cold(chown("one")), "index=on"),
            looks("stat of a link with nfs_export", stat("one"), None, "index=on,nfs_export=on"),
            looks("stat below an absolute redirect", stat("empty/new/file"), cold(rename("dir", "empty/new")), FOLLOW),
            looks("stat of a moved metadata copy", stat("dir/new"), cold(rename("plain", "dir/new")), FOLLOW),
            looks("read a lower file", read("plain")),
            looks("read a copied file", read("plain"), cold(chown("plain"))),
            looks("map a lower file", mapped),
            looks("readlink", lambda top: os.readlink(f"{top}/link")),
            looks("getxattr", xattr("file", "user.one")),
            looks("getxattr of an ACL", xattr("file", ACCESS)),
            looks("getxattr of a default ACL", xattr("dir", DEFAULT)),
            looks("listxattr", xattrs("file")),
            looks("inode flags", flags("file")),
            looks("list a lower directory", lists("dir")),
            looks("list an impure directory", lists("new"), cold(mkdir("new"), rename("file", "new/file")), "xino=on"),
            looks("list after a removal", lists("."), both(unlink("file"), mkdir("new"))),
            merges("stat in a merge of three", stat("dir/deep")),
            merges("stat of whiteouts", missing("plain", "dir/file", "away")),
            merges("stat below a redirect", stat("moved/old")),
            merges("data below metadata", read("hollow")),
            merges("list a merge of three", lists(".", "dir", "moved")),
        ),
    ),
)
