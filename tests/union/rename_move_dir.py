# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of directories from one parent to another, also after their parts were renamed."""

from __future__ import annotations

from errno import ENOENT

from datasets.reference import C1
from tests.union.phrases import absent_dir, holds
from tests.union.rename_skeleton import Operations
from union.names import Name
from union.operations import mkdir, open_dir, rename
from union.scenario import Group, Scenario, When


def moved(old: Name, new: Name, *, cycle: bool = True) -> Operations:
    """Rename, and rename again in vain."""
    return rename(old, new, cycle=cycle), rename(old, new, ENOENT)


LOWER = (
    Scenario(
        "empty lower directory into a populated one",
        lambda n: (
            *moved(~n.empty, n.dir / "empty"),
            open_dir(n.dir / "empty"),
            absent_dir(~n.empty),
        ),
    ),
    Scenario(
        "populated lower directory into an empty one",
        lambda n: (
            *moved(~n.dir, n.empty / "dir"),
            open_dir(n.empty / "dir"),
            absent_dir(~n.dir),
            holds(n.empty / "dir/a", b""),
        ),
    ),
    Scenario(
        "renamed in place, then moved",
        lambda n: (
            *moved(~n.dir, ~n.dir + "x"),
            *moved(~n.dir + "x", n.empty / "dir"),
            absent_dir(~n.dir),
            absent_dir(~n.dir + "x"),
            open_dir(n.empty / "dir"),
            holds(n.empty / "dir/a", b""),
        ),
    ),
    Scenario(
        "moved, then renamed where it is",
        lambda n: (
            *moved(~n.dir, n.empty / "dir"),
            *moved(n.empty / "dir", n.empty / "dirx"),
            absent_dir(~n.dir),
            absent_dir(n.empty / "dir"),
            open_dir(n.empty / "dirx"),
            holds(n.empty / "dirx/a", b""),
        ),
    ),
    Scenario(
        "moved, then its subdirectory moved next to it",
        lambda n: (
            *moved(~n.dir, n.empty / "dir"),
            *moved(n.empty / "dir/pop", n.empty / "pop"),
            absent_dir(~n.dir),
            open_dir(n.empty / "dir"),
            absent_dir(n.empty / "dir/pop"),
            open_dir(n.empty / "pop"),
            holds(n.empty / "dir/a", b""),
            holds(n.empty / "pop/b", C1),
        ),
    ),
    # The first rename and the second belong together: a rotating run does not remount between them.
    Scenario(
        "subdirectory renamed, directory renamed, directory moved",
        lambda n: (
            *moved(n.dir / "pop", n.dir / "popx", cycle=False),
            *moved(~n.dir, ~n.dir + "x"),
            *moved(~n.dir + "x", n.empty / "dir"),
            absent_dir(~n.dir),
            absent_dir(~n.dir + "x"),
            open_dir(n.empty / "dir"),
            absent_dir(n.empty / "dir/pop"),
            open_dir(n.empty / "dir/popx"),
            holds(n.empty / "dir/a", b""),
            holds(n.empty / "dir/popx/b", C1),
        ),
    ),
    Scenario(
        "subdirectory renamed, directory renamed, subdirectory moved out",
        lambda n: (
            *moved(n.dir / "pop", n.dir / "popx", cycle=False),
            *moved(~n.dir, ~n.dir + "x"),
            *moved((n.dir + "x") / "popx", n.empty / "popx"),
            absent_dir(~n.dir),
            open_dir(~n.dir + "x"),
            absent_dir((n.dir + "x") / "pop"),
            absent_dir((n.dir + "x") / "popx"),
            open_dir(~n.empty),
            absent_dir(n.empty / "pop"),
            open_dir(n.empty / "popx"),
            holds((n.dir + "x") / "a", b""),
            holds(n.empty / "popx/b", C1),
        ),
    ),
)

NEW = (
    Scenario(
        "new directory into an empty lower one",
        lambda n: (
            mkdir(~n.empty + "-new"),
            rename(~n.empty + "-new", ~n.empty / "new"),
            absent_dir(~n.empty + "-new"),
            open_dir(~n.empty / "new"),
        ),
    ),
    Scenario(
        "new directory out of a lower one",
        lambda n: (
            mkdir(~n.empty / "new"),
            rename(~n.empty / "new", ~n.nodir),
            absent_dir(~n.empty / "new"),
            open_dir(~n.nodir),
        ),
    ),
    Scenario(
        "leaf of a new branch out of a lower directory",
        lambda n: (
            mkdir(n.empty / "newp"),
            mkdir(~n.empty / "newp/new"),
            rename(~n.empty / "newp/new", ~n.nodir),
            absent_dir(~n.empty / "newp/new"),
            open_dir(~n.nodir),
        ),
    ),
    Scenario(
        "whole new branch out of a lower directory",
        lambda n: (
            mkdir(n.empty / "newp"),
            mkdir(~n.empty / "newp/new"),
            rename(n.empty / "newp", ~n.nodir),
            absent_dir(n.empty / "newp"),
            absent_dir(~n.empty / "newp/new"),
            open_dir(~n.nodir),
            open_dir(n.nodir / "new"),
        ),
    ),
    Scenario(
        "populated lower directory into a new one",
        lambda n: (
            mkdir(~n.empty / "new"),
            *moved(~n.dir, ~n.empty / "new/dir"),
            open_dir(~n.empty / "new/dir"),
            absent_dir(~n.dir),
            holds(n.empty / "new/dir/a", b""),
        ),
    ),
)

GROUPS = (
    Group(
        "rename-move-dir",
        "Move directories to another parent.",
        (*LOWER, *NEW),
        When.DIRECTORY_RENAMES,
    ),
)
