# SPDX-License-Identifier: GPL-2.0-only
"""Two overlays side by side: data goes from one to the other, names and handles do not."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from datasets.tree import Directory, File
from tests.mounts.handles import EXPORT, stale
from tests.mounts.marked import layers, names, read
from union import filecalls
from union.filecalls import name_to_handle
from union.scenario import Group, Trial
from union.stand import Stand

OTHER: Final = "lowerdir={l2},upperdir={u2},workdir={w2},index=on,nfs_export=on,redirect_dir=on"
TEXT: Final = b"some text of the first overlay"


def both(stand: Stand) -> tuple[str, str]:
    """Overlays on m and n, each with layers of its own on one filesystem; /f is lower in both."""
    layers(
        stand,
        l=Directory({"f": File(TEXT), "d": Directory()}),
        l2=Directory({"f": File(b"-" * 10), "e": Directory()}),
        u2=Directory(),
        w2=Directory(),
    )
    return stand.mount(EXPORT), stand.mount(OTHER, "n")


def copied_range(stand: Stand) -> None:
    """copy_file_range(2) copies up what it writes to, and nothing else."""
    first, second = both(stand)
    source, target = os.open(f"{first}/f", os.O_RDONLY), os.open(f"{second}/f", os.O_RDWR)
    try:
        stand.same("bytes copied", os.copy_file_range(source, target, 4, 5, 3), 4)
        stand.same("bytes behind the end", os.copy_file_range(source, target, 9, len(TEXT), 3), 0)
    finally:
        os.close(source)
        os.close(target)
    stand.same("content", read(f"{second}/f"), b"---" + TEXT[5:9] + b"---")
    stand.same("first upper", names(stand.path("u")), set())
    stand.same("second lower", read(stand.path("l2/f")), b"-" * 10)


def no_clone(stand: Stand) -> None:
    """Blocks are not shared from one to the other, be it of one filesystem or not."""
    first, second = both(stand)
    source, target = os.open(f"{first}/f", os.O_RDONLY), os.open(f"{second}/f", os.O_RDWR)
    try:
        stand.fails((errno.EXDEV, errno.EOPNOTSUPP), fcntl.ioctl, target, filecalls.FICLONE, source)
    finally:
        os.close(source)
        os.close(target)
    stand.same("content", read(f"{second}/f"), b"-" * 10)


def no_names(stand: Stand) -> None:
    """No name goes from one to the other."""
    first, second = both(stand)
    stand.fails(errno.EXDEV, os.rename, f"{first}/f", f"{second}/g")
    stand.fails(errno.EXDEV, os.rename, f"{first}/d", f"{second}/d")
    stand.fails(errno.EXDEV, os.link, f"{first}/f", f"{second}/g")
    stand.same("uppers", [names(stand.path(name)) for name in ("u", "u2")], [set(), set()])


def no_handles(stand: Stand) -> None:
    """A handle of the second means nothing to the first, though their layers are on one filesystem."""
    _, second = both(stand)
    os.mkdir(f"{second}/new")
    for name in ("e", "new"):
        handle = name_to_handle(f"{second}/{name}")
        stale(stand, handle)


GROUPS = (
    Group(
        "two-overlays",
        "What goes from one overlay to another.",
        trials=(
            Trial("a range is copied", copied_range),
            Trial("a file is not cloned", no_clone),
            Trial("names do not move", no_names),
            Trial("handles of directories are not taken", no_handles),
        ),
    ),
)
