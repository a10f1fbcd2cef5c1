# SPDX-License-Identifier: GPL-2.0-only
"""Files that stay open while they are written by others, copied up, renamed, removed and replaced."""

from __future__ import annotations

from errno import EBADF, EINVAL

from datasets.reference import C0
from tests.union.phrases import absent, create, holds
from union.operations import (
    FD,
    RW,
    RWA,
    TRUNC,
    WA,
    Attempt,
    ChangeMode,
    ChangeModeHeld,
    ChangeOwnerHeld,
    Close,
    R,
    Reopen,
    Seek,
    TruncateHeld,
    W,
    close,
    held_looks,
    hold,
    is_another,
    is_same,
    link,
    open_file,
    reads,
    rename,
    truncate,
    unlink,
    writes,
)
from union.scenario import Group, Scenario, When

NEW = b"newx:yyy:zzz"  # C0 after `new` was written at its start

BY_OTHERS = (
    Scenario(
        "read-only descriptor, then written through another",
        lambda n: (
            hold(n.reg),
            reads(n.reg, C0),
            hold(n.reg, W, "other"),
            writes(n.reg, b"new", "other"),
            reads(n.reg, NEW),
            is_same(n.reg),
            is_same(n.reg, "other"),
            holds(n.reg, NEW),
        ),
    ),
    Scenario(
        "read-only descriptor never read from, then written",
        lambda n: (hold(n.reg), open_file(n.reg, W, writes=b"new"), reads(n.reg, NEW), is_same(n.reg)),
    ),
    Scenario(
        "position is kept over the copy-up",
        lambda n: (
            hold(n.reg),
            reads(n.reg, C0[:5], at=None, length=5),
            open_file(n.reg, W, writes=b"new"),
            reads(n.reg, C0[5:9], at=None, length=4),
            Seek(path=n.reg, held=FD, whence=1, returns=9),
            reads(n.reg, C0[9:], at=None, length=100),
            reads(n.reg, b"", at=None, length=100),
        ),
    ),
    Scenario(
        "position of a descriptor that seeks before and after the copy-up",
        lambda n: (
            hold(n.reg),
            Seek(path=n.reg, held=FD, at=-4, whence=2, returns=8),
            open_file(n.reg, WA, writes=b"more"),
            reads(n.reg, C0[8:] + b"mo", at=None, length=6),
            Seek(path=n.reg, held=FD, at=-4, whence=2, returns=12),
            reads(n.reg, b"more", at=None, length=100),
            Seek(path=n.reg, held=FD, at=-17, whence=2, fails=EINVAL),
            Seek(path=n.reg, held=FD, at=100, returns=100),
            reads(n.reg, b"", at=None, length=100),
        ),
    ),
    Scenario(
        "three read-only descriptors, opened before and after",
        lambda n: (
            hold(n.reg, R, "one"),
            hold(n.reg, R, "two"),
            open_file(n.reg, W, writes=b"new"),
            hold(n.reg, R, "three"),
            *(reads(n.reg, NEW, held) for held in ("one", "two", "three")),
            *(is_same(n.reg, held) for held in ("one", "two", "three")),
        ),
    ),
    Scenario(
        "read-only descriptor, then cut and grown by path",
        lambda n: (
            hold(n.reg),
            truncate(n.reg, 4),
            reads(n.reg, C0[:4]),
            truncate(n.reg, 8),
            reads(n.reg, C0[:4] + bytes(4)),
            held_looks(n.reg, "file 0644, 8 bytes, 1 links"),
        ),
    ),
    Scenario(
        "read-only descriptor, then opened with O_TRUNC",
        lambda n: (hold(n.reg), open_file(n.reg, W | TRUNC), reads(n.reg, b""), holds(n.reg, b"")),
    ),
    Scenario(
        "two writers see each other",
        lambda n: (
            hold(n.reg, RW, "one"),
            hold(n.reg, RW, "two"),
            writes(n.reg, b"new", "one"),
            reads(n.reg, NEW, "two"),
            writes(n.reg, b"end", "two", at=20),
            reads(n.reg, NEW + bytes(8) + b"end", "one"),
            holds(n.reg, NEW + bytes(8) + b"end"),
        ),
    ),
    Scenario(
        "appending descriptor, then cut by another",
        lambda n: (
            hold(n.reg, RWA),
            writes(n.reg, b"one", at=None),
            truncate(n.reg, 4),
            writes(n.reg, b"two", at=None),
            reads(n.reg, C0[:4] + b"two"),
            holds(n.reg, C0[:4] + b"two"),
        ),
    ),
)

