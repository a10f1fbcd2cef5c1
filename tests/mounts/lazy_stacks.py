# SPDX-License-Identifier: GPL-2.0-only
"""Stacks with a lazily loaded layer at their bottom: what is above it, and when it is no longer needed (D9, D13)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL
from pathlib import Path
from typing import Final

from datasets.tree import Directory, File, HardLink, Symlink
from tests.mounts import needs
from union import migrate, syscalls
from union.lowerfuse import LowerFuse
from union.portrait import differences, portrait
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.witness import is_opaque

NOFOLLOW: Final = ",xino=nofollow"
MISSING: Final = ("never", "both/never", "both/deep/never")

LOADED: Final = Directory({
    "both": Directory({
        "same": File(b"as it was loaded" * 500),
        "newer": File(b"as it was"),
        "late": File(b"not loaded yet" * 500),
        "deep": Directory({"a": File(b"a"), "b": HardLink("a"), "l": Symlink("a")}),
    }),
    "only": Directory({"x": File(b"x", xattrs={"user.x": b"1"}), "y": Directory()}),
    "file": File(b"file", 0o4755),
})  # fmt: skip
"""What a lazily loaded layer has."""

MIDDLE: Final = Directory({
    "both": Directory({
        "same": File(b"as it was loaded" * 500),
        "newer": File(b"made anew in the middle"),
        "deep": Directory({"c": File(b"of the middle alone")}),
    }),
    "middle": Directory({"z": File(b"z")}),
})  # fmt: skip
"""A layer above it that was populated in part, and has something of its own."""


def whole(stand: Stand, point: str, upper: str) -> None:
    """Migrate it to the end; every directory must be opaque then (D4), which of the root is the kernel's affair."""
    migration = migrate.dfs(Path(point), Path(stand.path(upper)))
    left = [f"{one.path}: {one.reason}" for one in migration.leftovers if one.path != migrate.ROOT]
    stand.same("left over", left, [])
    stand.same("objects in upper", migration.in_upper, migration.objects)


@contextmanager
def unasked(stand: Stand, what: str, *servers: LowerFuse) -> Iterator[None]:
    """Nothing in it may ask one of these for anything (D9)."""
    for server in servers:
        server.settle()
    begun = [server.log.position for server in servers]
    yield
    for server, position in zip(servers, begun, strict=True):
        server.settle()
        stand.same(f"asked {what}", list(map(str, server.log.since(position))), [])


def looks(stand: Stand, point: str, wanted: object, what: str) -> None:
    """The union shows what it did, and the names it never had are missing."""
    got = portrait(point)
    stand.holds(f"{what} it shows the same: {differences(got, wanted)}", got == wanted)  # type: ignore[arg-type]
    for name in MISSING:
        stand.holds(f"{what} {name} is missing", not os.path.lexists(f"{point}/{name}"))


def changes(point: str) -> None:
    """Something of each kind is done to it."""
    with open(f"{point}/both/new", "xb") as file:
        file.write(b"new")
    os.rename(f"{point}/both/new", f"{point}/only/newer")
    os.link(f"{point}/both/deep/a", f"{point}/both/linked")
    os.unlink(f"{point}/both/linked")
    os.mkdir(f"{point}/made")
    os.rename(f"{point}/made", f"{point}/both/made")
    os.rmdir(f"{point}/both/made")
    os.unlink(f"{point}/only/newer")


def detached(stand: Stand, point: str, wanted: object, *servers: LowerFuse) -> None:
    """Warm, cold and when they are dead the union works without these."""
    with unasked(stand, "warm", *servers):
        looks(stand, point, wanted, "warm")
        changes(point)
    syscalls.drop_caches()
    with unasked(stand, "cold", *servers):
        looks(stand, point, wanted, "cold")
        changes(point)
    for server in servers:
        server.kill()
    syscalls.drop_caches()
    looks(stand, point, wanted, "over the dead")
    changes(point)


def three_layers(stand: Stand) -> None:
    """What the middle has been given wins; migrated, neither it nor the lowest is asked any more."""
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED)
    middle = stand.filesystem("middle", "xfs", MIDDLE)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={middle}:{lowest},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    stand.same("the middle wins", wanted["both/newer"].data, b"made anew in the middle")
    stand.same("what only the lowest has", wanted["both/late"].data, b"not loaded yet" * 500)
    stand.same("what only the middle has", wanted["middle/z"].data, b"z")
    whole(stand, point, "u")
    stand.shut_down(middle)
    detached(stand, point, wanted, lowest)


def middle_alone_left(stand: Stand) -> None:
    """Upper has all that the lowest has, but not all of the middle: opaque would hide that (D13)."""
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED)
    stand.filesystem("middle", "xfs", MIDDLE)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={middle}:{lowest},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    left = frozenset({"both/deep/c"})
    migrate.dfs(Path(point), Path(stand.path("u")), skip_copy=left)
    for name in ("both/deep", "both"):
        stand.holds(f"{name} is not opaque yet", not is_opaque(stand.path(f"u/{name}")))
    for name in ("only", "middle", "only/y"):
        stand.holds(f"{name} is opaque", is_opaque(stand.path(f"u/{name}")))
    syscalls.drop_caches()
    looks(stand, point, wanted, "before the last one is copied up")
    whole(stand, point, "u")
    detached(stand, point, wanted, lowest)


