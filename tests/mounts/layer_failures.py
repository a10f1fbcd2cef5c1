# SPDX-License-Identifier: GPL-2.0-only
"""Layers that fail while they are used: what needs them gives EIO, the rest goes on, and nothing hangs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from errno import EIO, EROFS
from typing import Final, NamedTuple

from datasets.acl import ACCESS, DEFAULT
from datasets.tree import Directory
from tests.mounts import needs
from tests.mounts.memory_files import MORE, copy_range, on, set_flags, set_xattr, unnamed, write
from tests.mounts.memory_names import mknod, rmdir, symlink
from tests.mounts.memory_reading import flags, read, stat, xattr, xattrs
from tests.mounts.out_of_memory import DEFAULT_ACL, LOWER, chown, link, lists, mkdir, opened, rename, unlink
from union import filecalls, syscalls
from union.faults import Call
from union.filesystems import Layer
from union.portrait import differences, portrait
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name

NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
COPIED: Final = ("file", "dir", "dir/file")
MAY: Final = (0, EIO)  # what caches may answer


class Row(NamedTuple):
    """A call on the union, and the errnos (0: success) that it may give."""

    label: str
    call: Call
    errors: Sequence[int] = (EIO,)


MAKING: Final = (
    Row("create", opened("made", NEW)),
    Row("mkdir", mkdir("dir/made")),
    Row("mknod", mknod("node")),
    Row("symlink", symlink("dir/symlink")),
    Row("link of a copied file", link("file", "linked")),
    Row("link of a lower file", link("plain", "dir/linked")),
    Row("a file without a name", unnamed),
    Row("chown of a lower file", chown("plain")),
    Row("chown of a lower symlink", chown("link")),
    Row("chown of a lower device", chown("device")),
    Row("chown of a lower directory", chown("empty")),
    Row("chown of a copied file", chown("file")),
    Row("chown of a copied directory", chown("dir")),
    Row("open a lower file for writing", opened("plain", os.O_WRONLY)),
    Row("truncate", lambda top: os.truncate(f"{top}/file", 3)),
    Row("write", on("file", write)),
    Row("fallocate", on("file", lambda fd: filecalls.fallocate(fd, 0, 0, 9000))),
    Row("copy_file_range", copy_range),
    Row("setxattr", set_xattr("file", "user.new", b"v")),
    Row("removexattr", lambda top: os.removexattr(f"{top}/file", "user.one")),
    Row("set an ACL", set_xattr("file", ACCESS, MORE)),
    Row("set a default ACL", set_xattr("empty", DEFAULT, DEFAULT_ACL)),
    Row("set inode flags", set_flags),
)
REMOVING: Final = (
    Row("rename a copied file", rename("file", "new")),
    Row("rename a lower file", rename("plain", "dir/new")),
    Row("rename a lower directory", rename("empty", "new")),
    Row("unlink a copied file", unlink("dir/file")),
    Row("unlink a lower file", unlink("plain")),
    Row("rmdir", rmdir("empty")),
)
LOOKS: Final = (
    Row("stat of a lower file", stat("plain"), (0,)),
    Row("read a lower file", read("plain"), (0,)),
    Row("readlink", lambda top: os.readlink(f"{top}/link"), (0,)),
    Row("list a lower directory", lists("empty"), (0,)),
    Row("xattrs of a lower file", xattr("device", "user.none"), (61,)),
)


def try_rows(stand: Stand, point: str, rows: Sequence[Row], errors: Sequence[int] | None = None) -> None:
    """Make the calls in order; `errors` instead of their own."""
    for row in rows:
        stand.steps.append(row.label)
        got, wanted = attempt(row.call, point), errors or row.errors
        if got not in wanted:
            words = " or ".join(map(errno_name, wanted))
            stand.complaints.append(f"{row.label}: {errno_name(got)} instead of {words}")


def over(stand: Stand, fstype: str, options: str = "redirect_dir=on") -> tuple[str, Layer]:
    """A union in which some names are copied up, and its upper: a filesystem of its own."""
    stand.layers(l=LOWER)
    upper = stand.filesystem("up", fstype, Directory({"u": Directory(), "w": Directory()}))
    point = stand.mount(f"lowerdir={{l}},upperdir={{up/u}},workdir={{up/w}},{options}")
    chown(*COPIED)(point)
    return point, upper


def upper_fails_and_is_recovered(stand: Stand) -> None:
    """What a power cut takes from upper is no name of lower."""
    point, upper = over(stand, "xfs")
    wanted = portrait(point)
    fd = os.open(point, os.O_RDONLY)
    filecalls.syncfs(fd)
    os.close(fd)
    for name in ("plain", "link", "one", "empty"):
        os.utime(f"{point}/{name}", (1, 1), follow_symlinks=False)
    stand.shut_down(upper)
    stand.unmount()
    stand.recover(upper)
    point = stand.mount("lowerdir={l},upperdir={up/u},workdir={up/w},redirect_dir=on")
    stand.holds(f"the same tree: {differences(portrait(point), wanted)}", portrait(point) == wanted)
    try_rows(stand, point, MAKING, (0,))


def upper_becomes_read_only(stand: Stand) -> None:
    point, _ = over(stand, "tmpfs")
    wanted = portrait(point)
    stand.remount("", "up", syscalls.MS_RDONLY)
    try_rows(stand, point, MAKING + REMOVING, (EROFS,))
    try_rows(stand, point, LOOKS)
    stand.holds(f"the same tree: {differences(portrait(point), wanted)}", portrait(point) == wanted)
    stand.remount("", "up")
    try_rows(stand, point, MAKING, (0,))


def lower_fails(stand: Stand) -> None:
    """With xino=nofollow names that are only in lower fail, unless caches know better; those in upper never do (D9)."""
    options = ",xino=nofollow"
    needs.recent(options)
    lower = stand.filesystem("l", "xfs", LOWER)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount(f"lowerdir={{l}},upperdir={{u}},workdir={{w}}{options}")
    chown(*COPIED)(point)
    os.mkdir(f"{point}/made")
    portrait(point)
    stand.shut_down(lower)
    try_rows(stand, point, LOWER_GONE)
    try_rows(stand, point, UPPER_STAYS, (0,))
    in_upper = set(os.listdir(stand.path("u")))
    stand.same("in upper besides", in_upper - {*COPIED, "made"}, set())


LOWER_GONE: Final = (
    Row("stat of a lower file", stat("plain")),
    Row("read a lower file", read("plain")),
    Row("open a lower file for writing", opened("plain", os.O_WRONLY)),
    Row("chown of a lower file", chown("plain")),
    Row("chown of a lower symlink", chown("link")),
    Row("chown of a lower device", chown("device")),
    Row("chown of a lower directory", chown("empty")),
    Row("getxattr of a lower file", xattr("plain", "user.none")),
    Row("listxattr of a lower directory", xattrs("empty"), MAY),
    Row("inode flags of a lower file", flags("plain")),
    Row("readlink", lambda top: os.readlink(f"{top}/link"), MAY),
    Row("list a merge directory", lists(".")),
    Row("list a lower directory", lists("empty")),
    Row("make a name in a lower directory", opened("empty/new", NEW)),
    Row("rename a lower file", rename("plain", "made/new")),
    Row("link of a lower file", link("plain", "made/new")),
    Row("rmdir of a lower directory", rmdir("empty")),
)
UPPER_STAYS: Final = (
    Row("stat of a copied file", stat("file")),
    Row("write to a copied file", on("file", write)),
    Row("chown of a copied file", chown("file", "dir")),
    Row("setxattr of a copied file", set_xattr("file", "user.new", b"v")),
    Row("make a name in a directory of upper", opened("made/new", NEW)),
    Row("list a directory of upper", lists("made")),
    Row("rename a file of upper", rename("made/new", "made/other")),
    Row("remove a file of upper", unlink("made/other")),
)

# What was opened before the data moved to upper may still use lower (D16), and that is all that it may do.
HELD: Final[Mapping[str, tuple[str, int, Callable[[int], object]]]] = {
    "read through an old descriptor": ("plain", os.O_RDONLY, lambda fd: os.pread(fd, 9, 0)),
    "stat through an old descriptor": ("plain", os.O_RDONLY, os.fstat),
    "fsync of an old descriptor": ("plain", os.O_RDONLY, os.fsync),
    "list an old directory": ("empty", os.O_RDONLY, syscalls.getdents),
    "look up in an old directory": ("dir", os.O_RDONLY, lambda fd: os.stat("file", dir_fd=fd)),
    "make a name in an old directory": ("empty", os.O_RDONLY, lambda fd: os.mkdir("held", dir_fd=fd)),
}


def opened_before(stand: Stand) -> None:
    """Whatever an old descriptor does, it gives EIO or works, and the kernel has no complaint."""
    lower = stand.filesystem("l", "xfs", LOWER)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    held = {label: os.open(f"{point}/{name}", access) for label, (name, access, _) in HELD.items()}
    try:
        chown("plain", "empty", "dir", "dir/file")(point)
        stand.shut_down(lower)
        for label, fd in held.items():
            got = attempt(HELD[label][2], fd)
            stand.steps.append(f"{label}: {errno_name(got)}")
            stand.holds(f"{label}: {errno_name(got)}", got in MAY)
    finally:
        for fd in held.values():
            os.close(fd)


GROUPS = (
    Group(
        "layer-failures",
        "Use a union one of whose layers fails, is recovered or becomes read-only.",
        trials=(
            Trial("upper fails and is recovered", upper_fails_and_is_recovered),
            Trial("upper becomes read-only", upper_becomes_read_only),
            Trial("lower fails, with xino=nofollow", lower_fails),
            Trial("lower fails below what was opened before", opened_before),
        ),
    ),
)