ATTRIBUTES = (
    Scenario(
        "chmod through a read-only descriptor",
        lambda n: (
            hold(n.reg),
            ChangeModeHeld(path=n.reg, held=FD, mode=0o4711),
            held_looks(n.reg, "file 4711, 12 bytes, 1 links"),
            reads(n.reg, C0),
            is_same(n.reg),
        ),
    ),
    Scenario(
        "chown through a read-only descriptor",
        lambda n: (
            hold(n.rootfile),
            ChangeOwnerHeld(path=n.rootfile, held=FD, uid=7, gid=8),
            reads(n.rootfile, C0),
            is_same(n.rootfile),
        ),
    ),
    Scenario(
        "chmod by path to no permission at all",
        lambda n: (
            hold(n.reg),
            ChangeMode(path=n.reg, mode=0),
            reads(n.reg, C0),
            held_looks(n.reg, "file 0000, 12 bytes, 1 links"),
        ),
    ),
    Scenario(
        "what a read-only descriptor cannot do",
        lambda n: (
            hold(n.reg),
            writes(n.reg, b"new", fails=EBADF),
            TruncateHeld(path=n.reg, held=FD, size=0, fails=EINVAL),
            reads(n.reg, C0),
            holds(n.reg, C0),
        ),
    ),
    Scenario(
        "cut and grown through the descriptor",
        lambda n: (
            hold(n.reg, RW),
            TruncateHeld(path=n.reg, held=FD, size=3),
            TruncateHeld(path=n.reg, held=FD, size=6),
            reads(n.reg, C0[:3] + bytes(3)),
            holds(n.reg, C0[:3] + bytes(3)),
        ),
    ),
    Scenario(
        "opened anew by its name in /proc, for writing",
        lambda n: (
            hold(n.reg),
            Reopen(path=n.reg, source=FD, held="writer", flags=W),
            writes(n.reg, b"new", "writer"),
            reads(n.reg, NEW),
            holds(n.reg, NEW),
        ),
    ),
)

