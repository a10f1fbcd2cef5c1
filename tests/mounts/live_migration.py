# SPDX-License-Identifier: GPL-2.0-only
"""Overlays that somebody uses, migrated as by `./run --migrate-tree`: what it leaves, and that it says so (D6, D12)."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from datasets.tree import APPEND_ONLY, IMMUTABLE, Directory, File, HardLink, Node, Special, Symlink, Whiteout
from tests.mounts import needs
from union import filecalls, syscalls
from union.live import find
from union.live_migration import NO_DATA, Outcome, carry_out
from union.migrate import STILL_MERGED, Leftover
from union.portrait import Portrait, differences, portrait
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.survey import Survey, survey

LAYERS: Final = "lowerdir={low},upperdir={up/u},workdir={up/w},xino=nofollow"
UPPER: Final = Directory({"u": Directory(), "w": Directory()})
TREE: Final = Directory({
    "f": File(b"not the suite's own sample"),
    "a": Directory({
        "suid": File(b"#!", 0o4755, 5, 6),
        "b": Directory({"c": Directory({"d": File(b"x" * 9000)}), "none": File(b"y", 0)}),
    }),
    "one": File(b"linked"),
    "two": HardLink("one"),
    "link": Symlink("one", 3, 4),
    "fifo": Special(stat.S_IFIFO, 0o604),
    "null": Special(stat.S_IFCHR, 0o640, rdev=os.makedev(1, 3)),
    "empty": Directory({}, 0o1777, 7, 8),
})  # fmt: skip
OBJECTS: Final = 13
DIRECTORIES: Final = 5
CANNOT_COPY: Final = "not copied up: Input/output error"
CANNOT_OPEN: Final = "cannot be opened: Input/output error"
CANNOT_LIST: Final = "cannot be listed: Input/output error"
_IN_CLOSE_WRITE: Final = 0x8
_FS_IOC_SETFLAGS: Final = 0x40086602


def mounted(stand: Stand, tree: Directory = TREE, options: str = "", fstype: str = "xfs") -> str:
    """A union over a lower and an upper filesystem of their own."""
    needs.recent(LAYERS)
    stand.filesystem("low", fstype, tree)
    stand.filesystem("up", "tmpfs", UPPER)
    return stand.mount(LAYERS + options)


def migrated(point: str, advance: Callable[[int], object] = lambda _: None) -> Outcome:
    """All of the command but its words."""
    return carry_out(find(Path(point)), advance)


def looked_through(point: str) -> Survey:
    """All of a dry run but its words."""
    return survey(find(Path(point), changes=False))


def left(outcome: Outcome) -> dict[str, str]:
    """What is left over for a reason of its own."""
    return {one.path: one.reason for one in outcome.leftovers if one.reason != STILL_MERGED}


def merged(outcome: Outcome) -> set[str]:
    """Directories that are left for what is in them."""
    return {one.path for one in outcome.leftovers if one.reason == STILL_MERGED}


def shows(stand: Stand, point: str, wanted: Portrait) -> None:
    """The union is as it was."""
    now = portrait(point)
    stand.holds(f"the same tree: {differences(now, wanted)}", now == wanted)


def detaches(stand: Stand, point: str, wanted: Portrait) -> None:
    """It is called detached, and needs the lower no more, warm and cold."""
    stand.same("left over", migrated(point).leftovers, ())
    syscalls.drop_caches()
    shows(stand, point, wanted)


def whole(stand: Stand) -> None:
    """Everything is copied up; nothing that can be seen has changed, behind the fence too."""
    needs.recent(LAYERS)
    lower = stand.filesystem("low", "xfs", TREE)
    stand.filesystem("up", "tmpfs", UPPER)
    point = stand.mount(LAYERS)
    wanted = portrait(point)
    told: list[int] = []
    outcome = migrated(point, told.append)
    stand.same("the outcome", outcome, Outcome(DIRECTORIES, DIRECTORIES, OBJECTS, ()))
    stand.same("objects that were told of", sum(told), OBJECTS)
    stand.same("of a migration that has nothing to do", migrated(point, told.append), outcome)
    stand.same("objects that were told of", sum(told), OBJECTS)
    stand.shut_down(lower)
    syscalls.drop_caches()
    shows(stand, point, wanted)


def flagged(stand: Stand) -> None:
    """An immutable file is left, with the directories that it is in, until the flag is taken off; no other flag is."""
    tree = Directory({
        "d": Directory({"kept": File(b"k", flags=IMMUTABLE), "log": File(b"l", flags=APPEND_ONLY), "g": File(b"g")}),
        "kept": Directory({}, flags=IMMUTABLE),
        "full": Directory({"in": File(b"in")}, flags=IMMUTABLE),
        "e": Directory({"h": File(b"h")}),
    })  # fmt: skip
    point = mounted(stand, tree)
    wanted = portrait(point)
    reason = "immutable: not copied up; chattr -i on it in the union"
    stand.same("what a dry run foresees", looked_through(point).obstacles, [Leftover("d/kept", reason)])
    outcome = migrated(point)
    stand.same("left over", left(outcome), {"d/kept": reason})
    stand.same("merged", merged(outcome), {".", "d"})
    shows(stand, point, wanted)
    change_flags(f"{point}/d/kept", 0)
    told: list[int] = []
    stand.same("then", migrated(point, told.append).leftovers, ())
    stand.same("objects of the directories that were left", sum(told), 4 + 3)
    shows(stand, point, wanted)


def change_flags(path: str, flags: int) -> None:
    """chattr(1)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags))
    finally:
        os.close(fd)