def dead_before_its_time(stand: Stand) -> None:
    """The control: as long as a name of the lowest is not copied up, its death is noticed."""
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={lowest},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    migrate.dfs(Path(point), Path(stand.path("u")), skip_copy=frozenset({"both/deep/a"}))
    begun = lowest.log.position
    looks(stand, point, wanted, "with one file left")
    stand.holds("the lowest was asked", any(lowest.log.since(begun)))
    lowest.kill()
    syscalls.drop_caches()
    got = None
    try:
        got = portrait(point)
    except OSError as error:
        stand.steps.append(f"over the dead: {error.strerror}")
    stand.holds("its death is noticed", got != wanted)
    same = portrait(f"{point}/only")
    stand.holds("what is migrated works", same == {path[5:]: seen for path, seen in wanted.items()
                                                   if path == "only" or path.startswith("only/")})  # fmt: skip


def several_lazy(stand: Stand) -> None:
    """Two lazily loaded layers below one union."""
    needs.recent(NOFOLLOW)
    upmost, lowest = stand.served("upmost", MIDDLE), stand.served("lowest", LOADED)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={upmost}:{lowest},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    whole(stand, point, "u")
    detached(stand, point, wanted, upmost, lowest)


def nested(stand: Stand) -> None:
    """An overlay of middle and lazily loaded layer is the lower of another: migrated, that one asks neither.

    The limits: the inner overlay stays mounted, and keeps its layers busy; two levels are all that the kernel stacks.
    """
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED)
    stand.filesystem("middle", "xfs", MIDDLE)
    stand.layers(u=Directory(), w=Directory(), u3=Directory(), w3=Directory())
    stand.mount("lowerdir={middle}:{lowest}", at="inner")
    point = stand.mount("lowerdir={inner},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    stand.refuses(EINVAL, "lowerdir={m},upperdir={u3},workdir={w3}", at="third", says="maximum fs stacking depth")
    whole(stand, point, "u")
    detached(stand, point, wanted, lowest)
    stand.holds("the inner one needs it still", not works(stand.path("inner")))


def works(point: str) -> bool:
    """Whether all of it can be looked at."""
    try:
        return all(seen.error == 0 for seen in portrait(point).values())
    except OSError:
        return False


def inner_detached(stand: Stand) -> None:
    """The inner overlay itself is migrated, its upper being the middle: the outer one does not notice."""
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED)
    stand.filesystem("middle", "xfs", Directory({"u": MIDDLE, "w": Directory()}))
    stand.layers(u=Directory(), w=Directory())
    inner = stand.mount("lowerdir={lowest},upperdir={middle/u},workdir={middle/w}" + NOFOLLOW, at="inner")
    whole(stand, inner, "middle/u")
    point = stand.mount("lowerdir={inner},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    detached(stand, point, wanted, lowest)


def passed_through(stand: Stand) -> None:
    """The kernel reads the files of the lowest itself, which only opens them for it; migrated, it is not asked."""
    needs.recent(NOFOLLOW)
    lowest = stand.served("lowest", LOADED, passthrough=True)
    stand.layers(u=Directory(), w=Directory())
    begun = lowest.log.position
    stand.same("read", Path(stand.path("lowest/both/late")).read_bytes(), b"not loaded yet" * 500)
    stand.same("reads that it was asked for", [a for a in lowest.log.since(begun) if a.operation == "READ"], [])
    point = stand.mount("lowerdir={lowest},upperdir={u},workdir={w}" + NOFOLLOW)
    wanted = portrait(point)
    whole(stand, point, "u")
    detached(stand, point, wanted, lowest)


def passed_through_and_nested(stand: Stand) -> None:
    """Files that are passed through count as a level of their own: below a nested overlay there is one too many."""
    stand.served("lowest", LOADED, passthrough=True)
    stand.layers(u=Directory(), w=Directory())
    try:
        stand.mount("lowerdir={lowest}:{u}", at="inner")
    except OSError as error:
        raise Missing(f"an overlay over files that are passed through: {error.strerror}") from error
    stand.refuses(EINVAL, "lowerdir={inner},upperdir={u},workdir={w}", says="maximum fs stacking depth")


_TRIALS: Final[tuple[tuple[str, Callable[[Stand], None]], ...]] = (
    ("fuse below a middle that was populated in part", three_layers),
    ("all of fuse is in upper, but not all of the middle", middle_alone_left),
    ("one file is left in fuse", dead_before_its_time),
    ("two fuse layers", several_lazy),
    ("nested: an overlay over middle and fuse is the lower", nested),
    ("nested: the inner overlay is the one that detaches", inner_detached),
    ("fuse passes files through", passed_through),
    ("nested over files that are passed through", passed_through_and_nested),
)

GROUPS = (
    Group(
        "lazy-stacks",
        "Stacks with lazily loaded layers at their bottom, which die when nothing needs them.",
        trials=tuple(Trial(label, trial) for label, trial in _TRIALS),
    ),
)
