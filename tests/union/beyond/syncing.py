# SPDX-License-Identifier: GPL-2.0-only
"""Writing files and directories out, and advice on how they will be read."""

from __future__ import annotations

import os
from errno import EBADF
from pathlib import Path
from typing import Literal

from datasets.reference import C0
from union.names import Names
from union.operations import (
    CREAT,
    DIRECTORY,
    FD,
    RW,
    Advise,
    W,
    held_lists,
    hold,
    mkdir,
    open_file,
    reads,
    rmtree,
    sync,
    writes,
)
from union.overlay import accepts
from union.scenario import Group, Need, Scenario

NEW = b"newx:yyy:zzz"


def _strict(lower: Path, upper: Path) -> str | None:
    refusal = accepts(("fsync", "strict"))
    return f"no mount option fsync=strict: {refusal}" if refusal else None


Way = Literal["fsync", "fdatasync", "syncfs"]
WAYS: tuple[Way, ...] = ("fsync", "fdatasync", "syncfs")


def synced(how: Way) -> tuple[Scenario, ...]:
    """The same for each of the three calls, on files and on directories before and after copy-up."""
    return (
        Scenario(
            f"{how} of a file, read-only before and after it was written, and of the writer",
            lambda n: (
                hold(n.reg),
                sync(n.reg, how),
                hold(n.reg, RW, "writer"),
                writes(n.reg, b"new", "writer"),
                sync(n.reg, how, "writer"),
                sync(n.reg, how),
                reads(n.reg, NEW),
            ),
        ),
        Scenario(
            f"{how} of a directory before and after it was copied up",
            lambda n: (
                hold(n.dir, DIRECTORY),
                sync(n.dir, how),
                open_file(n.dir / "x", W | CREAT),
                sync(n.dir, how),
                hold(n.dir, DIRECTORY, "merged"),
                sync(n.dir, how, "merged"),
                held_lists(n.dir, "a", "pop", "x"),
            ),
        ),
        Scenario(
            f"{how} of a new directory and of one that was removed",
            lambda n: (
                mkdir(n.nodir),
                hold(n.nodir, DIRECTORY),
                sync(n.nodir, how),
                hold(n.empty, DIRECTORY, "gone"),
                rmtree(n.empty),
                sync(n.empty, how, "gone"),
            ),
        ),
    )


SYNCED_WRITES = Scenario(
    "written with O_SYNC and O_DSYNC",
    lambda n: (
        hold(n.reg, RW | os.O_SYNC),
        writes(n.reg, b"new"),
        hold(n.reg, RW | os.O_DSYNC, "data"),
        writes(n.reg, b"NEW", "data"),
        reads(n.reg, b"NEW" + C0[3:]),
    ),
)

ADVICE = (
    ("no special treatment", os.POSIX_FADV_NORMAL),
    ("sequential", os.POSIX_FADV_SEQUENTIAL),
    ("random", os.POSIX_FADV_RANDOM),
    ("needed", os.POSIX_FADV_WILLNEED),
    ("not needed", os.POSIX_FADV_DONTNEED),
    ("once", os.POSIX_FADV_NOREUSE),
    ("readahead(2)", None),
)


def advised(words: str, advice: int | None) -> Scenario:
    """Advice changes nothing that can be read."""

    def advise(n: Names, fails: int = 0, held: str = FD) -> Advise:
        return Advise(path=n.reg, held=held, advice=advice, fails=fails)

    return Scenario(
        words,
        lambda n: (
            hold(n.reg),
            advise(n),
            reads(n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            advise(n),
            reads(n.reg, NEW),
            hold(n.reg, os.O_PATH, "path"),
            advise(n, EBADF, "path"),
        ),
    )


GROUPS = (
    Group("sync", "Sync files and directories.", (*(s for how in WAYS for s in synced(how)), SYNCED_WRITES)),
    Group(
        "sync-strict",
        "Sync files and directories of a union that syncs each copy-up.",
        synced("fsync"),
        options=(("fsync", "strict"),),
        needs=(Need("mount option fsync=strict", _strict),),
    ),
    Group("advise", "Advise the kernel how a file will be read.", tuple(advised(*row) for row in ADVICE)),
)
