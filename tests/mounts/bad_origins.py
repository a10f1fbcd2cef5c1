# SPDX-License-Identifier: GPL-2.0-only
"""Origins: what an upper object remembers of the lower one it was copied from, when that is wrong, gone or missing.

An origin gives inode numbers, hard links and file handles, never content: a wrong one is unknown, or an error where
the features index and nfs_export rely on it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from datasets.layers import METACOPY
from datasets.tree import Directory, File, HardLink
from tests.mounts.marked import ONE_LOWER, layers, names, open_for_writing, read, xattr
from union.filecalls import name_to_handle
from union.marks import ANY_ENDIAN, BIG_ENDIAN, IMPURE, MAGIC, ORIGIN, PATH_UPPER, Handle
from union.scenario import Group, Trial
from union.stand import Stand

Change = Callable[[Stand, Handle], bytes | None]
"""What becomes of the origin of u/f, None for none, while nothing is mounted."""


def copied_up(stand: Stand, options: str = "index=off", f: str = "f", **more: Directory) -> str:
    """Layers with f, other and dir/f in l, all copied up; where, mounted with `options`."""
    lower = Directory({"f": File(b"lower"), "other": File(b"other"), "dir": Directory({"f": File(b"below")})})
    layers(stand, l=lower, **more)
    at = stand.mount(f"{ONE_LOWER},{options}")
    for name in ("f", "other", "dir/f"):
        open_for_writing(f"{at}/{name}")
    return at


def number(path: str) -> int:
    """The inode number."""
    return os.stat(path).st_ino


def put(path: str, origin: bytes | None) -> None:
    """Make this the origin of an upper object."""
    if origin is None:
        os.removexattr(path, ORIGIN)
    else:
        os.setxattr(path, ORIGIN, origin)


def to(name: str, flags: int = 0) -> Change:
    """An origin that leads to this object of the stand."""

    def change(stand: Stand, origin: Handle) -> bytes:
        kind, fid = name_to_handle(stand.path(name))
        return replace(origin, flags=origin.flags | flags, type=kind, fid=fid).packed()

    return change


def removed(stand: Stand, origin: Handle) -> bytes:
    """An origin whose file is gone; with no other one at its inode number."""
    os.unlink(stand.path("l/f"))
    return origin.packed()


def becomes(label: str, change: Change, gives: str) -> Trial:
    """With the origin changed, /f has the inode number of the object `gives`, and keeps its content."""

    def work(stand: Stand) -> None:
        at = copied_up(stand)
        stand.same("inode number at first", number(f"{at}/f"), number(stand.path("l/f")))
        stand.unmount()
        put(stand.path("u/f"), change(stand, Handle.of(stand.path("u/f"))))
        stand.mount(f"{ONE_LOWER},index=off")
        stand.same("inode number", number(f"{at}/f"), number(stand.path(gives)))
        stand.same("content", read(f"{at}/f"), b"lower")
        listed = {entry.name: entry.inode() for entry in os.scandir(at)}
        stand.same("d_ino", listed["f"], number(stand.path(gives)))
        stand.same("d_ino of its neighbour", listed["other"], number(stand.path("l/other")))

    return Trial(label, work)


def cut(_: Stand, origin: Handle) -> bytes:
    """A handle cut short."""
    return replace(origin, length=25, fid=origin.fid[:4]).packed()


def as_it_is(_: Stand, origin: Handle) -> bytes:
    return origin.packed()


def with_(**changes: int | bytes) -> Change:
    """An origin of which some fields are others."""
    return lambda _, origin: replace(origin, **changes).packed()  # type: ignore[arg-type]  # by name


NATIVE, UPPER = "l/f", "u/f"
UNKNOWN: Final = (
    becomes("an origin that is right", as_it_is, NATIVE),
    becomes("no origin", lambda *_: None, UPPER),
    becomes("an empty origin", lambda *_: b"", UPPER),
    becomes("a newer version", with_(version=1), UPPER),
    becomes("unknown flags", with_(flags=0x80), UPPER),
    becomes("the other byte order", with_(flags=BIG_ENDIAN), UPPER),
    becomes("the other byte order, of a handle that has none", with_(flags=BIG_ENDIAN | ANY_ENDIAN), NATIVE),
    becomes("another magic number", with_(magic=MAGIC ^ 1), UPPER),
    becomes("shorter than its header", lambda _, origin: origin.packed()[:20], UPPER),
    becomes("shorter than it says", lambda _, origin: origin.packed()[:-1], UPPER),
    becomes("another filesystem", with_(uuid=b"another instance"), UPPER),
    becomes("a handle cut short", cut, UPPER),
    becomes("a lower file that is gone", removed, UPPER),
    becomes("a lower directory", to("l/dir"), UPPER),
    becomes("another lower file", to("l/dir/f"), "l/dir/f"),
    becomes("a file that is in no layer", to("w"), UPPER),
)


def restored(stand: Stand) -> None:
    """A merge directory without origin gets one when it is looked up, and its parent is marked."""
    at = copied_up(stand)
    stand.unmount()
    origin = Handle.of(stand.path("u/dir"))
    os.removexattr(stand.path("u/dir"), ORIGIN)
    os.removexattr(stand.path("u"), IMPURE)
    stand.mount(f"{ONE_LOWER},index=off")
    os.stat(f"{at}/dir")
    stand.same("origin", xattr(stand.path("u/dir"), ORIGIN), origin.packed())
    stand.same("impure mark of its parent", xattr(stand.path("u"), IMPURE), b"y")


def not_restored(stand: Stand) -> None:
    """A read-only overlay of the same layers, as lowers, writes nothing."""
    copied_up(stand)
    stand.unmount()
    os.removexattr(stand.path("u/dir"), ORIGIN)
    at = stand.mount("lowerdir={u}:{l}")
    stand.same("listing", names(f"{at}/dir"), {"f"})
    stand.same("origin", xattr(stand.path("u/dir"), ORIGIN), None)


def merges(label: str, options: str, change: Change, *merged: str) -> Trial:
    """A directory of both layers with its origin changed lists what upper has, and these names of lower."""

    def work(stand: Stand) -> None:
        below = Directory({"f": File(b"f"), "lower": File(b"l")})
        layers(stand, l=Directory({"dir": below, "else": Directory({"lower": File(b"l")})}))
        at = stand.mount(f"{ONE_LOWER},{options}")
        open_for_writing(f"{at}/dir/f")
        os.mkdir(f"{at}/dir/pure")
        stand.unmount()
        put(stand.path("u/dir"), change(stand, Handle.of(stand.path("u/dir"))))
        stand.mount(f"{ONE_LOWER},{options}")
        stand.same("listing", names(f"{at}/dir"), {"f", "pure", *merged})

    return Trial(f"{label} with {options}", work)


BY_NAME, BY_ORIGIN = "nfs_export=off,index=off", "nfs_export=on,index=on"
MERGES: Final = (
    merges("another directory", BY_NAME, to("l/else"), "lower"),
    merges("another directory", BY_ORIGIN, to("l/else")),
    merges("a handle cut short", BY_NAME, cut, "lower"),
    merges("a handle cut short", BY_ORIGIN, cut),
)


def metadata_of_another(stand: Stand) -> None:
    """With index=on the file whose data a copy of metadata shows must be its origin."""
    options = f"{ONE_LOWER},index=on,metacopy=on,redirect_dir=on"
    layers(stand, l=Directory({"f": File(b"lower"), "other": File(b"other")}))
    at = stand.mount(options)
    os.chmod(f"{at}/f", 0o600)
    stand.unmount()
    stand.same("metacopy mark", xattr(stand.path("u/f"), METACOPY), b"")
    put(stand.path("u/f"), to("l/other")(stand, Handle.of(stand.path("u/f"))))
    stand.mount(options)
    stand.fails(errno.ESTALE, os.stat, f"{at}/f")
    stand.again(options.replace("index=on", "index=off"))
    stand.same("content without index", read(f"{at}/f"), b"lower")


def broken_links(stand: Stand) -> None:
    """Without index each name of a hard link becomes a file of its own, which has no origin."""
    layers(stand, l=Directory({"a": File(b"lower"), "b": HardLink("a")}))
    at = stand.mount(f"{ONE_LOWER},index=off")
    for name in ("a", "b"):
        open_for_writing(f"{at}/{name}")
    stand.again(f"{ONE_LOWER},index=off")
    stand.same("origins", [xattr(stand.path(f"u/{name}"), ORIGIN) for name in ("a", "b")], [None, None])
    stand.holds("two inodes", number(f"{at}/a") != number(f"{at}/b"))
    stand.same("links", os.stat(f"{at}/a").st_nlink, 1)


def upper_handle(stand: Stand) -> None:
    """A handle of an upper object that is gone is no origin."""
    at = copied_up(stand)
    stand.unmount()
    away = stand.path("u/away")
    with open(away, "wb"):
        put(stand.path("u/f"), to("u/away", PATH_UPPER)(stand, Handle.of(stand.path("u/f"))))
    os.unlink(away)
    stand.mount(f"{ONE_LOWER},index=off")
    stand.same("inode number", number(f"{at}/f"), number(stand.path("u/f")))


GROUPS = (
    Group(
        "bad-origins",
        "Origins of upper objects that are wrong, gone or missing.",
        trials=(
            *UNKNOWN,
            Trial("a merge directory gets its origin back", restored),
            Trial("a read-only overlay restores nothing", not_restored),
            *MERGES,
            Trial("a copy of the metadata of another file", metadata_of_another),
            Trial("names of a broken hard link", broken_links),
            Trial("an upper object that is gone", upper_handle),
        ),
    ),
)
