# SPDX-License-Identifier: GPL-2.0-only
"""The index directory: entries that are stale, orphaned or wrong, when mounting and when looking up.

Entries are named by the origin, files are hard links of the upper object, and directories hold its handle, see
"NFS export" in overlayfs.rst. What is certainly left over is removed; what cannot be understood refuses the mount.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File, HardLink
from tests.mounts.marked import ONE_LOWER, layers, names, open_for_writing, read, xattr
from union.filecalls import name_to_handle
from union.marks import NLINK, ORIGIN, PATH_UPPER, UPPER, Handle
from union.scenario import Group, Trial
from union.stand import Stand

INDEX: Final = f"{ONE_LOWER},index=on,nfs_export=off"
EXPORT: Final = f"{ONE_LOWER},index=on,nfs_export=on"
GONE, KEPT, WHITEOUT = "gone", "kept", "whiteout"

Change = Callable[[Stand], str]
"""What is done to the layers while nothing is mounted; the name of the index entry that it is about."""


def prepared(stand: Stand, options: str) -> str:
    """Layers with the hard link a, b and the directory d in l; a and d/f copied up. Unmounted again."""
    lower = Directory({"a": File(b"lower"), "b": HardLink("a"), "d": Directory({"f": File(b"f")}), "e": Directory()})
    layers(stand, l=lower)
    at = stand.mount(options)
    open_for_writing(f"{at}/a")
    open_for_writing(f"{at}/d/f")
    stand.unmount()
    return at


def index(stand: Stand, entry: str = "") -> str:
    """The path of the index directory or of an entry."""
    return stand.path(f"w/index/{entry}".rstrip("/"))


def entry_of(stand: Stand, name: str) -> str:
    """The name of the entry of an upper object."""
    return Handle.of(stand.path(f"u/{name}")).entry()


def state(path: str) -> str:
    """What has become of an entry."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return GONE
    return WHITEOUT if stat.S_ISCHR(found.st_mode) and not found.st_rdev else KEPT


def mounts(label: str, options: str, change: Change, wanted: str) -> Trial:
    """After the change the overlay mounts, and so much is left of the entry."""

    def work(stand: Stand) -> None:
        prepared(stand, options)
        entry = change(stand)
        stand.mount(options)
        stand.same(f"entry {entry}", state(index(stand, entry)), wanted)

    return Trial(label, work)


def refuses(label: str, options: str, change: Change, number: int) -> Trial:
    """After the change the mount is refused and the entry is left alone; without the index it mounts."""

    def work(stand: Stand) -> None:
        prepared(stand, options)
        entry = change(stand)
        stand.warns("failed index dir cleanup", "try deleting index dir")
        stand.refuses(number, options)
        stand.same(f"entry {entry}", state(index(stand, entry)), KEPT)
        stand.mount(f"{ONE_LOWER},index=off,nfs_export=off")

    return Trial(label, work)


# changes


def entry_named(name: str) -> Change:
    """An empty file of this name."""

    def change(stand: Stand) -> str:
        os.mknod(index(stand, name), stat.S_IFREG | 0o600)
        return name

    return change


def entry_like(**changes: int | bytes) -> Change:
    """The entry of u/a under the name of another handle."""

    def change(stand: Stand) -> str:
        handle = Handle.of(stand.path("u/a"))
        name = replace(handle, **changes).entry()  # type: ignore[arg-type]  # by name
        os.rename(index(stand, handle.entry()), index(stand, name))
        return name

    return change


def nothing(name: str) -> Change:
    """The entry of an upper object as it is."""
    return lambda stand: entry_of(stand, name)


def left_over(stand: Stand) -> str:
    """A temporary directory that was being filled when the machine stopped."""
    os.makedirs(index(stand, "#3f/inner"))
    os.mknod(index(stand, "#3f/f"), stat.S_IFREG | 0o600)
    return "#3f"


def without_origin(stand: Stand) -> str:
    entry = entry_of(stand, "a")
    os.removexattr(index(stand, entry), ORIGIN)
    return entry


def other_origin(stand: Stand) -> str:
    entry = entry_of(stand, "a")
    os.setxattr(index(stand, entry), ORIGIN, Handle.of(stand.path("u/d")).packed())
    return entry


def names_removed(stand: Stand) -> str:
    """All names of a hard link are gone: those of upper, and those of lower by whiteouts."""
    entry = entry_of(stand, "a")
    os.unlink(stand.path("u/a"))
    os.setxattr(index(stand, entry), NLINK, b"L-2")
    return entry


