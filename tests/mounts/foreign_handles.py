# SPDX-License-Identifier: GPL-2.0-only
"""File handles that are malformed or of something else, and what an overlay gives that is not exported.

open_by_handle_at(2) answers ESTALE whatever the reason is that a handle leads nowhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from datasets.tree import Directory, File, Symlink
from tests.mounts.handles import PLAIN, content, opened, prepared, stale
from tests.mounts.marked import layers, open_for_writing
from union.filecalls import AT_HANDLE_CONNECTABLE, AT_HANDLE_FID, FileHandle, name_to_handle
from union.marks import ALIGNED_TYPE, PATH_UPPER, UNALIGNED_TYPE, Handle
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt


def wrong(label: str, change: Callable[[Handle], FileHandle], name: str = "f", number: int = errno.ESTALE) -> Trial:
    """The handle of a lower file, changed, is refused; it was good before."""

    def work(stand: Stand) -> None:
        at = prepared(stand)
        os.mkdir(f"{at}/new")
        handle = name_to_handle(f"{at}/{name}")
        opened(stand, handle)
        stale(stand, change(Handle.shown(handle)), number)

    return Trial(label, work)


def with_(**changes: int | bytes) -> Callable[[Handle], FileHandle]:
    """Some fields are others."""
    return lambda handle: replace(handle, **changes).given()  # type: ignore[arg-type]  # by name


def cut(handle: Handle) -> FileHandle:
    return FileHandle(ALIGNED_TYPE, handle.given().data[:16])


WRONG: Final = (
    wrong("an unknown type", lambda handle: FileHandle(0x42, handle.given().data)),
    wrong("cut short", cut),
    wrong("cut short, unaligned", lambda handle: FileHandle(UNALIGNED_TYPE, handle.given().data[:16])),
    wrong("no more than the padding, unaligned", lambda _: FileHandle(UNALIGNED_TYPE, bytes(4))),
    wrong("longer than it is", with_(length=200)),
    wrong("another magic number", with_(magic=0)),
    wrong("a newer version", with_(version=1)),
    wrong("unknown flags", with_(flags=0x80)),
    wrong("another filesystem", with_(uuid=b"another instance")),
    wrong("another inode", lambda handle: replace(handle, fid=bytes(len(handle.fid))).given()),
    wrong("an upper one that says lower", lambda handle: replace(handle, flags=0).given(), "new"),
    wrong("a lower one that says upper, of another inode", with_(flags=PATH_UPPER, fid=bytes(12))),
)


def unaligned(stand: Stand) -> None:
    """Handles as Linux before 5.5 gave them are still good."""
    at = prepared(stand)
    handle = Handle.shown(name_to_handle(f"{at}/f"))
    stand.same("content", content(stand, handle.given(UNALIGNED_TYPE)), b"lower")


def of_another_overlay(stand: Stand) -> None:
    """A handle of an upper object means nothing where there is no upper layer; one of a lower object does."""
    at = prepared(stand)
    os.mkdir(f"{at}/new")
    upper, lower = name_to_handle(f"{at}/new"), name_to_handle(f"{at}/f")
    stand.layers(k=Directory())
    stand.again("lowerdir={k}:{l},nfs_export=on,redirect_dir=nofollow")
    stale(stand, upper)
    stand.same("content", content(stand, lower), b"lower")


def outside(stand: Stand) -> None:
    """A directory of the same filesystem that is in no layer is none of the union's."""
    at = prepared(stand)
    stand.layers(away=Directory({"x": Directory()}))
    handle = Handle.shown(name_to_handle(f"{at}/e"))
    kind, fid = name_to_handle(stand.path("away/x"))
    stale(stand, replace(handle, type=kind, fid=fid).given())


def not_exported(stand: Stand) -> None:
    layers(stand, l=Directory({"f": File(b"lower")}))
    at = stand.mount(PLAIN)
    stand.fails(errno.EOPNOTSUPP, name_to_handle, f"{at}/f")


def identifiers(stand: Stand) -> None:
    """Since Linux 6.6 a handle that only tells objects apart can be had of every overlay: copy-up keeps it."""
    lower = Directory({"f": File(b"lower"), "d": Directory({"f": File(b"f")}), "s": Symlink("f")})
    layers(stand, l=lower)
    at = stand.mount(PLAIN)
    if attempt(name_to_handle, f"{at}/f", AT_HANDLE_FID) == errno.EINVAL:
        raise Missing("this kernel has no AT_HANDLE_FID")
    os.mkdir(f"{at}/new")
    known = {name: name_to_handle(f"{at}/{name}", AT_HANDLE_FID) for name in ("f", "d", "s", "new", ".")}
    stand.same("different ones", len(set(known.values())), len(known))
    for name in ("f", "d/f"):
        open_for_writing(f"{at}/{name}")
    for name, handle in known.items():
        stand.same(f"handle of {name}", name_to_handle(f"{at}/{name}", AT_HANDLE_FID), handle)
    stale(stand, known["f"], (errno.EOPNOTSUPP, errno.ESTALE))


def identifiers_without_upper(stand: Stand) -> None:
    """They are those of the lower objects where there is nothing else."""
    layers(stand, l=Directory({"f": File(b"lower")}), k=Directory({"g": File(b"g")}))
    at = stand.mount("lowerdir={k}:{l}")
    if attempt(name_to_handle, f"{at}/f", AT_HANDLE_FID) == errno.EINVAL:
        raise Missing("this kernel has no AT_HANDLE_FID")
    shown = Handle.shown(name_to_handle(f"{at}/f", AT_HANDLE_FID))
    stand.same("inner handle", (shown.type, shown.fid), name_to_handle(stand.path("l/f")))


def connectable(stand: Stand) -> None:
    """A handle that leads to a parent as well cannot be had."""
    at = prepared(stand)
    stand.holds("no handle", attempt(name_to_handle, f"{at}/d/f", AT_HANDLE_CONNECTABLE) != 0)


GROUPS = (
    Group(
        "foreign-handles",
        "Handles that are malformed or of something else.",
        trials=(
            *WRONG,
            Trial("an unaligned handle", unaligned),
            Trial("a handle of an overlay with upper", of_another_overlay),
            Trial("a directory in no layer", outside),
            Trial("an overlay that is not exported", not_exported),
            Trial("identifiers of an overlay that is not exported", identifiers),
            Trial("identifiers without upper", identifiers_without_upper),
            Trial("a connectable handle", connectable),
        ),
    ),
)