def without_data(stand: Stand) -> None:
    """With metacopy=on the data is copied too; that of a running program cannot be, and is missed."""
    sleep = shutil.which("sleep")
    if sleep is None:
        raise Missing("sleep")
    tree = Directory({"d": Directory({"program": File(Path(sleep).read_bytes(), 0o755), "f": File(b"f")})})
    point = mounted(stand, tree, ",metacopy=on,redirect_dir=on")
    wanted = portrait(point)
    os.chown(f"{point}/d/f", 0, 0)
    stand.same("objects to copy", looked_through(point).objects, 3 - 1)
    running = subprocess.Popen([f"{point}/d/program", "600"])
    try:
        outcome = migrated(point)
    finally:
        running.kill()
        running.wait()
    stand.same("left over", left(outcome), {"d/program": f"{NO_DATA}: Text file busy"})
    stand.same("merged", merged(outcome), {".", "d"})
    detaches(stand, point, wanted)


def running(stand: Stand) -> None:
    """Without metacopy a running program is no obstacle, nor is a file of which somebody may not write at the time."""
    sleep = shutil.which("sleep")
    if sleep is None:
        raise Missing("sleep")
    point = mounted(stand, Directory({"program": File(Path(sleep).read_bytes(), 0o4755)}))
    wanted = portrait(point)
    process = subprocess.Popen([f"{point}/program", "600"])
    try:
        stand.same("left over", migrated(point).leftovers, ())
    finally:
        process.kill()
        process.wait()
    shows(stand, point, wanted)


def unopened(stand: Stand) -> None:
    """No file is opened for writing, or executing it would fail meanwhile; with index=on, the control, it has to be."""
    point = mounted(stand)
    stand.same("opened for writing", opened_for_writing(point), 0)
    stand.unmount()
    stand.filesystem("up2", "tmpfs", UPPER)
    point = stand.mount(LAYERS.replace("{up/", "{up2/") + ",index=on")
    stand.same("opened for writing with index=on", opened_for_writing(point), 1)


def opened_for_writing(point: str) -> int:
    """How often one of the files is while all is migrated."""
    watch = filecalls.inotify_init()
    try:
        filecalls.inotify_add_watch(watch, f"{point}/a/b/c/d", _IN_CLOSE_WRITE)
        migrated(point)
        return len(filecalls.inotify_events(watch))
    finally:
        os.close(watch)


def hidden(stand: Stand) -> None:
    """What another mount hides is left, and the mount is not entered."""
    point = mounted(stand)
    wanted = portrait(point)
    for at in ("a/b", "one"):
        source = stand.path("other") if at == "a/b" else stand.path("file")
        Path(source).mkdir() if at == "a/b" else Path(source).touch()
        syscalls.mount(source, f"{point}/{at}", None, syscalls.MS_BIND)
    before = os.stat(stand.path("other")), os.stat(stand.path("file"))
    foreseen = looked_through(point).obstacles
    outcome = migrated(point)
    stand.same("changes of what is mounted", (os.stat(stand.path("other")), os.stat(stand.path("file"))), before)
    for at in ("a/b", "one"):
        syscalls.umount(f"{point}/{at}")
    stand.same("left over", sorted(left(outcome)), ["a/b", "one"])
    stand.same("foreseen", sorted((one.path, one.reason) for one in foreseen), sorted(left(outcome).items()))
    stand.same("merged", merged(outcome), {".", "a"})
    detaches(stand, point, wanted)


