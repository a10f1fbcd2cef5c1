# SPDX-License-Identifier: GPL-2.0-only
"""An upper that is full at each moment of a call: it fails as a whole, and works when there is room again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from datasets.tree import Directory, File, HardLink, Node, Symlink
from tests.mounts.memory_files import on, set_xattr, unnamed
from tests.mounts.memory_names import HIDDEN, PURE, mknod, rmdir, symlink
from tests.mounts.out_of_memory import both, chown, cold, disturbed, link, lists, mkdir, opened, rename, unlink
from union import filecalls
from union.faults import Call, Injector
from union.namecalls import RENAME_EXCHANGE
from union.portrait import portrait
from union.scenario import Group, Trial, When
from union.shortage import Inodes, Pages, Protection
from union.stand import Stand
from union.witness import is_opaque

FULL: Final = (errno.ENOSPC,)
PROTECTED: Final = (errno.EPERM, errno.EIO)
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
W: Final = os.O_WRONLY
REDIRECT: Final = "redirect_dir=on"
METACOPY: Final = "metacopy=on,redirect_dir=on"
INDEX: Final = "index=on"
EXPORT: Final = "index=on,nfs_export=on"

DATA: Final = File(bytes(range(1, 256)) * 80)  # five pages
BIG: Final = Directory({"big": DATA, "dir": Directory()})
MIGRATED: Final = Directory({
    "dir": Directory({"big": DATA, "link": Symlink("big"), "one": File(b"linked"), "two": HardLink("one")}),
})  # fmt: skip


class Change(NamedTuple):
    """A change of the union that needs room in upper, and may write to all its directories."""

    label: str
    call: Call
    options: str = ""
    before: Call | None = None
    upper: Mapping[str, Node] | None = None


def hindered(change: Change, injector: Callable[[Stand], Injector], errors: tuple[int, ...]) -> Trial:
    """The change, made in vain at first."""
    label, call, options, before, upper = change
    return disturbed(label, call, upper=upper, options=options, before=before, errors=errors, injector=injector)


def known(change: Change) -> Change:
    """With all names looked up before: what is protected below its back, overlayfs is not to know."""
    return change._replace(before=both(*filter(None, (change.before, portrait))))


def pages(label: str, call: Call, options: str = "", before: Call | None = None) -> Trial:
    """No room for one more page of data."""
    return disturbed(label, call, BIG, options=options, before=before, errors=FULL, injector=Pages)


def migrates(label: str, injector: type[Inodes], options: str = "") -> Trial:
    """A migration stops when upper is full; later it is resumed and gets to its end (D12, D15)."""
    return disturbed(
        label,
        migrated,
        MIGRATED,
        options=f"xino=nofollow{options}",
        errors=FULL,
        settle=lists("dir", "."),
        kept=lambda upper: is_opaque(upper) and is_opaque(f"{upper}/dir"),
        injector=injector,
    )


def migrated(top: str) -> None:
    """Copy all up, showing no change, and list the directories from the lowest up."""
    for name in ("dir/big", "dir/link", "dir/one", "dir/two", "dir", "."):
        os.utime(f"{top}/{name}", (1, 1), follow_symlinks=False)
    lists("dir", ".")(top)


def write_all(fd: int) -> None:
    """Three pages, in one go or not at all: they are allocated first."""
    filecalls.fallocate(fd, 0, 0, 12288)
    os.pwrite(fd, b"w" * 12288, 0)


CHANGES: Final = (
    Change("copy up a file", chown("file")),
    Change("copy up data", opened("file", W)),
    Change("copy up a symlink", chown("link")),
    Change("copy up a device", chown("device")),
    Change("copy up a directory", chown("dir")),
    Change("copy up a file in a directory", chown("dir/file")),
    Change("copy up a hard link", chown("one"), INDEX),
    Change("copy up the second hard link", chown("two"), INDEX, chown("one")),
    Change("copy up a file for export", chown("file"), EXPORT),
    Change("copy up a directory for export", chown("dir"), EXPORT),
    Change("copy up metadata", chown("file"), METACOPY),
    Change("create", opened("dir/new", NEW)),
    Change("mkdir", mkdir("dir/new")),
    Change("mknod", mknod("new")),
    Change("symlink", symlink("new")),
    Change("link", link("file", "dir/new")),
    Change("link within the index", link("one", "dir/new"), INDEX, chown("one")),
    Change("create over a whiteout", opened("dir/file", NEW), upper=HIDDEN),
    Change("mkdir over a whiteout", mkdir("dir/file"), upper=HIDDEN),
    Change("symlink over a whiteout", symlink("file"), upper=HIDDEN),
    Change("link over a whiteout", link("plain", "dir/file"), upper=HIDDEN),
    Change("unlink a lower file", unlink("dir/file")),
    Change("unlink the last link for export", unlink("two"), EXPORT, unlink("one")),
    Change("rmdir a lower directory", rmdir("empty")),
    Change("rmdir a merge directory of whiteouts", rmdir("dir"), before=unlink("dir/file")),
    Change("rmdir a directory of upper with whiteouts", rmdir("stale"), upper=PURE),
    Change("rename a lower file", rename("file", "dir/new")),
    Change("rename over a lower file", rename("file", "dir/file")),
    Change("rename a lower directory", rename("dir", "empty/new"), REDIRECT),
    Change("rename over whiteouts", rename("empty", "dir"), REDIRECT, unlink("dir/file")),
    Change("exchange", rename("dir", "file", RENAME_EXCHANGE), REDIRECT),
    Change("a file without a name", unnamed),
    Change("setxattr", set_xattr("file", "user.new", b"v" * 3000)),
)

GROUPS = (
    Group(
        "full-upper-inodes",
        "Change the union while upper has no room for the next inode.",
        when=When.WITHOUT_DETACH,
        trials=tuple(hindered(change, Inodes, FULL) for change in CHANGES),
    ),
    Group(
        "protected-upper",
        "Change the union while directories of upper are immutable or append-only.",
        when=When.WITHOUT_DETACH,
        trials=tuple(hindered(known(change), Protection, PROTECTED) for change in CHANGES),
    ),
    Group(
        "full-upper-pages",
        "Change the union while upper has no room for the next page.",
        when=When.WITHOUT_DETACH,
        trials=(
            pages("copy up data", opened("big", W)),
            pages("copy up data with fsync", chown("big"), "fsync=strict"),
            pages("rename with its data", rename("big", "dir/big")),
            pages("data after metadata", opened("big", W), METACOPY, chown("big")),
            pages("data after metadata, cold", opened("big", W), METACOPY, cold(chown("big"))),
            pages("copy up and write", both(opened("big", W), on("big", write_all))),
        ),
    ),
    Group(
        "full-upper-migration",
        "Migrate while upper becomes full, and once more.",
        trials=(
            migrates("no room for the next inode", Inodes),
            migrates("no room for the next inode, with an index", Inodes, ",index=on"),
            migrates("no room for the next page", Pages),
        ),
    ),
)
