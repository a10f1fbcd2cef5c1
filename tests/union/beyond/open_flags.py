# SPDX-License-Identifier: GPL-2.0-only
"""Open flags beyond access: those that fcntl changes, O_PATH and O_NOFOLLOW, O_TMPFILE, syncing, advice."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import EBADF, EEXIST, ELOOP, ENOENT, ENOTDIR
from pathlib import Path

from datasets.reference import C0
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import (
    CREAT,
    DIRECTORY,
    EXCL,
    FD,
    RW,
    ChangeModeHeld,
    R,
    ReadHeld,
    Reopen,
    SetStatusFlags,
    SyncHeld,
    W,
    held_looks,
    hold,
    is_same,
    open_file,
    reads,
    unlink,
    writes,
)
from union.scenario import Group, Need, Scenario

APPEND, NONBLOCK, DIRECT = os.O_APPEND, os.O_NONBLOCK, os.O_DIRECT
O_PATH, NOFOLLOW = os.O_PATH, os.O_NOFOLLOW
NEW = b"newx:yyy:zzz"
BLOCK = b"0123456789abcdef" * 256


def set_flags(path: Name, flags: int, held: str = FD) -> SetStatusFlags:
    """F_SETFL, and F_GETFL says the same."""
    return SetStatusFlags(path=path, held=held, flags=flags, returns=flags)


def _direct(lower: Path, upper: Path) -> str | None:
    for layer in (lower, upper):
        probe = layer / "direct"
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_RDWR | DIRECT))
        except OSError as error:
            return f"no O_DIRECT: {error.strerror}"
        finally:
            probe.unlink(missing_ok=True)
    return None


# flags that fcntl(2) changes ------------------------------------------------------------------------

CHANGED = (
    Scenario(
        "O_APPEND set and cleared on a writer",
        lambda n: (
            hold(n.reg, RW),
            set_flags(n.reg, APPEND),
            writes(n.reg, b"end"),
            reads(n.reg, C0 + b"end"),
            set_flags(n.reg, 0),
            writes(n.reg, b"new"),
            holds(n.reg, NEW + b"end"),
        ),
    ),
    Scenario(
        "O_NONBLOCK set on a reader, then copied up by another",
        lambda n: (
            hold(n.reg),
            set_flags(n.reg, NONBLOCK),
            reads(n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            reads(n.reg, NEW),
            set_flags(n.reg, 0),
            reads(n.reg, NEW),
        ),
    ),
    Scenario(
        "O_APPEND and O_NONBLOCK set on a reader after another copied up",
        lambda n: (
            hold(n.reg),
            open_file(n.reg, W, writes=b"new"),
            set_flags(n.reg, APPEND | NONBLOCK),
            reads(n.reg, NEW),
            set_flags(n.reg, NONBLOCK),
            reads(n.reg, NEW),
            is_same(n.reg),
        ),
    ),
    Scenario(
        "O_APPEND of the open cleared, then a second name of it written",
        lambda n: (
            hold(n.reg, W | APPEND),
            set_flags(n.reg, NONBLOCK),
            writes(n.reg, b"new", at=None),
            writes(n.reg, b"N", at=None),
            holds(n.reg, b"newN" + C0[4:]),
        ),
    ),
    Scenario(
        "O_NOATIME of the open, before and after the copy-up",
        lambda n: (
            hold(n.reg, R | os.O_NOATIME),
            reads(n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            reads(n.reg, NEW),
            set_flags(n.reg, NONBLOCK),
            reads(n.reg, NEW),
        ),
    ),
    Scenario(
        "with O_PATH none can be changed",
        lambda n: (hold(n.reg, O_PATH), SetStatusFlags(path=n.reg, held=FD, flags=APPEND, fails=EBADF)),
    ),
)

DIRECTLY = (
    Scenario(
        "opened with it, written and read",
        lambda n: (
            hold(n.reg, RW | DIRECT),
            writes(n.reg, BLOCK),
            reads(n.reg, BLOCK),
            holds(n.reg, BLOCK),
        ),
    ),
    Scenario(
        "lower file read, then written by another that does not use it",
        lambda n: (
            hold(n.reg, R | DIRECT),
            reads(n.reg, C0),
            open_file(n.reg, W, writes=BLOCK),
            reads(n.reg, BLOCK),
        ),
    ),
    Scenario(
        "set and cleared on a reader before and after the copy-up",
        lambda n: (
            hold(n.reg),
            set_flags(n.reg, DIRECT),
            reads(n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            reads(n.reg, NEW),
            set_flags(n.reg, 0),
            reads(n.reg, NEW),
            set_flags(n.reg, DIRECT),
            reads(n.reg, NEW),
        ),
    ),
)

# O_PATH and O_NOFOLLOW ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Last:
    """What a path ends in, what it is seen as by itself and followed, and what O_NOFOLLOW says to it."""

    words: str
    path: Callable[[Names], Name]
    itself: str
    followed: str
    refused: int = ELOOP


FILE, LINK, DIR = "file 0644, 12 bytes, 1 links", "symlink 0777", "directory 0755"
LASTS = (
    Last("file", lambda n: n.reg, FILE, FILE, 0),
    Last("symlink to a file", lambda n: n.sym, LINK, FILE),
    Last("symlink to a symlink", lambda n: n.isym, LINK, FILE),
    Last("directory", lambda n: n.dir, DIR, DIR, 0),
    Last("symlink to a directory", lambda n: n.dsym, LINK, DIR),
)


def held_by_path(last: Last) -> Scenario:
    """O_PATH holds the object, copies nothing up and reads nothing."""
    return Scenario(
        f"{last.words}, followed and not",
        lambda n: (
            hold(last.path(n), O_PATH, "followed"),
            held_looks(last.path(n), last.followed, "followed"),
            hold(last.path(n), O_PATH | NOFOLLOW, "itself"),
            held_looks(last.path(n), last.itself, "itself"),
            is_same(last.path(n), "itself"),
            ReadHeld(path=last.path(n), held="followed", fails=EBADF),
            ChangeModeHeld(path=last.path(n), held="followed", mode=0o600, fails=EBADF),
            SyncHeld(path=last.path(n), held="followed", fails=EBADF),
        ),
    )


def not_followed(last: Last) -> Scenario:
    """O_NOFOLLOW refuses a symlink at the end of the path, whatever the access."""
    flags = [("read-only", R), ("read-only with O_DIRECTORY", DIRECTORY)]
    if last.followed == FILE:
        flags += [("write-only", W), ("with O_CREAT", W | CREAT)]

    def fails(extra: int) -> int:
        if extra & DIRECTORY and last.itself != DIR:
            return ENOTDIR
        return last.refused

    return Scenario(
        last.words,
        lambda n: tuple(hold(last.path(n), NOFOLLOW | extra, words, fails=fails(extra)) for words, extra in flags),
    )


BY_PATH = (
    *(held_by_path(last) for last in LASTS),
    Scenario(
        "dangling symlink and absent name",
        lambda n: (
            hold(n.dangling, O_PATH, fails=ENOENT),
            hold(n.dangling, O_PATH | NOFOLLOW),
            held_looks(n.dangling, LINK),
            hold(n.none, O_PATH, "none", fails=ENOENT),
            hold(n.reg, O_PATH | DIRECTORY, "file", fails=ENOTDIR),
        ),
    ),
    Scenario(
        "file held, copied up by another, then opened anew",
        lambda n: (
            hold(n.reg, O_PATH),
            open_file(n.reg, W, writes=b"new"),
            is_same(n.reg),
            Reopen(path=n.reg, source=FD, held="reader"),
            reads(n.reg, NEW, "reader"),
        ),
    ),
    Scenario(
        "file held, then opened anew for writing",
        lambda n: (
            hold(n.reg, O_PATH),
            Reopen(path=n.reg, source=FD, held="writer", flags=W),
            writes(n.reg, b"new", "writer"),
            is_same(n.reg),
            holds(n.reg, NEW),
        ),
    ),
    Scenario(
        "file held and removed, then opened anew",
        lambda n: (
            hold(n.reg, O_PATH),
            unlink(n.reg),
            Reopen(path=n.reg, source=FD, held="reader"),
            reads(n.reg, C0, "reader"),
            absent(n.reg),
        ),
    ),
)

NOT_FOLLOWED = (
    *(not_followed(last) for last in LASTS),
    Scenario(
        "dangling symlink",
        lambda n: (
            hold(n.dangling, R | NOFOLLOW, fails=ELOOP),
            hold(n.dangling, W | CREAT | NOFOLLOW, fails=ELOOP),
            hold(n.dangling, W | CREAT | EXCL | NOFOLLOW, fails=EEXIST),
            absent(n.none),
        ),
    ),
)

DIRECT_IO = Need("O_DIRECT on both layers", _direct, frozenset({"squashfs"}))

GROUPS = (
    Group("open-flags-changed", "Change the flags of a descriptor with fcntl before and after copy-up.", CHANGED),
    Group("open-direct", "Read and write with O_DIRECT.", DIRECTLY, needs=(DIRECT_IO,)),
    Group("open-path", "Hold objects with O_PATH.", BY_PATH),
    Group("open-nofollow", "Open with O_NOFOLLOW.", NOT_FOLLOWED),
)