def vanishing(stand: Stand) -> None:
    """Names that go, come and change their kind under the walk are no leftovers, and nobody gets an error."""
    names = [f"n{number:02}" for number in range(40)]
    tree = Directory({"d": Directory({name: _several(number) for number, name in enumerate(names)})})
    point = mounted(stand, tree, ",redirect_dir=on")
    waiting = list(names)

    def interfere(_: int) -> None:
        if len(waiting) > 1:
            first, last = waiting.pop(0), waiting.pop()
            remove(f"{point}/d/{last}")
            if len(waiting) % 3 == 0:
                os.symlink("/", f"{point}/d/{last}")
            os.rename(f"{point}/d/{first}", f"{point}/d/moved-{first}")

    outcome = migrated(point, interfere)
    stand.same("left over", outcome.leftovers, ())
    wanted = portrait(point)
    stand.same("names that were moved", sum(1 for name in os.listdir(f"{point}/d") if name.startswith("moved-")), 20)
    stand.holds("some were replaced", any(stat.S_ISLNK(one.mode) for one in wanted.values()))
    detaches(stand, point, wanted)


def _several(number: int) -> Node:
    return Directory({"in": File(b"in"), "sub": Directory({"x": File(b"x")})}) if number % 2 else File(b"file")


def remove(path: str) -> None:
    """rm -r."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def moved_behind(stand: Stand) -> None:
    """A directory that is moved to where the walk has been already is found by the next one."""
    tree = Directory({"a": Directory({"x": File(b"x")}), "b": Directory({"y": File(b"y")})})
    point = mounted(stand, tree, ",redirect_dir=on")
    order = os.listdir(point)
    moves = [(f"{point}/{order[1]}", f"{point}/{order[0]}/moved")]
    seen: list[int] = []

    def interfere(_: int) -> None:
        seen.append(1)
        if len(seen) == 2:  # the walk is in the first of the two
            os.rename(*moves.pop())

    outcome = migrated(point, interfere)
    stand.same("left over", outcome.leftovers, ())
    stand.same("moves not made", moves, [])
    detaches(stand, point, portrait(point))


def nothing_changes(stand: Stand) -> None:
    """After a dry run all layers are the same, times and xattrs included; what it counts is then copied."""
    needs.recent(LAYERS)
    old = Directory({"in": File(b"in"), "also": File(b"1234")})
    lower = Directory({**TREE.entries, "gone": File(b"g"), "old": old})
    stand.layers(low=lower, middle=Directory({"a": Directory({"suid": Whiteout()}), "m": File(b"middle")}))
    stand.filesystem("up", "xfs", UPPER)
    point = stand.mount(LAYERS.replace("{low}", "{middle}:{low}") + ",redirect_dir=on")
    os.unlink(f"{point}/gone")
    os.rename(f"{point}/old", f"{point}/new")
    os.chown(f"{point}/a/b/c/d", 1, 1)
    os.mkdir(f"{point}/a/made")
    layers = [stand.path(name) for name in ("up/u", "middle", "low")]
    before = [fingerprint(layer) for layer in layers]
    found = looked_through(point)
    for layer, was in zip(layers, before, strict=True):
        now = fingerprint(layer)
        stand.same(f"changed in {layer}", [path for path in {**was, **now} if was.get(path) != now.get(path)], [])
    inside = portrait(point)
    lacking = [name for name in inside if not os.path.lexists(stand.path(f"up/u/{name}"))]
    data = sum(len(inside[name].data or b"") for name in lacking if stat.S_ISREG(inside[name].mode))
    stand.same("objects, bytes", (found.objects, found.bytes), (len(lacking), data))
    stand.same("objects seen", found.seen, len(inside) - 1)
    stand.same("obstacles", found.obstacles, [])
    marked = looked_through(point)  # by the listings of the portrait
    stand.same("objects, bytes then", (marked.objects, marked.bytes), (found.objects, found.bytes))
    told: list[int] = []
    stand.same("left over", migrated(point, told.append).leftovers, ())
    stand.same("objects that the migration came by", sum(told), marked.seen)
    then = looked_through(point)
    stand.same("of a second", (then.objects, then.bytes, then.merged, then.seen), (0, 0, 0, 0))
    shows(stand, point, inside)


def fingerprint(root: str) -> dict[str, object]:
    """All that can be known of a layer, without a change to it: status, all times, xattrs, content, targets."""
    found: dict[str, object] = {}
    waiting = [root]
    while waiting:
        path = waiting.pop()
        status = os.lstat(path)
        keys = os.listxattr(path, follow_symlinks=False)
        xattrs = [(key, os.getxattr(path, key, follow_symlinks=False)) for key in keys]
        times = status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns
        found[path] = tuple(status), times, status.st_blocks, xattrs
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            try:
                if stat.S_ISDIR(status.st_mode):
                    waiting += [f"{path}/{name}" for name in sorted(os.listdir(fd))]
                else:
                    found[f"{path}, content"] = os.read(fd, status.st_size + 1)
            finally:
                os.close(fd)
    return found


def listing_would_mark(stand: Stand) -> None:
    """The control of that: a listing of the union, which a dry run must not make, changes the upper layer."""
    point = mounted(stand)
    for name in ("a", "a/b", "a/b/c", "a/b/c/d"):
        os.chown(f"{point}/{name}", 1, 1)
    before = fingerprint(stand.path("up/u"))
    os.listdir(f"{point}/a/b/c")
    stand.holds("a listing changes the upper layer", fingerprint(stand.path("up/u")) != before)


def resumed(stand: Stand) -> None:
    """Interrupted after each object in turn, it goes on behind what is done already, to the same end."""
    point = mounted(stand)
    wanted = portrait(point)
    counts: list[int] = []

    def interrupt(_: int) -> None:
        counts[-1] += 1
        if counts[-1] > len(counts):
            raise KeyboardInterrupt

    finished = False
    while not finished and len(counts) <= OBJECTS:
        counts.append(0)
        try:
            finished = migrated(point, interrupt).detached
        except KeyboardInterrupt:
            shows(stand, point, wanted)
    stand.holds("it was interrupted and finished", finished and len(counts) > 2)
    stand.holds(f"the last came by less than all: {counts}", counts[-1] < OBJECTS)
    shows(stand, point, wanted)


def unreadable(stand: Stand) -> None:
    """What a lower layer does not give is left and named; what was copied up before is as it was."""
    needs.recent(LAYERS)
    lower = stand.filesystem("low", "xfs", TREE)
    stand.filesystem("up", "tmpfs", UPPER)
    point = stand.mount(LAYERS)
    copied = portrait(point)["a/b/c/d"]
    os.chown(f"{point}/a/b/c/d", 0, 0)
    stand.shut_down(lower)
    outcome = migrated(point)
    stand.holds("it is not detached", not outcome.detached)
    stand.holds(f"reasons: {left(outcome)}", set(left(outcome).values()) <= {CANNOT_COPY, CANNOT_OPEN, CANNOT_LIST})
    stand.holds("something was tried", CANNOT_COPY in left(outcome).values() or CANNOT_LIST in left(outcome).values())
    stand.same("the copy", Path(stand.path("up/u/a/b/c/d")).read_bytes(), copied.data)


def full(stand: Stand) -> None:
    """What there was no room for is left and named; with room the migration goes on."""
    needs.recent(LAYERS)
    tree = Directory({"d": Directory({f"f{number}": File(bytes([number]) * 40000) for number in range(8)})})
    stand.layers(low=tree)
    stand.filesystem("up", "tmpfs", UPPER, options="size=200k")
    point = stand.mount(LAYERS)
    wanted = portrait(point)
    found = looked_through(point)
    stand.same("bytes, room", (found.bytes, found.room), (8 * 40000, False))
    outcome = migrated(point)
    reasons = set(left(outcome).values())
    stand.same("reasons", reasons, {"not copied up: No space left on device"})
    stand.same("merged", merged(outcome), {".", "d"})
    stand.remount("size=10m", "up")
    stand.holds("then there is room", looked_through(point).room)
    detaches(stand, point, wanted)


GROUPS = (
    Group(
        "live-migration",
        "Migrate an overlay of the user's, and look whether it is detached.",
        trials=(
            Trial("the whole tree", whole),
            Trial("flags that forbid it", flagged),
            Trial("metadata alone", without_data),
            Trial("a running program", running),
            Trial("no file is opened for writing", unopened),
            Trial("hidden by other mounts", hidden),
            Trial("names that vanish", vanishing),
            Trial("moved behind the walk", moved_behind),
            Trial("a dry run changes nothing", nothing_changes),
            Trial("a listing would", listing_would_mark),
            Trial("resumed", resumed),
            Trial("a lower layer that fails", unreadable),
            Trial("no room", full),
        ),
    ),
)
