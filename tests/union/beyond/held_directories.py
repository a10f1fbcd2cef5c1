# SPDX-License-Identifier: GPL-2.0-only
"""Directories that stay open, and what is done relative to them."""

from __future__ import annotations

from errno import EBADF, EEXIST, EISDIR, ENOENT, ENOTDIR

from datasets.reference import C1
from tests.union.phrases import absent, absent_dir, create, holds
from union.names import Name
from union.operations import (
    CREAT,
    DIRECTORY,
    EXCL,
    FD,
    ChangeModeHeld,
    ListHeld,
    MakeAt,
    R,
    ReadHeld,
    RemoveAt,
    W,
    held_lists,
    held_looks,
    hold,
    hold_at,
    is_another,
    is_same,
    mkdir,
    open_dir,
    open_file,
    reads,
    rename,
    rmdir,
    rmtree,
    unlink,
    writes,
)
from union.operations.base import Operation
from union.scenario import Group, Scenario, When

O_PATH = 0o10000000


def make_at(path: Name, fails: int = 0) -> MakeAt:
    return MakeAt(path=path, directory=FD, fails=fails)


def remove_at(path: Name, fails: int = 0, *, directory: bool = False) -> RemoveAt:
    return RemoveAt(path=path, directory=FD, removes_directory=directory, fails=fails)


def cannot_be_used(path: Name) -> tuple[Operation, ...]:
    """The held directory `path` is dead: nothing is in it and nothing can be made in it."""
    return (
        ListHeld(path=path, held=FD, fails=ENOENT),
        hold_at(FD, path / "a", R, "child", fails=ENOENT),
        hold_at(FD, path / "new", W | CREAT, "child", fails=ENOENT),
        make_at(path / "new", ENOENT),
    )


LISTING = (
    Scenario(
        "lower directory, entries made and removed by path",
        lambda n: (
            hold(n.dir, DIRECTORY),
            held_lists(n.dir, "a", "pop"),
            create(n.dir / "new", b"x"),
            held_lists(n.dir, "a", "new", "pop"),
            unlink(n.dir / "a"),
            held_lists(n.dir, "new", "pop"),
            rename(n.dir / "new", n.dir / "a", cycle=False),
            held_lists(n.dir, "a", "pop"),
            is_same(n.dir),
        ),
    ),
    Scenario(
        "merged directory, entries made and removed by path",
        lambda n: (
            create(n.dir / "first", b"x"),
            hold(n.dir, DIRECTORY),
            held_lists(n.dir, "a", "first", "pop"),
            unlink(n.dir / "first"),
            mkdir(n.dir / "d", cycle=False),
            held_lists(n.dir, "a", "d", "pop"),
            rmdir(n.dir / "d"),
            held_lists(n.dir, "a", "pop"),
        ),
    ),
    Scenario(
        "lower directory copied up by a change deep below",
        lambda n: (
            hold(n.dir, DIRECTORY),
            hold(n.dir / "pop", DIRECTORY, "below"),
            open_file(n.dir / "pop/b", W, writes=b"new"),
            held_lists(n.dir, "a", "pop"),
            held_lists(n.dir / "pop", "b", "c", held="below"),
            is_same(n.dir),
            is_same(n.dir / "pop", "below"),
        ),
    ),
    Scenario(
        "new directory",
        lambda n: (
            mkdir(n.nodir),
            hold(n.nodir, DIRECTORY),
            held_lists(n.nodir),
            create(n.nodir / "x", b""),
            held_lists(n.nodir, "x"),
        ),
    ),
    Scenario(
        "chmod through the descriptor",
        lambda n: (
            hold(n.dir, DIRECTORY),
            ChangeModeHeld(path=n.dir, held=FD, mode=0o700),
            held_looks(n.dir, "directory 0700"),
            held_lists(n.dir, "a", "pop"),
            is_same(n.dir),
        ),
    ),
    Scenario(
        "what cannot be done with it",
        lambda n: (
            hold(n.dir, DIRECTORY),
            ReadHeld(path=n.dir, held=FD, fails=EISDIR),
            writes(n.dir, b"x", fails=EBADF),
            hold(n.reg, R, "file"),
            ListHeld(path=n.reg, held="file", fails=ENOTDIR),
            hold(n.dir, O_PATH, "path"),
            ListHeld(path=n.dir, held="path", fails=EBADF),
            ChangeModeHeld(path=n.dir, held="path", mode=0o700, fails=EBADF),
        ),
    ),
)

