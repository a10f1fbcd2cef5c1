# SPDX-License-Identifier: GPL-2.0-only
"""Overlays whose mounter lacks a capability: what the layers refuse to it, the overlay refuses to everybody.

See "Permission model" in overlayfs.rst: the layers are used with the credentials of the mounter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from datasets.tree import Directory, File
from tests.mounts.marked import ONE_LOWER, layers, open_for_writing, read
from union.scenario import Group, Trial
from union.stand import Stand
from union.syscalls import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, without_capabilities

WRITABLE: Final = f"{ONE_LOWER},index=off,nfs_export=off"
LOWERS: Final = "lowerdir={k}:{l}"  # with an upper, the mounter needs both to use its work directory, of mode 0
OTHER: Final = 1  # a user who is not the mounter


def mounted(stand: Stand, options: str = LOWERS, *lacking: int) -> str:
    """By a mounter who lacks these capabilities: by default the two that let root read and search everything."""
    with without_capabilities(*(lacking or (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH))):
        return stand.mount(options)


def secrets(stand: Stand) -> None:
    """A file and directories of another user in l that nobody else may read, and one in both lowers."""
    secret = Directory({"f": File(b"below"), "g": File(b"below")}, 0o700, OTHER)
    layers(
        stand,
        l=Directory({"f": File(b"lower", 0o600, OTHER), "d": secret, "merged": secret, "free": File(b"free")}),
        k=Directory({"merged": Directory({"f": File(b"middle")})}),
    )


def refuses(label: str, call: Callable[[str], object], name: str) -> Trial:
    """The overlay of another mounter does it, that of the lesser one does not."""

    def work(stand: Stand) -> None:
        secrets(stand)
        at = mounted(stand)

        def the_call() -> None:
            call(f"{at}/{name}")

        stand.same("content of a free file", read(f"{at}/free"), b"free")
        stand.fails(errno.EACCES, the_call)
        stand.again(LOWERS)
        stand.fails(0, the_call)

    return Trial(label, work)


def restores_no_number(stand: Stand) -> None:
    """Who may open nothing by handle follows no origin: a copied up file has its upper number when mounted again."""
    layers(stand, l=Directory({"f": File(b"lower")}))
    at = stand.mount(WRITABLE)
    open_for_writing(f"{at}/f")
    lower, upper = (os.stat(stand.path(name)).st_ino for name in ("l/f", "u/f"))
    stand.same("number", os.stat(f"{at}/f").st_ino, lower)
    stand.unmount()
    mounted(stand, WRITABLE, CAP_DAC_READ_SEARCH)
    stand.same("number with a lesser mounter", os.stat(f"{at}/f").st_ino, upper)
    stand.again(WRITABLE)
    stand.same("number in the end", os.stat(f"{at}/f").st_ino, lower)


def gives_no_index(stand: Stand) -> None:
    """For the same reason there is no index."""
    layers(stand, l=Directory({"f": File(b"lower")}))
    stand.warns("falling back to index=off")
    mounted(stand, f"{ONE_LOWER},index=on,nfs_export=off", CAP_DAC_READ_SEARCH)
    stand.same("index", stand.shown().get("index", "off"), "off")


def reads_no_marks(stand: Stand) -> None:
    """With userxattr, marks of a file that the mounter cannot read count for nothing, and stat works."""
    marks = {"user.overlay.metacopy": b"", "user.overlay.redirect": b"/free"}
    hidden = File(b"upper", 0o600, OTHER, 0, marks)
    layers(stand, k=Directory({"f": hidden}), l=Directory({"free": File(b"free")}))
    at = mounted(stand, f"{LOWERS},userxattr")
    stand.same("size", os.stat(f"{at}/f").st_size, 5)
    stand.fails(errno.EACCES, read, f"{at}/f")


GROUPS = (
    Group(
        "lesser-mounter",
        "Overlays whose mounter lacks a capability.",
        trials=(
            refuses("a lower file is read", read, "f"),
            refuses("a lower directory is listed", os.listdir, "d"),
            refuses("a lower directory is searched", os.stat, "d/f"),
            refuses("a merge directory is listed", os.listdir, "merged"),
            refuses("a name in a merge directory is looked up", os.stat, "merged/g"),
            Trial("an origin is not followed", restores_no_number),
            Trial("an index is not used", gives_no_index),
            Trial("marks that cannot be read", reads_no_marks),
        ),
    ),
)
