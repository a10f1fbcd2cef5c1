# SPDX-License-Identifier: GPL-2.0-only
"""What inotify and fanotify tell of objects that are copied up meanwhile, locks and leases on them."""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EPERM
from pathlib import Path

from datasets.reference import C0
from tests.union.phrases import create, holds
from union import filecalls
from union.names import Name
from union.operations import (
    RW,
    ChangeMode,
    Events,
    HandleEvents,
    LockHeld,
    OpenWithLeave,
    R,
    W,
    Watch,
    WatchHandle,
    close,
    hold,
    link,
    mkdir,
    open_file,
    rename,
    rmdir,
    truncate,
    unlink,
    writes,
)
from union.operations.descriptors import Lockable, LockKind
from union.scenario import Group, Need, Scenario

WATCH = "watch"


def watch(path: Name) -> Watch:
    return Watch(path=path, held=WATCH)


def told(path: Name, *events: str) -> Events:
    """These events, and no other of those watched for."""
    return Events(path=path, held=WATCH, returns=", ".join(sorted(events)))


OF_FILES = (
    Scenario(
        "lower file written through a new descriptor",
        lambda n: (
            watch(n.reg),
            told(n.reg),
            hold(n.reg, W),
            told(n.reg),
            writes(n.reg, b"new"),
            told(n.reg, "modify"),
            writes(n.reg, b"NEW"),
            told(n.reg, "modify"),
        ),
    ),
    Scenario(
        "lower file cut and its mode changed",
        lambda n: (
            watch(n.reg),
            truncate(n.reg, 3),
            told(n.reg, "modify"),
            ChangeMode(path=n.reg, mode=0o600),
            told(n.reg, "attrib"),
        ),
    ),
    Scenario(
        "mode of a lower file changed, then written",
        lambda n: (
            watch(n.reg),
            ChangeMode(path=n.reg, mode=0o600),
            told(n.reg, "attrib"),
            open_file(n.reg, W, writes=b"new"),
            told(n.reg, "modify"),
        ),
    ),
    Scenario(
        "lower file renamed, then written",
        lambda n: (
            watch(n.reg),
            rename(n.reg, n.none, cycle=False),
            told(n.none, "move_self"),
            open_file(n.none, W, writes=b"new"),
            told(n.none, "modify"),
        ),
    ),
    Scenario(
        "lower file removed",
        lambda n: (watch(n.reg), unlink(n.reg), told(n.reg, "attrib", "delete_self")),
    ),
)

SECOND_NAMES = (
    Scenario(
        "lower file linked, then removed by both names",
        lambda n: (
            watch(n.reg),
            link(n.reg, n.none, cycle=False),
            told(n.reg, "attrib"),
            unlink(n.none),
            told(n.reg, "attrib"),
            unlink(n.reg),
            told(n.reg, "attrib", "delete_self"),
        ),
    ),
    Scenario(
        "a second name of it written",
        lambda n: (
            link(n.reg, n.none),
            watch(n.reg),
            open_file(n.none, W, writes=b"new"),
            told(n.reg, "modify"),
        ),
    ),
)

OF_DIRECTORIES = (
    Scenario(
        "entries of a lower directory made and removed",
        lambda n: (
            watch(n.dir),
            create(n.dir / "x", b""),
            told(n.dir, "create x"),
            mkdir(n.dir / "d", cycle=False),
            told(n.dir, "create d"),
            unlink(n.dir / "a"),
            told(n.dir, "delete a"),
            rmdir(n.dir / "d"),
            unlink(n.dir / "x"),
            told(n.dir, "delete d", "delete x"),
        ),
    ),
    Scenario(
        "entries renamed, in and out",
        lambda n: (
            watch(n.dir),
            rename(n.dir / "a", n.dir / "b", cycle=False),
            told(n.dir, "moved_from a", "moved_to b"),
            rename(n.reg, n.dir / "a", cycle=False),
            told(n.dir, "moved_to a"),
            rename(n.dir / "b", n.none, cycle=False),
            told(n.dir, "moved_from b"),
        ),
    ),
    Scenario(
        "lower entries written and their mode changed",
        lambda n: (
            watch(n.dir),
            open_file(n.dir / "a", W, writes=b"new"),
            told(n.dir, "modify a"),
            ChangeMode(path=n.dir / "a", mode=0o600),
            told(n.dir, "attrib a"),
            ChangeMode(path=n.dir, mode=0o700),
            told(n.dir, "attrib"),
            open_file(n.dir / "pop/b", W, writes=b"new"),
            told(n.dir),
        ),
    ),
    Scenario(
        "empty lower directory removed",
        lambda n: (watch(n.empty), rmdir(n.empty), told(n.empty, "delete_self")),
    ),
)


def handle_told(path: Name, *events: str) -> HandleEvents:
    return HandleEvents(path=path, held=WATCH, returns=", ".join(sorted(events)))


BY_HANDLE = (
    Scenario(
        "lower file written and its mode changed",
        lambda n: (
            WatchHandle(path=n.reg, held=WATCH),
            handle_told(n.reg),
            open_file(n.reg, W, writes=b"new"),
            handle_told(n.reg, "modify"),
            ChangeMode(path=n.reg, mode=0o600),
            handle_told(n.reg, "attrib"),
        ),
    ),
    Scenario(
        "lower file renamed and then written",
        lambda n: (
            WatchHandle(path=n.reg, held=WATCH),
            rename(n.reg, n.none, cycle=False),
            open_file(n.none, W, writes=b"new"),
            handle_told(n.none, "modify"),
        ),
    ),
    Scenario(
        "lower directory whose mode is changed",
        lambda n: (
            WatchHandle(path=n.dir, held=WATCH),
            ChangeMode(path=n.dir, mode=0o700),
            handle_told(n.dir, "attrib"),
        ),
    ),
)