GONE = (
    Scenario(
        "empty lower directory removed",
        lambda n: (
            hold(n.empty, DIRECTORY),
            rmdir(n.empty),
            *cannot_be_used(n.empty),
            absent_dir(n.empty),
        ),
    ),
    Scenario(
        "new directory removed",
        lambda n: (mkdir(n.nodir), hold(n.nodir, DIRECTORY), rmdir(n.nodir), *cannot_be_used(n.nodir)),
    ),
    Scenario(
        "populated lower directory removed and made again",
        lambda n: (
            hold(n.dir, DIRECTORY),
            rmtree(n.dir),
            mkdir(n.dir, cycle=False),
            create(n.dir / "b", b"x"),
            is_another(n.dir),
            ListHeld(path=n.dir, held=FD, fails=ENOENT),
            hold(n.dir, DIRECTORY, "second"),
            held_lists(n.dir, "b", held="second"),
        ),
    ),
)

RELATIVE = (
    Scenario(
        "lower directory, children opened, written and created",
        lambda n: (
            hold(n.dir / "pop", DIRECTORY),
            hold_at(FD, n.dir / "pop/b", R, "old"),
            reads(n.dir / "pop/b", C1, "old"),
            hold_at(FD, n.dir / "pop/b", W, "writer"),
            writes(n.dir / "pop/b", b"new", "writer"),
            reads(n.dir / "pop/b", b"new" + C1[3:], "old"),
            hold_at(FD, n.dir / "pop/x", W | CREAT | EXCL, "fresh"),
            writes(n.dir / "pop/x", b"x", "fresh"),
            holds(n.dir / "pop/x", b"x"),
            hold_at(FD, n.dir / "pop/x", W | CREAT | EXCL, "again", fails=EEXIST),
            hold_at(FD, n.dir / "pop/none", R, "none", fails=ENOENT),
        ),
    ),
    Scenario(
        "directories made and removed",
        lambda n: (
            hold(n.dir, DIRECTORY),
            make_at(n.dir / "d"),
            open_dir(n.dir / "d"),
            make_at(n.dir / "d", EEXIST),
            make_at(n.dir / "pop", EEXIST),
            remove_at(n.dir / "d", EISDIR),
            remove_at(n.dir / "d", directory=True),
            absent_dir(n.dir / "d"),
            remove_at(n.dir / "a", ENOTDIR, directory=True),
            held_lists(n.dir, "a", "pop"),
        ),
    ),
    Scenario(
        "files removed",
        lambda n: (
            hold(n.dir, DIRECTORY),
            remove_at(n.dir / "a"),
            absent(n.dir / "a"),
            remove_at(n.dir / "a", ENOENT),
            held_lists(n.dir, "pop"),
        ),
    ),
    Scenario(
        "with O_PATH",
        lambda n: (
            hold(n.dir, O_PATH | DIRECTORY),
            hold_at(FD, n.dir / "a", W, "child"),
            writes(n.dir / "a", b"new", "child"),
            make_at(n.dir / "d"),
            hold_at(FD, n.dir / "pop", DIRECTORY, "below"),
            held_lists(n.dir / "pop", "b", "c", held="below"),
        ),
    ),
    Scenario(
        "a file is no directory",
        lambda n: (hold(n.reg), hold_at(FD, n.reg / "x", R, "child", fails=ENOTDIR), make_at(n.reg / "x", ENOTDIR)),
    ),
)

GROUPS = (
    Group("held-dir", "Keep a directory open while its entries change.", LISTING),
    Group("held-dir-removed", "Keep a directory open that is removed.", GONE),
    Group("open-at", "Open, make and remove relative to a directory that is held.", RELATIVE),
    Group(
        "held-dir-renamed",
        "Keep a directory open that is renamed, and use it.",
        (
            Scenario(
                "lower directory renamed",
                lambda n: (
                    hold(n.dir, DIRECTORY),
                    rename(n.dir, n.nodir, cycle=False),
                    held_lists(n.nodir, "a", "pop"),
                    hold_at(FD, n.nodir / "a", W, "child"),
                    writes(n.nodir / "a", b"new", "child"),
                    hold_at(FD, n.nodir / "x", W | CREAT, "fresh"),
                    held_lists(n.nodir, "a", "pop", "x"),
                    is_same(n.nodir),
                ),
            ),
            Scenario(
                "lower directory below one that is renamed",
                lambda n: (
                    hold(n.dir / "pop", DIRECTORY),
                    rename(n.dir, n.nodir, cycle=False),
                    held_lists(n.nodir / "pop", "b", "c"),
                    make_at(n.nodir / "pop/d"),
                    remove_at(n.nodir / "pop/b"),
                    held_lists(n.nodir / "pop", "c", "d"),
                ),
            ),
        ),
        When.DIRECTORY_RENAMES,
    ),
)
