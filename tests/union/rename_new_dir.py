# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of a new, empty directory."""

from __future__ import annotations

from tests.union.phrases import absent, absent_dir
from tests.union.rename_skeleton import (
    between_two_names,
    directory,
    onto_files,
    onto_its_holder,
    onto_itself,
    onto_populated_directory,
)
from union.operations import mkdir, open_dir, rename, rmdir, rmtree
from union.scenario import Group, Scenario

NEW_DIR = directory(lambda n: n.empty + "-new", make=lambda name: (mkdir(name),))

GROUPS = (
    Group(
        "rename-new-dir",
        "Rename a new, empty directory.",
        (
            *between_two_names(NEW_DIR),
            onto_populated_directory(NEW_DIR),
            onto_itself(NEW_DIR),
            onto_files(NEW_DIR),
            onto_its_holder(NEW_DIR),
            Scenario(
                "onto the name of a removed, empty lower directory",
                lambda n: (
                    mkdir(~n.empty + "-new"),
                    rmdir(~n.empty),
                    rename(~n.empty + "-new", ~n.empty),
                    open_dir(~n.empty),
                ),
            ),
            Scenario(
                "onto the name of a removed lower tree, whose children stay gone",
                lambda n: (
                    mkdir(~n.empty + "-new"),
                    rmtree(~n.dir),
                    rename(~n.empty + "-new", ~n.dir),
                    absent(n.dir / "a"),
                    absent_dir(n.dir / "pop"),
                    open_dir(~n.dir),
                ),
            ),
        ),
    ),
)