WITH_LEAVE = (
    Scenario(
        "lower file, allowed",
        lambda n: (OpenWithLeave(path=n.reg, allow=True), open_file(n.reg, W, writes=b"new")),
    ),
    Scenario(
        "lower file, refused, and it is not copied up",
        lambda n: (OpenWithLeave(path=n.reg, allow=False, fails=EPERM), holds(n.reg, C0)),
    ),
)

# locks ----------------------------------------------------------------------------------------------


def lock(path: Name, held: str, kind: LockKind, how: Lockable, fails: int = 0) -> LockHeld:
    return LockHeld(path=path, held=held, kind=kind, lock=how, fails=fails)


def across_copy_up(kind: LockKind) -> Scenario:
    """A lock taken on the lower file counts for who opens it afterwards, and the other way round."""
    return Scenario(
        f"{kind}: taken on a lower file, which is then copied up",
        lambda n: (
            hold(n.reg, R, "before"),
            lock(n.reg, "before", kind, "shared"),
            hold(n.reg, RW, "after"),
            lock(n.reg, "after", kind, "exclusive", EAGAIN),
            lock(n.reg, "after", kind, "shared"),
            lock(n.reg, "before", kind, "none"),
            lock(n.reg, "after", kind, "exclusive"),
            lock(n.reg, "before", kind, "shared", EAGAIN),
            close(n.reg, "after"),
            lock(n.reg, "before", kind, "shared"),
        ),
    )


def across_rename(kind: LockKind) -> Scenario:
    return Scenario(
        f"{kind}: kept over a rename, gone with the file",
        lambda n: (
            hold(n.reg, RW, "one"),
            lock(n.reg, "one", kind, "exclusive"),
            rename(n.reg, n.none, cycle=False),
            hold(n.none, RW, "two"),
            lock(n.none, "two", kind, "shared", EAGAIN),
            unlink(n.none),
            create(n.none, b""),
            hold(n.none, RW, "three"),
            lock(n.none, "three", kind, "exclusive"),
        ),
    )


KINDS: tuple[LockKind, ...] = ("flock", "ofd")
LOCKS = (
    *(scenario(kind) for scenario in (across_copy_up, across_rename) for kind in KINDS),
    Scenario(
        "ofd: only what the descriptor is open for",
        lambda n: (
            hold(n.reg, R, "reader"),
            lock(n.reg, "reader", "ofd", "exclusive", EBADF),
            hold(n.reg, W, "writer"),
            lock(n.reg, "writer", "ofd", "shared", EBADF),
            lock(n.reg, "writer", "ofd", "exclusive"),
        ),
    ),
    Scenario(
        "with O_PATH none",
        lambda n: (
            hold(n.reg, os.O_PATH, "path"),
            lock(n.reg, "path", "flock", "shared", EBADF),
        ),
    ),
)

LEASES = (
    Scenario(
        "read lease of a lower file, which others cannot open for writing",
        lambda n: (
            hold(n.reg, R, "holder"),
            lock(n.reg, "holder", "lease", "shared"),
            hold(n.reg, R, "reader"),
            hold(n.reg, W | os.O_NONBLOCK, "writer", fails=EAGAIN),
            holds(n.reg, C0),
            lock(n.reg, "holder", "lease", "none"),
            hold(n.reg, W | os.O_NONBLOCK, "writer"),
            lock(n.reg, "holder", "lease", "shared", EAGAIN),
        ),
    ),
    # Whoever opens the file breaks a write lease, so that it cannot be looked at meanwhile: hence the path.
    Scenario(
        "write lease of a file that was copied up",
        lambda n: (
            hold(n.reg, RW, "holder"),
            lock(n.top, "holder", "lease", "exclusive"),
            lock(n.top, "holder", "lease", "none"),
            hold(n.reg, R, "reader"),
            lock(n.reg, "holder", "lease", "exclusive", EAGAIN),
        ),
    ),
)


def _fanotify(lower: Path, upper: Path) -> str | None:
    try:
        os.close(filecalls.fanotify_init(filecalls.FAN_REPORT_FID))
    except OSError as error:
        return f"no fanotify that reports handles: {error.strerror}"
    return None


def _leave(lower: Path, upper: Path) -> str | None:
    try:
        fd = filecalls.fanotify_init(filecalls.FAN_CLASS_CONTENT)
    except OSError as error:
        return f"no fanotify: {error.strerror}"
    try:
        filecalls.fanotify_mark(fd, str(upper), filecalls.FAN_OPEN_PERM)
    except OSError as error:
        return f"no permission events: {error.strerror}"
    finally:
        os.close(fd)
    return None


GROUPS = (
    # On another overlay without file handles a copied-up object is a new one once its name left the caches, and
    # its two names lead to two: a watch sees neither.
    Group("inotify-file", "Watch files that are copied up meanwhile.", OF_FILES, overlay_alone=True),
    Group("inotify-second-name", "Watch files that have two names.", SECOND_NAMES, overlay_alone=True),
    Group("inotify-dir", "Watch directories that are copied up meanwhile.", OF_DIRECTORIES),
    Group(
        "fanotify",
        "Watch objects that are copied up, told by handles.",
        BY_HANDLE,
        needs=(Need("fanotify that reports handles", _fanotify),),
        overlay_alone=True,
    ),
    Group(
        "fanotify-leave",
        "Open for writing what a listener allows or refuses.",
        WITH_LEAVE,
        needs=(Need("permission events of fanotify", _leave),),
    ),
    Group("locks", "Lock files across their copy-up.", LOCKS),
    Group("leases", "Take leases of files.", LEASES),
)
