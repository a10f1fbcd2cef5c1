# SPDX-License-Identifier: GPL-2.0-only
"""Who may mark a directory opaque by listing it, and what becomes of the listing if upper cannot be marked (D15)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from datasets.tree import Directory, File
from tests.mounts import needs
from union import syscalls
from union.operations import acting_as
from union.portrait import differences, portrait
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt
from union.together import Step, together
from union.witness import is_opaque

LOWER: Final = Directory({"d": Directory({"f": File(b"f"), "g": File(b"g"), "s": Directory()}), "e": Directory()})
NAMES: Final = ("d", "d/f", "d/g", "d/s")
LISTED: Final = [".", "..", "f", "g", "s"]
LAYERS: Final = "lowerdir={l},upperdir={up/u},workdir={up/w},xino=nofollow"
PATIENCE = 20.0  # seconds that a listing may take before it counts as one that hangs
INODE: Final = 1024  # bytes that a tmpfs counts for one, and less than that may be left
PIECE: Final = 48  # bytes: one or two entries


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


def names(path: str, size: int = 1 << 16) -> list[str]:
    """All of one listing, read in pieces of `size` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found: list[str] = []
        while piece := syscalls.getdents_once(fd, size):
            found += [entry.name for entry in piece]
        return sorted(found)
    finally:
        os.close(fd)


def listed(stand: Stand, point: str, *, marks: bool) -> None:
    """The listing is complete, and does or does not mark the directory."""
    stand.same("the listing", names(f"{point}/d"), LISTED)
    stand.same("d is opaque", is_opaque(stand.path("up/u/d")), marks)


def listings(path: str, *, unprivileged: bool) -> Iterator[Step]:
    """List as root or another user, in one go and in pieces."""
    for size in (1 << 16, PIECE):
        yield Step(f"list by {size} bytes{' as another user' * unprivileged}", partial(_seen, path, size, unprivileged))


def _seen(path: str, size: int, unprivileged: bool) -> Iterator[str]:
    with acting_as(unprivileged):
        if (found := names(path, size)) != LISTED:
            yield f"{found} instead of {LISTED}"


def all_list(stand: Stand, path: str) -> None:
    """Root and another user, both at once: neither gets an error, less than all, or stuck."""
    jobs = [partial(listings, path, unprivileged=unprivileged) for unprivileged in (False, True)]
    for who, verdict in zip(("root", "another user"), together(jobs, PATIENCE), strict=True):
        stand.complaints += [f"{who}: {line}" for line in verdict.complaints]


def by_another_user(stand: Stand) -> None:
    """It is the mounter's credentials that mark."""
    point = migrated(stand)
    with acting_as(True):
        found = names(f"{point}/d")
    stand.same("the listing of another user", found, LISTED)
    stand.holds("d is opaque", is_opaque(stand.path("up/u/d")))


class Obstacle(NamedTuple):
    """What keeps upper from being marked, on this filesystem, until it is taken away."""

    fstype: str
    begin: Callable[[Stand], None]
    end: Callable[[Stand], None]


def frozen(fstype: str) -> Obstacle:
    """Whoever writes to it waits, and a listing that waits never ends."""

    def begin(stand: Stand) -> None:
        try:
            syscalls.freeze(stand.path("up"))
        except OSError as error:
            raise Missing(f"a kernel that freezes {fstype}: {error.strerror}") from None

    return Obstacle(fstype, begin, lambda stand: syscalls.thaw(stand.path("up")))


def read_only(at: str) -> Obstacle:
    """The upper filesystem, or the union itself."""
    return Obstacle(
        "tmpfs",
        lambda stand: stand.remount("", at, syscalls.MS_RDONLY),
        lambda stand: stand.remount("", at),
    )


def _without_room(stand: Stand) -> None:
    state = os.statvfs(stand.path("up"))
    stand.remount(f"nr_inodes={state.f_files - state.f_ffree}", "up")
    for number in range(INODE):
        if attempt(os.setxattr, stand.path("up/w"), f"trusted.{number}", b"y") == errno.ENOSPC:
            return
    raise Missing("a tmpfs whose xattrs need room")


FULL: Final = Obstacle("tmpfs", _without_room, lambda stand: stand.remount("nr_inodes=1000", "up"))
"""No room for one more xattr."""


def over(obstacle: Obstacle) -> Callable[[Stand], None]:
    """Over an upper that cannot be marked listings are as ever; they mark it when it can be."""

    def work(stand: Stand) -> None:
        point = migrated(stand, obstacle.fstype)
        obstacle.begin(stand)
        try:
            all_list(stand, f"{point}/d")
            marked = is_opaque(stand.path("up/u/d"))
        finally:
            obstacle.end(stand)
        stand.holds("there was an obstacle: d is not opaque yet", not marked)
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
            Trial("listed over a frozen xfs", over(frozen("xfs"))),
            Trial("listed over a frozen ext4", over(frozen("ext4"))),
            Trial("listed over a read-only upper", over(read_only("up"))),
            Trial("listed in a read-only union", over(read_only("m"))),
            Trial("listed over a full upper", over(FULL)),
            Trial("resumed after a read-only upper", after_all_of_these),
        ),
    ),
)
