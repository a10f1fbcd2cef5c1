# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of lower directories, which takes redirects, and its refusal without them."""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV

from datasets.reference import C1
from tests.union.phrases import absent, absent_dir, holds
from tests.union.rename_skeleton import (
    between_two_names,
    directory,
    onto_empty_directory,
    onto_files,
    onto_its_holder,
    onto_itself,
    onto_populated_directory,
    refused,
)
from union.operations import open_dir, rename
from union.scenario import Group, Scenario, When

EMPTY = directory(lambda n: n.empty)
POPULATED = directory(
    lambda n: n.dir,
    removal_fails=ENOTEMPTY,
    children=lambda name: (holds(name / "a", b""),),
)

TO_ANOTHER_DIRECTORY = Group(
    "rename-dir",
    "Rename a lower directory into another.",
    (
        Scenario(
            "populated directory, to another name",
            lambda n: (
                rename(~n.dir, ~n.empty / "x"),
                rename(~n.dir, ~n.empty / "x", ENOENT),
                open_dir(~n.empty / "x"),
                absent_dir(~n.dir),
                holds(n.empty / "x/a", b""),
            ),
        ),
        Scenario(
            "subdirectory, to the same name",
            lambda n: (
                rename(~n.dir / "pop", ~n.empty / "pop"),
                rename(~n.dir / "pop", ~n.empty / "pop", ENOENT),
                open_dir(~n.empty / "pop"),
                absent_dir(~n.dir / "pop"),
                holds(n.empty / "pop/b", C1),
            ),
        ),
    ),
    When.DIRECTORY_RENAMES,
)

EMPTY_DIRECTORY = Group(
    "rename-empty-dir",
    "Rename an empty lower directory.",
    (
        *between_two_names(EMPTY),
        onto_populated_directory(EMPTY),
        onto_itself(EMPTY),
        onto_files(EMPTY),
        onto_its_holder(EMPTY),
    ),
    When.DIRECTORY_RENAMES,
)

POPULATED_DIRECTORY = Group(
    "rename-pop-dir",
    "Rename a populated lower directory.",
    (
        *between_two_names(POPULATED),
        onto_empty_directory(POPULATED),
        onto_itself(POPULATED),
        refused(
            POPULATED,
            "onto a lower file and onto its own child",
            lambda n: ((~n.reg, ENOTDIR), (~n.dir / "a", EINVAL)),
        ),
        Scenario(
            "subdirectory onto a file next to it",
            lambda n: (
                rename(~n.dir / "pop", ~n.dir / "a", ENOTDIR),
                open_dir(~n.dir / "pop"),
                holds(n.dir / "pop/b", C1),
            ),
        ),
        onto_its_holder(POPULATED),
    ),
    When.DIRECTORY_RENAMES,
)

REFUSED = Group(
    "rename-exdev",
    "Fail to rename a lower directory where directory renames are off.",
    (
        Scenario(
            "empty directory, same parent",
            lambda n: (rename(~n.empty, ~n.nodir, EXDEV), absent_dir(~n.nodir), open_dir(~n.empty)),
        ),
        Scenario(
            "empty directory, other parent",
            lambda n: (
                rename(~n.empty, n.dir / "empty", EXDEV),
                absent_dir(n.dir / "empty"),
                open_dir(~n.empty),
            ),
        ),
        Scenario(
            "populated directory, same parent",
            lambda n: (
                rename(~n.dir, ~n.nodir, EXDEV),
                absent_dir(~n.nodir),
                open_dir(~n.dir),
                absent(n.nodir / "a"),
                holds(n.dir / "a", b""),
            ),
        ),
        Scenario(
            "populated directory, other parent",
            lambda n: (
                rename(~n.dir, n.empty / "dir", EXDEV),
                absent_dir(n.empty / "dir"),
                open_dir(~n.dir),
                absent(n.empty / "dir/a"),
                holds(n.dir / "a", b""),
            ),
        ),
    ),
    When.NO_DIRECTORY_RENAMES,
)

GROUPS = (TO_ANOTHER_DIRECTORY, EMPTY_DIRECTORY, POPULATED_DIRECTORY)