NAMES = (
    Scenario(
        "renamed, then written under the new name",
        lambda n: (
            hold(n.reg),
            rename(n.reg, n.none, cycle=False),
            reads(n.none, C0),
            is_same(n.none),
            open_file(n.none, W, writes=b"new"),
            reads(n.none, NEW),
            absent(n.reg),
        ),
    ),
    Scenario(
        "renamed, then written through the descriptor",
        lambda n: (
            hold(n.reg, RW),
            rename(n.reg, n.none, cycle=False),
            writes(n.none, b"new"),
            holds(n.none, NEW),
            is_same(n.none),
        ),
    ),
    Scenario(
        "lower file removed",
        lambda n: (
            hold(n.reg),
            unlink(n.reg),
            reads(n.reg, C0),
            # Without an index the lower's own link count shows.
            held_looks(n.reg, "file 0644, 12 bytes, 0 links", on_lower="file 0644, 12 bytes, 1 links"),
            absent(n.reg),
        ),
    ),
    Scenario(
        "copied up, then removed",
        lambda n: (
            hold(n.reg),
            open_file(n.reg, W, writes=b"new"),
            unlink(n.reg),
            reads(n.reg, NEW),
            held_looks(n.reg, "file 0644, 12 bytes, 0 links"),
            close(n.reg),
            absent(n.reg),
        ),
    ),
    Scenario(
        "removed, then written through the descriptor",
        lambda n: (
            hold(n.reg, RW),
            unlink(n.reg),
            writes(n.reg, b"new"),
            reads(n.reg, NEW),
            ChangeModeHeld(path=n.reg, held=FD, mode=0o600),
            held_looks(n.reg, "file 0600, 12 bytes, 0 links"),
            absent(n.reg),
        ),
    ),
    Scenario(
        "lower file removed, then changed through a read-only descriptor",
        lambda n: (
            hold(n.reg),
            unlink(n.reg),
            # A lower file without a name cannot be copied up.
            Attempt(
                path=n.reg,
                what=ChangeModeHeld(path=n.reg, held=FD, mode=0o600),
                returns="success",
                on_lower="EEXIST",
            ),
            absent(n.reg),
            reads(n.reg, C0),
        ),
    ),
    Scenario(
        "lower file removed, then opened anew for reading",
        lambda n: (
            hold(n.reg),
            unlink(n.reg),
            Reopen(path=n.reg, source=FD, held="again"),
            Close(path=n.reg, held=FD),
            reads(n.reg, C0, "again"),
        ),
    ),
    Scenario(
        "removed, and the name used again",
        lambda n: (
            hold(n.reg),
            unlink(n.reg),
            create(n.reg, b"other"),
            reads(n.reg, C0),
            is_another(n.reg),
            hold(n.reg, R, "second"),
            reads(n.reg, b"other", "second"),
        ),
    ),
    Scenario(
        "replaced by another lower file",
        lambda n: (
            hold(n.reg),
            rename(n.rootfile, n.reg, cycle=False),
            open_file(n.reg, W, writes=b"new"),
            reads(n.reg, C0),
            is_another(n.reg),
        ),
    ),
    Scenario(
        "copied up, replaced by another, both written",
        lambda n: (
            hold(n.reg, RW),
            writes(n.reg, b"old"),
            rename(n.rootfile, n.reg, cycle=False),
            open_file(n.reg, W, writes=b"new"),
            writes(n.reg, b"OLD", at=4),
            reads(n.reg, b"oldxOLD:zzz"[:4] + b"OLD" + C0[7:]),
            holds(n.reg, NEW),
        ),
    ),
)

GROUPS = (
    Group("held-file", "Read and write through descriptors of a file that others write.", BY_OTHERS),
    Group("held-file-attributes", "Change the attributes of a file through descriptors.", ATTRIBUTES),
    Group("held-file-names", "Keep a file open while its names change.", NAMES),
    # On another overlay without file handles, the two names lead to objects of their own.
    Group(
        "held-file-second-name",
        "Keep a file open that gets a second name.",
        (
            Scenario(
                "a second name, written through that",
                lambda n: (
                    hold(n.reg),
                    link(n.reg, n.none, cycle=False),
                    open_file(n.none, W, writes=b"new"),
                    reads(n.reg, NEW),
                    is_same(n.reg),
                    is_same(n.none),
                    unlink(n.reg),
                    held_looks(n.none, "file 0644, 12 bytes, 1 links"),
                ),
            ),
        ),
        overlay_alone=True,
    ),
    Group(
        "held-file-rename-dir",
        "Keep a file open while the directory above it is renamed.",
        (
            Scenario(
                "lower directory, file written afterwards",
                lambda n: (
                    hold(n.dir / "a"),
                    rename(n.dir, n.nodir, cycle=False),
                    reads(n.nodir / "a", b""),
                    is_same(n.nodir / "a"),
                    open_file(n.nodir / "a", W, writes=b"new"),
                    reads(n.nodir / "a", b"new"),
                ),
            ),
            Scenario(
                "lower directory, file changed through the descriptor afterwards",
                lambda n: (
                    hold(n.dir / "pop/b"),
                    rename(n.dir, n.nodir, cycle=False),
                    ChangeModeHeld(path=n.nodir / "pop/b", held=FD, mode=0o600),
                    is_same(n.nodir / "pop/b"),
                ),
            ),
        ),
        When.DIRECTORY_RENAMES,
    ),
)
