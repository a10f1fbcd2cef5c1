# SPDX-License-Identifier: GPL-2.0-only
"""rmdir(2), and the removal of whole trees."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EEXIST, ENOENT, ENOTDIR, ENOTEMPTY

from datasets.reference import C0, C1
from tests.union.phrases import absent, create, holds
from union.names import Name
from union.operations import EXCL, Operation, W, mkdir, open_file, rmdir, rmtree, unlink
from union.scenario import Group, Scenario


def unlinked(path: Name) -> Sequence[Operation]:
    """Unlink a file, which is gone then and cannot be unlinked again."""
    return unlink(path), absent(path), unlink(path, ENOENT)


REFUSED = (
    Scenario("absent directory", lambda n: (rmdir(~n.nodir, ENOENT), rmdir(~n.nodir, ENOENT))),
    Scenario(
        "in an absent directory",
        lambda n: (rmdir(~n.nodir / "sub", ENOENT), rmdir(~n.nodir / "sub", ENOENT)),
    ),
    Scenario(
        "lower file",
        lambda n: (rmdir(~n.reg, ENOTDIR), rmdir(~n.reg, ENOTDIR), holds(n.reg, C0)),
    ),
    Scenario(
        "in a lower file",
        lambda n: (rmdir(~n.reg / "sub", ENOTDIR), rmdir(~n.reg / "sub", ENOTDIR), holds(n.reg, C0)),
    ),
)

EMPTY = (
    Scenario(
        "empty lower directory, then again and in it",
        lambda n: (rmdir(~n.empty), rmdir(~n.empty, ENOENT), rmdir(~n.empty / "sub", ENOENT)),
    ),
    Scenario(
        "absent name in an empty lower directory",
        lambda n: (rmdir(~n.empty / "sub", ENOENT), rmdir(~n.empty / "sub", ENOENT)),
    ),
)

POPULATED = (
    Scenario(
        "populated lower directory refused, a file in it unlinked, the tree removed",
        lambda n: (
            rmdir(~n.dir, ENOTEMPTY),
            holds(n.dir / "a", b""),
            *unlinked(n.dir / "a"),
            rmtree(~n.dir),
            absent(n.dir / "a"),
        ),
    ),
    Scenario(
        "empty lower directory refused while a new file is in it",
        lambda n: (
            create(n.empty / "b", b"abcq", EXCL),
            rmdir(~n.empty, ENOTEMPTY),
            *unlinked(n.empty / "b"),
            rmtree(~n.empty),
            absent(n.empty / "b"),
        ),
    ),
    Scenario(
        "populated lower directory with a file copied up by a write",
        lambda n: (
            rmdir(~n.dir, ENOTEMPTY),
            holds(n.dir / "a", b""),
            open_file(n.dir / "a", W, writes=b"abcd"),
            holds(n.dir / "a", b"abcd"),
            *unlinked(n.dir / "a"),
            rmtree(~n.dir),
            absent(n.dir / "a"),
        ),
    ),
    Scenario(
        "populated lower directory with a file replaced by a new directory",
        lambda n: (
            rmdir(~n.dir, ENOTEMPTY),
            holds(n.dir / "a", b""),
            rmdir(~n.dir, ENOTEMPTY),
            *unlinked(n.dir / "a"),
            mkdir(n.dir / "a"),
            mkdir(n.dir / "a", EEXIST),
            rmdir(~n.dir, ENOTEMPTY),
            rmdir(n.dir / "a"),
            rmdir(n.dir / "a", ENOENT),
            rmtree(~n.dir),
            absent(n.dir / "a"),
        ),
    ),
    Scenario(
        "lower leaf directory removed and made again, then the tree removed",
        lambda n: (
            rmdir(~n.dir / "pop/c"),
            rmdir(~n.dir / "pop/c", ENOENT),
            mkdir(~n.dir / "pop/c"),
            mkdir(~n.dir / "pop/c", EEXIST),
            holds(n.dir / "pop/b", C1),
            rmtree(~n.dir),
            absent(n.dir / "pop/b"),
        ),
    ),
)

SYMLINKS = (
    Scenario(
        "symlink to a symlink to a file, and both of its targets",
        lambda n: (
            rmdir(~n.isym, ENOTDIR),
            rmdir(~n.isym, ENOTDIR),
            rmdir(~n.sym, ENOTDIR),
            rmdir(~n.sym, ENOTDIR),
            rmdir(~n.reg, ENOTDIR),
            rmdir(~n.reg, ENOTDIR),
            holds(n.reg, C0),
        ),
    ),
    Scenario(
        "symlink to a directory refused, dangling once the directory is gone",
        lambda n: (
            rmdir(~n.dsym, ENOTDIR),
            rmdir(~n.dsym, ENOTDIR),
            rmdir(~n.dir, ENOTEMPTY),
            holds(n.dsym / "a", b""),
            holds(n.dir / "a", b""),
            rmtree(~n.dir),
            absent(n.dsym / "a"),
            absent(n.dir / "a"),
        ),
    ),
    Scenario(
        "symlink to a symlink to a directory refused, dangling once the directory is gone",
        lambda n: (
            rmdir(~n.idsym, ENOTDIR),
            rmdir(~n.idsym, ENOTDIR),
            rmdir(~n.dsym, ENOTDIR),
            rmdir(~n.dir, ENOTEMPTY),
            holds(n.idsym / "a", b""),
            holds(n.dsym / "a", b""),
            holds(n.dir / "a", b""),
            rmtree(~n.dir),
            absent(n.idsym / "a"),
            absent(n.dsym / "a"),
            absent(n.dir / "a"),
        ),
    ),
    Scenario(
        "dangling symlink and its target",
        lambda n: (rmdir(~n.dangling, ENOTDIR), rmdir(~n.dangling, ENOTDIR), rmdir(~n.none, ENOENT)),
    ),
)

MADE_AGAIN = Scenario(
    "empty lower directory made again, refused while a file is in it",
    lambda n: (
        rmdir(~n.empty),
        rmdir(~n.empty, ENOENT),
        mkdir(~n.empty),
        create(n.empty / "b", b"abcq", EXCL),
        rmdir(~n.empty, ENOTEMPTY),
        *unlinked(n.empty / "b"),
        rmdir(~n.empty),
    ),
)

GROUPS = (
    Group(
        "rmdir",
        "Remove directories, and fail to remove what is none or not empty.",
        (*REFUSED, *EMPTY, *POPULATED, *SYMLINKS, MADE_AGAIN),
    ),
    Group(
        "rmtree",
        "Remove a lower tree.",
        (Scenario("populated lower directory with all in it", lambda n: (rmtree(~n.dir),)),),
    ),
    Group(
        "rmtree-new",
        "Remove a lower tree with something new in it.",
        (
            Scenario(
                "populated lower directory with a new directory in it",
                lambda n: (mkdir(n.dir / "b"), rmtree(~n.dir)),
            ),
        ),
    ),
)
