# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out while files are written and their attributes set."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import NOATIME
from tests.mounts.out_of_memory import DEFAULT_ACL, both, chown, cold, disturbed, opened
from union import filecalls, namecalls
from union.faults import Call
from union.scenario import Group, When

RW: Final = os.O_RDWR
MORE: Final = acl("u::rw-,u:3:r--,u:4:r--,g::r--,m::r--,o::r--")
METACOPY: Final = "metacopy=on,redirect_dir=on"


def on(name: str, act: Callable[[int], object], flags: int = RW) -> Call:
    """Open the file and do this to the descriptor."""

    def call(top: str) -> object:
        fd = os.open(f"{top}/{name}", flags)
        try:
            return act(fd)
        finally:
            os.close(fd)

    return call


def copied_meanwhile(act: Callable[[int], object], flags: int = os.O_RDONLY, name: str = "file") -> Call:
    """Open the lower file, have it copied up, then do this to the descriptor."""

    def call(top: str) -> object:
        fd = os.open(f"{top}/{name}", flags)
        try:
            chown(name)(top)
            return act(fd)
        finally:
            os.close(fd)

    return call


def write(fd: int) -> int:
    """Past the end of the file too."""
    return os.pwrite(fd, b"written", 355)


def map_shared(fd: int) -> None:
    """A mapping that could be written to, never touched."""
    mmap.mmap(fd, 100, mmap.MAP_SHARED).close()


def advise(fd: int) -> None:
    """posix_fadvise(2): it will be read."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)


def copy_range(top: str) -> int:
    """copy_file_range(2) from a lower file to another."""
    source = os.open(f"{top}/plain", os.O_RDONLY)
    try:
        target = os.open(f"{top}/file", RW)
        try:
            return os.copy_file_range(source, target, 100, 10, 0)
        finally:
            os.close(target)
    finally:
        os.close(source)


def unnamed(top: str) -> None:
    """O_TMPFILE, then a name for it."""
    fd = os.open(f"{top}/dir", os.O_TMPFILE | RW, 0o640)
    try:
        filecalls.link_descriptor(fd, f"{top}/dir/named")
    finally:
        os.close(fd)


def truncate(top: str) -> None:
    """truncate(2) of a lower file."""
    os.truncate(f"{top}/file", 5)


def set_xattr(name: str, key: str, value: bytes) -> Call:
    """setxattr(2)."""
    return lambda top: os.setxattr(f"{top}/{name}", key, value)


def remove_xattr(key: str) -> Call:
    """removexattr(2); that an earlier attempt removed it is as good."""

    def call(top: str) -> None:
        try:
            os.removexattr(f"{top}/file", key)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise

    return call


def set_flags(top: str) -> None:
    """chattr +A."""
    namecalls.set_flags(f"{top}/file", NOATIME)


def kept_flags(upper: str) -> int:
    """What the upper file has."""
    return namecalls.get_flags(f"{upper}/file") & NOATIME


GROUPS = (
    Group(
        "memory-files",
        "Write to files with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=(
            disturbed("write", on("file", write)),
            disturbed("write to a copied file", on("file", write), before=cold(chown("file"))),
            disturbed("truncate", truncate),
            disturbed("truncate a metadata copy", truncate, options=METACOPY, before=cold(chown("file"))),
            disturbed("fallocate", on("file", lambda fd: filecalls.fallocate(fd, 0, 0, 8192))),
            disturbed("copy_file_range", copy_range),
            disturbed("read after copy-up", copied_meanwhile(lambda fd: os.read(fd, 100))),
            disturbed("fsync after copy-up", copied_meanwhile(os.fsync)),
            disturbed("fdatasync of a copied file", on("file", os.fdatasync), before=cold(chown("file"))),
            disturbed("fsync of a directory after copy-up", copied_meanwhile(os.fsync, name="dir")),
            disturbed("seek after copy-up", copied_meanwhile(lambda fd: os.lseek(fd, 0, os.SEEK_DATA))),
            disturbed("advice after copy-up", copied_meanwhile(advise)),
            disturbed("a metadata copy read through a descriptor", copied_meanwhile(os.fsync), options=METACOPY),
            disturbed("a shared mapping", on("file", map_shared)),
            disturbed("a file without a name", unnamed),
            disturbed("setxattr", set_xattr("file", "user.new", b"v" * 200)),
            disturbed("setxattr of a directory", set_xattr("dir", "trusted.new", b"v")),
            disturbed("removexattr", remove_xattr("user.one")),
            disturbed("set an ACL", set_xattr("file", ACCESS, MORE)),
            disturbed("set a default ACL", set_xattr("empty", DEFAULT, DEFAULT_ACL)),
            disturbed("remove an ACL", remove_xattr(ACCESS)),
            disturbed("set inode flags", set_flags, kept=kept_flags),
            disturbed("open a file twice", both(opened("file", os.O_RDONLY), opened("file", RW))),
            disturbed("utime", lambda top: os.utime(f"{top}/file", (1, 1))),
        ),
    ),
)