def one_name_left(stand: Stand) -> str:
    """The name in upper is gone, one in lower is not."""
    entry = entry_of(stand, "a")
    os.unlink(stand.path("u/a"))
    os.setxattr(index(stand, entry), NLINK, b"L-1")
    return entry


def lower_removed(stand: Stand) -> str:
    entry = entry_of(stand, "a")
    for name in ("u/a", "l/a", "l/b"):
        os.unlink(stand.path(name))
    return entry


def directory_removed(stand: Stand) -> str:
    entry = entry_of(stand, "d")
    os.unlink(stand.path("u/d/f"))
    os.rmdir(stand.path("u/d"))
    return entry


def without_upper(stand: Stand) -> str:
    entry = entry_of(stand, "d")
    os.removexattr(index(stand, entry), UPPER)
    return entry


def upper_is(name: str) -> Change:
    """The entry of the directory d leads to this upper object."""

    def change(stand: Stand) -> str:
        entry = entry_of(stand, "d")
        kind, fid = name_to_handle(stand.path(name))
        handle = Handle.of(index(stand, entry), UPPER)
        os.setxattr(index(stand, entry), UPPER, replace(handle, type=kind, fid=fid, flags=PATH_UPPER).packed())
        return entry

    return change


def directory_for_a_file(stand: Stand) -> str:
    entry = entry_of(stand, "a")
    os.unlink(stand.path("u/a"))
    os.unlink(index(stand, entry))
    os.mkdir(index(stand, entry))
    return entry


def whiteout_for(name: str) -> Change:
    """A whiteout instead of the entry of an upper object that is there no more, while lower has it."""

    def change(stand: Stand) -> str:
        entry = entry_of(stand, name)
        os.unlink(stand.path(f"u/{name}"))
        os.unlink(index(stand, entry))
        os.mknod(index(stand, entry), stat.S_IFCHR)
        return entry

    return change


def directory_moved(stand: Stand) -> str:
    """Renamed without a mark where it came from: the lower directory shows up again."""
    entry = entry_of(stand, "d")
    os.rename(stand.path("u/d"), stand.path("u/moved"))
    return entry


def directory_twice(stand: Stand) -> str:
    """A second upper directory over the same lower one."""
    twin = stand.path("u/twin")
    os.mkdir(twin)
    os.setxattr(twin, ORIGIN, Handle.of(stand.path("u/d")).packed())
    os.setxattr(twin, REDIRECT, b"/d")
    return entry_of(stand, "d")


def marked(name: str, value: bytes) -> Change:
    """The upper inode of a, which its other name finds by the index, has this mark."""

    def change(stand: Stand) -> str:
        os.setxattr(stand.path("u/a"), name, value)
        return entry_of(stand, "a")

    return change


LONG: Final = "0" * 60
MOUNTING = (
    mounts("an index as it was", INDEX, nothing("a"), KEPT),
    mounts("an index as it was, exported", EXPORT, nothing("d"), KEPT),
    mounts("a temporary file is removed", INDEX, entry_named("#2a"), GONE),
    mounts("a temporary directory is removed", EXPORT, left_over, GONE),
    mounts("an entry with the origin of another file is removed", INDEX, other_origin, GONE),
    mounts("an entry whose lower file is gone is removed", INDEX, lower_removed, GONE),
    mounts("an entry without names is removed", INDEX, names_removed, GONE),
    mounts("an entry without names becomes a whiteout when exported", EXPORT, names_removed, WHITEOUT),
    mounts("an entry with a name in lower stays", INDEX, one_name_left, KEPT),
    mounts("a directory without handle is removed", EXPORT, without_upper, GONE),
    mounts("a directory that is gone becomes a whiteout", EXPORT, directory_removed, WHITEOUT),
    mounts("a whiteout stays", EXPORT, whiteout_for("a"), WHITEOUT),
    mounts("directories are not looked at without nfs_export", INDEX, directory_for_a_file, KEPT),
    refuses("a short name", INDEX, entry_named("short"), errno.EINVAL),
    refuses("a name that is no number", INDEX, entry_named(f"x{LONG}"), errno.EINVAL),
    refuses("a name that is no handle", INDEX, entry_named(LONG), errno.EINVAL),
    refuses("a handle longer than its name", INDEX, entry_like(length=200), errno.EINVAL),
    refuses("a handle of a newer version", INDEX, entry_like(version=1), errno.ENODATA),
    refuses("an entry without origin", INDEX, without_origin, errno.ENODATA),
    refuses("a directory that leads to a file", EXPORT, upper_is("u/a"), errno.EIO),
)


