# SPDX-License-Identifier: GPL-2.0-only
"""Files made with O_TMPFILE, without a name until they are linked."""

from __future__ import annotations

from errno import EACCES, EEXIST, ENOENT, ENOTDIR

from datasets.reference import C0
from tests.union.phrases import absent, holds
from union.names import Name
from union.operations import (
    DIRECTORY,
    FD,
    ChangeModeHeld,
    HoldTemporary,
    LinkHeld,
    TruncateHeld,
    held_lists,
    held_looks,
    hold,
    is_same,
    mkdir,
    reads,
    rmtree,
    sync,
    unlink,
    writes,
)
from union.scenario import Group, Scenario


def temporary(directory: Name, *, exclusive: bool = False, fails: int = 0, unprivileged: bool = False) -> HoldTemporary:
    return HoldTemporary(path=directory, held=FD, exclusive=exclusive, fails=fails, unprivileged=unprivileged)


def link_held(path: Name, *, fails: int = 0, through_proc: bool = False) -> LinkHeld:
    return LinkHeld(path=path, held=FD, fails=fails, through_proc=through_proc)


TEMPORARY = (
    Scenario(
        "in a lower directory, written and linked",
        lambda n: (
            temporary(n.dir),
            writes(n.dir, b"text"),
            held_looks(n.dir, "file 0640, 4 bytes, 0 links"),
            link_held(n.dir / "x"),
            holds(n.dir / "x", b"text"),
            held_looks(n.dir / "x", "file 0640, 4 bytes, 1 links"),
            is_same(n.dir / "x"),
            writes(n.dir / "x", b"TEXT"),
            holds(n.dir / "x", b"TEXT"),
        ),
    ),
    Scenario(
        "linked through /proc, into another directory",
        lambda n: (
            temporary(n.empty),
            writes(n.empty, b"text"),
            link_held(n.dir / "x", through_proc=True),
            holds(n.dir / "x", b"text"),
            hold(n.empty, DIRECTORY, "dir"),
            held_lists(n.empty, held="dir"),
        ),
    ),
    Scenario(
        "with O_EXCL, which keeps it from being linked",
        lambda n: (
            temporary(n.dir, exclusive=True),
            writes(n.dir, b"text"),
            link_held(n.dir / "x", fails=ENOENT),
            link_held(n.dir / "x", fails=ENOENT, through_proc=True),
            reads(n.dir, b"text"),
            absent(n.dir / "x"),
        ),
    ),
    Scenario(
        "never linked, nothing of it shows",
        lambda n: (
            temporary(n.dir),
            writes(n.dir, b"text"),
            hold(n.dir, DIRECTORY, "dir"),
            held_lists(n.dir, "a", "pop", held="dir"),
        ),
    ),
    Scenario(
        "names that are taken",
        lambda n: (
            temporary(n.dir),
            link_held(n.dir / "a", fails=EEXIST),
            link_held(n.reg, fails=EEXIST),
            link_held(n.dangling, fails=EEXIST),
            link_held(n.reg / "x", fails=ENOTDIR),
            holds(n.reg, C0),
        ),
    ),
    Scenario(
        "over a removed lower name, twice, then removed",
        lambda n: (
            unlink(n.reg),
            temporary(n.dir),
            writes(n.dir, b"text"),
            link_held(n.reg),
            link_held(n.none),
            held_looks(n.reg, "file 0640, 4 bytes, 2 links"),
            unlink(n.reg),
            unlink(n.none),
            held_looks(n.reg, "file 0640, 4 bytes, 0 links"),
            link_held(n.reg, fails=ENOENT),
            absent(n.reg),
        ),
    ),
    Scenario(
        "in a new directory",
        lambda n: (mkdir(n.nodir), temporary(n.nodir), link_held(n.nodir / "x"), holds(n.nodir / "x", b"")),
    ),
    Scenario(
        "in a directory made again over a lower one",
        lambda n: (
            rmtree(n.dir),
            mkdir(n.dir),
            temporary(n.dir),
            link_held(n.dir / "a"),
            hold(n.dir, DIRECTORY, "dir"),
            held_lists(n.dir, "a", held="dir"),
        ),
    ),
    Scenario(
        "grown, cut and synced before it is linked",
        lambda n: (
            temporary(n.dir),
            writes(n.dir, b"text", at=100),
            TruncateHeld(path=n.dir, held=FD, size=102),
            ChangeModeHeld(path=n.dir, held=FD, mode=0o604),
            sync(n.dir),
            link_held(n.dir / "x"),
            holds(n.dir / "x", bytes(100) + b"te"),
            held_looks(n.dir / "x", "file 0604, 102 bytes, 1 links"),
        ),
    ),
    Scenario(
        "where it cannot be made",
        lambda n: (
            temporary(n.reg, fails=ENOTDIR),
            temporary(n.nodir, fails=ENOENT),
            temporary(n.dir, fails=EACCES, unprivileged=True),
        ),
    ),
)

GROUPS = (
    Group("tmpfile", "Make files with O_TMPFILE and link them.", TEMPORARY),
    # On another overlay without file handles, the two names lead to objects of their own.
    Group(
        "link-held",
        "Link a lower file through a descriptor.",
        (
            Scenario(
                "a descriptor of a lower file links it too",
                lambda n: (
                    hold(n.reg),
                    link_held(n.none),
                    held_looks(n.reg, "file 0644, 12 bytes, 2 links"),
                    is_same(n.none),
                    unlink(n.reg),
                    unlink(n.none),
                    link_held(n.none, fails=ENOENT),
                ),
            ),
        ),
        overlay_alone=True,
    ),
)
