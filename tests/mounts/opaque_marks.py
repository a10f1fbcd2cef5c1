# SPDX-License-Identifier: GPL-2.0-only
"""Who may mark a directory opaque by listing it, and what becomes of the listing if upper cannot be marked (D15)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from datasets.tree import Directory, File
from tests.mounts import needs
from union import syscalls
from union.portrait import differences, portrait
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.witness import is_opaque

LOWER: Final = Directory({"d": Directory({"f": File(b"f"), "g": File(b"g"), "s": Directory()}), "e": Directory()})
NAMES: Final = ("d", "d/f", "d/g", "d/s")
LAYERS: Final = "lowerdir={l},upperdir={up/u},workdir={up/w},xino=nofollow"
PATIENCE: Final = 20.0  # seconds that a listing may take before it counts as one that hangs


def migrated(stand: Stand, fstype: str = "tmpfs") -> str:
    """A union in which `d` needs no lower but is not listed yet; the upper is a filesystem of its own."""
    needs.recent(LAYERS)
    stand.layers(l=LOWER)
    stand.filesystem("up", fstype, Directory({"u": Directory(), "w": Directory()}))
    point = stand.mount(LAYERS)
    for name in NAMES:
        os.chown(f"{point}/{name}", 1, 1)
    names(f"{point}/d/s")
    return point


def names(path: str) -> list[str]:
    """All of one listing."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(entry.name for entry in syscalls.getdents(fd))
    finally:
        os.close(fd)


def listed(stand: Stand, point: str, *, marks: bool) -> None:
    """The listing is complete, and does or does not mark the directory."""
    stand.same("the listing", names(f"{point}/d"), [".", "..", "f", "g", "s"])
    stand.same("d is opaque", is_opaque(stand.path("up/u/d")), marks)


def by_another_user(stand: Stand) -> None:
    """It is the mounter's credentials that mark."""
    point = migrated(stand)
    os.seteuid(1)
    try:
        found = names(f"{point}/d")
    finally:
        os.seteuid(0)
    stand.same("the listing of uid 1", found, [".", "..", "f", "g", "s"])
    stand.holds("d is opaque", is_opaque(stand.path("up/u/d")))


def over_a_frozen_upper(fstype: str) -> Callable[[Stand], None]:
    """A listing that waits for a frozen upper never ends."""

    def work(stand: Stand) -> None:
        point = migrated(stand, fstype)
        upper = stand.path("up")
        try:
            syscalls.freeze(upper)
        except OSError as error:
            raise Missing(f"a kernel that freezes {fstype}: {error.strerror}") from None
        worker = threading.Thread(target=names, args=(f"{point}/d",), daemon=True)
        try:
            worker.start()
            worker.join(PATIENCE)
            stand.holds("the listing ends while upper is frozen", not worker.is_alive())
        finally:
            syscalls.thaw(upper)
        worker.join()
        listed(stand, point, marks=True)

    return work


def after_all_of_these(stand: Stand) -> None:
    """What could not be marked at first is the same union as what could (D12)."""
    point = migrated(stand)
    stand.remount("", "up", syscalls.MS_RDONLY)
    before = portrait(point)
    listed(stand, point, marks=False)
    stand.remount("", "up")
    point = stand.again(LAYERS)
    stand.holds(f"the same tree: {differences(portrait(point), before)}", portrait(point) == before)
    names(f"{point}/d/s")
    listed(stand, point, marks=True)


GROUPS = (
    Group(
        "opaque-marks",
        "List directories that could turn opaque.",
        trials=(
            Trial("listed by another user", by_another_user),
            Trial("listed over a frozen xfs", over_a_frozen_upper("xfs")),
            Trial("listed over a frozen ext4", over_a_frozen_upper("ext4")),
            Trial("resumed after a read-only upper", after_all_of_these),
        ),
    ),
)