def fails_at(label: str, options: str, change: Change, name: str, number: int | Sequence[int] = errno.EIO) -> Trial:
    """After the change the overlay mounts, but the lookup of this name fails; that of e does not."""

    def work(stand: Stand) -> None:
        at = prepared(stand, options)
        change(stand)
        stand.mount(options)
        stand.fails(number, os.stat, f"{at}/{name}")
        stand.same("another directory", names(f"{at}/e"), set())

    return Trial(label, work)


REFUSED: Final = (errno.EPERM, 0)  # 0: Linux before 6.16 follows what an entry of the index says, whatever the options
LOOKING_UP = (
    fails_at("a directory as entry of a file", INDEX, directory_for_a_file, "b"),
    fails_at("a whiteout as entry of a lower file", INDEX, whiteout_for("a"), "b"),
    fails_at("a lower directory that was copied up and moved away", EXPORT, directory_moved, "d"),
    fails_at("a bad redirect on the inode of an entry", INDEX, marked(REDIRECT, b"a/b"), "b", errno.EINVAL),
    fails_at("a bad metacopy mark on the inode of an entry", INDEX, marked(METACOPY, b"\0\3"), "b"),
    fails_at("metadata alone with metacopy=off", f"{INDEX},metacopy=off", marked(METACOPY, b""), "b", REFUSED),
    fails_at("a redirect not to be followed", f"{INDEX},redirect_dir=nofollow", marked(REDIRECT, b"b"), "b", REFUSED),
    fails_at("two upper directories over the same lower one", f"{EXPORT},redirect_dir=on", directory_twice, "twin"),
)


def replaced_name(stand: Stand) -> None:
    """An upper file that is no link of the entry of its origin any more is a file of its own."""
    at = prepared(stand, INDEX)
    upper, copy = stand.path("u/a"), stand.path("u/copy")
    with open(copy, "wb") as file:
        file.write(b"copied")
    os.setxattr(copy, ORIGIN, Handle.of(upper).packed())
    os.rename(copy, upper)
    stand.mount(INDEX)
    stand.same("content of the copy", read(f"{at}/a"), b"copied")
    stand.same("content of the other name", read(f"{at}/b"), b"lower")
    stand.holds("two inodes", os.stat(f"{at}/a").st_ino != os.stat(f"{at}/b").st_ino)


def links(label: str, mark: bytes | None, wanted: int) -> Trial:
    """The hard link a, b with this mark on its upper inode, which has 2 links with its entry: links in the union."""

    def work(stand: Stand) -> None:
        at = prepared(stand, INDEX)
        upper = stand.path("u/a")
        stand.same("mark", xattr(upper, NLINK), b"U+0")
        os.removexattr(upper, NLINK)
        if mark is not None:
            os.setxattr(upper, NLINK, mark)
        stand.mount(INDEX)
        stand.same("links", [os.stat(f"{at}/{name}").st_nlink for name in ("a", "b")], [wanted, wanted])

    return Trial(label, work)


LINKS = (
    links("links as they are", b"U+0", 2),
    links("more than upper has", b"U+2", 4),
    links("fewer than upper has", b"U-1", 1),
    links("more than lower has", b"L+1", 3),
    links("no mark", None, 2),
    links("an empty mark", b"", 2),
    links("another letter", b"X+3", 2),
    links("no sign", b"U3", 2),
    links("no number", b"U+many", 2),
    links("none left", b"U-2", 2),
    links("a mark that is too long", b"U+0000000000003", 2),
)


def removed_too_early(stand: Stand) -> None:
    """When the count drops to nothing while upper has names, what is left keeps its content and a true count."""
    at = prepared(stand, INDEX)
    stand.mount(INDEX)
    open_for_writing(f"{at}/b")
    stand.unmount()
    os.setxattr(stand.path("u/a"), NLINK, b"U-2")  # 3 links in upper: a, b and the entry
    stand.mount(INDEX)
    stand.same("links by the mark", os.stat(f"{at}/a").st_nlink, 1)
    entry = entry_of(stand, "b")
    os.unlink(f"{at}/a")
    stand.same("links after the removal", os.stat(f"{at}/b").st_nlink, 1)
    stand.same("entry", state(index(stand, entry)), KEPT)
    os.unlink(f"{at}/b")
    stand.same("entry at the end", state(index(stand, entry)), GONE)


GROUPS = (
    Group("index-entries", "What mounting makes of entries of the index.", trials=MOUNTING),
    Group(
        "index-lookups",
        "What a lookup makes of entries of the index.",
        trials=(
            *LOOKING_UP,
            Trial("a name that was replaced", replaced_name),
            *LINKS,
            Trial("links that are counted too low", removed_too_early),
        ),
    ),
)
