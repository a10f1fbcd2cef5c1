# SPDX-License-Identifier: GPL-2.0-only
"""Layers that cannot be read any more: what marks, origins and descriptors from before come to then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File, Special
from tests.mounts.marked import hollow, names, open_for_writing, overwrite, read
from union import syscalls
from union.scenario import Group, Trial
from union.stand import Stand, attempt

LOWER_FAILS: Final = "lowerdir={x/l},upperdir={u},workdir={w},index=off,metacopy=off"
UPPER_FAILS: Final = "lowerdir={l},upperdir={x/u},workdir={x/w},redirect_dir=on,metacopy=on"


def over_a_failing_lower(stand: Stand, *, cold: bool) -> str:
    """A lower file, one that is copied up and one of upper alone; then XFS below is shut down.

    If `cold`, nothing is in the caches by then, else all three files are.
    """
    tree = Directory({"l": Directory({"f": File(b"lower"), "up": File(b"lower"), "d": Directory()})})
    layer = stand.filesystem("x", "xfs", tree)
    stand.layers(u=Directory({"own": File(b"own")}), w=Directory())
    at = stand.mount(LOWER_FAILS)
    open_for_writing(f"{at}/up")
    for name in ("f", "own"):
        os.stat(f"{at}/{name}")
    if cold:
        os.sync()
        syscalls.drop_caches()
    stand.shut_down(layer)
    return at


def removed_for_sure(stand: Stand) -> None:
    """A name of upper may be in lower as well for all that can be seen: a whiteout is left where it was."""
    at = over_a_failing_lower(stand, cold=False)
    os.unlink(f"{at}/own")
    stand.holds("a whiteout", stat.S_ISCHR(os.lstat(stand.path("u/own")).st_mode))


def cold_lower(stand: Stand) -> None:
    """With nothing in the caches, the content of a copied up file is still there."""
    at = over_a_failing_lower(stand, cold=True)
    stand.same("content", read(f"{at}/up"), b"lower")
    stand.fails(errno.EIO, os.stat, f"{at}/f")
    stand.fails(errno.EIO, os.stat, f"{at}/d")


def unreadable_marks(stand: Stand) -> None:
    """A name whose marks cannot be read is not found, but for an origin, which can be done without."""
    marked = Directory({"reg": hollow(5), "dir": Directory(xattrs={REDIRECT: b"/d"}), "fifo": Special(stat.S_IFIFO)})
    layer = stand.filesystem("x", "xfs", Directory({"u": marked, "w": Directory()}))
    stand.layers(l=Directory({"reg": File(b"lower"), "d": Directory({"f": File(b"f")})}))
    at = stand.mount(UPPER_FAILS)
    stand.same("content", read(f"{at}/reg"), b"lower")
    stand.same("listing", names(f"{at}/dir"), {"f"})
    held = [os.open(stand.path(f"x/u/{name}"), os.O_PATH) for name in ("reg", "dir", "fifo")]
    try:
        os.sync()
        syscalls.drop_caches()
        stand.shut_down(layer)
        stand.fails(errno.EIO, os.stat, f"{at}/reg")
        stand.fails(errno.EIO, os.stat, f"{at}/dir")
        stand.fails(0, os.access, f"{at}/fifo", os.F_OK)
        stand.fails(errno.EIO, os.getxattr, stand.path("x/u/reg"), METACOPY)
    finally:
        for fd in held:
            os.close(fd)


def to_a_pipe(fd: int) -> None:
    """splice(2) of a file's beginning."""
    reader, writer = os.pipe()
    try:
        os.splice(fd, writer, 16, offset_src=0)
    finally:
        os.close(reader)
        os.close(writer)


READS: Final[tuple[tuple[str, Callable[[int], object]], ...]] = (
    ("read", lambda fd: os.pread(fd, 16, 0)),
    ("seek data", lambda fd: os.lseek(fd, 0, os.SEEK_DATA)),
    ("splice", to_a_pipe),
    ("sync", os.fsync),
)


def opened_before(stand: Stand) -> None:
    """A file that was opened before its copy-up follows it into upper: when that fails, nobody gets old content."""
    stand.layers(l=Directory({"f": File(b"lower")}))
    layer = stand.filesystem("x", "xfs", Directory({"u": Directory(), "w": Directory()}))
    at = stand.mount(UPPER_FAILS)
    fds = [os.open(f"{at}/f", os.O_RDONLY) for _ in READS]
    with open(f"{at}/f", "rb") as file:
        overwrite(f"{at}/f", b"newer")
        stand.same("content", file.read(), b"newer")
    stand.shut_down(layer)
    for fd, (words, call) in zip(fds, READS, strict=True):

        def the_call(fd: int = fd, call: Callable[[int], object] = call) -> None:
            call(fd)

        the_call.__name__ = f"{words} what was opened before"
        stand.fails(errno.EIO, the_call)
        attempt(os.close, fd)  # flushes, which fails in some kernels


GROUPS = (
    Group(
        "unreadable-layers",
        "A filesystem below fails.",
        trials=(
            Trial("a name is removed from upper, and lower may have it", removed_for_sure),
            Trial("lower fails with nothing in the caches", cold_lower),
            Trial("marks in upper", unreadable_marks),
            Trial("files opened before their copy-up", opened_before),
        ),
    ),
)
