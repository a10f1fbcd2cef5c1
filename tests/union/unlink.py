# SPDX-License-Identifier: GPL-2.0-only
"""unlink(2) of files, symlinks and directories."""

from __future__ import annotations

from errno import EISDIR, ENOENT

from datasets.reference import C0
from tests.union.phrases import absent, absent_dir, holds
from union.operations import open_dir, unlink
from union.scenario import Group, Scenario

GROUPS = (
    Group(
        "unlink",
        "Unlink files and symlinks, and fail to unlink directories.",
        (
            Scenario(
                "lower file, then again",
                lambda n: (
                    unlink(~n.reg),
                    absent(~n.reg),
                    unlink(~n.reg, ENOENT),
                    absent(~n.reg),
                ),
            ),
            Scenario(
                "symlink to a file, which stays",
                lambda n: (
                    holds(~n.sym, C0),
                    unlink(~n.sym),
                    absent(~n.sym),
                    holds(~n.reg, C0),
                    unlink(~n.sym, ENOENT),
                    absent(~n.sym),
                    holds(~n.reg, C0),
                ),
            ),
            Scenario(
                "symlink to a symlink to a file, which both stay",
                lambda n: (
                    holds(~n.isym, C0),
                    unlink(~n.isym),
                    absent(~n.isym),
                    holds(~n.sym, C0),
                    holds(~n.reg, C0),
                    unlink(~n.isym, ENOENT),
                    absent(~n.isym),
                    holds(~n.sym, C0),
                ),
            ),
            Scenario(
                "directory",
                lambda n: (
                    unlink(~n.dir, EISDIR),
                    open_dir(~n.dir),
                    unlink(~n.dir, EISDIR),
                    open_dir(~n.dir),
                ),
            ),
            Scenario(
                "symlink to a directory, which stays",
                lambda n: (
                    open_dir(~n.dsym),
                    unlink(~n.dsym),
                    absent_dir(~n.dsym),
                    open_dir(~n.dir),
                    unlink(~n.dsym, ENOENT),
                    absent_dir(~n.dsym),
                    open_dir(~n.dir),
                ),
            ),
            Scenario(
                "symlink to a symlink to a directory, which both stay",
                lambda n: (
                    open_dir(~n.idsym),
                    unlink(~n.idsym),
                    absent_dir(~n.idsym),
                    open_dir(~n.dsym),
                    open_dir(~n.dir),
                    unlink(~n.idsym, ENOENT),
                    absent_dir(~n.idsym),
                    open_dir(~n.dsym),
                ),
            ),
            Scenario("absent name", lambda n: (unlink(~n.none, ENOENT), unlink(~n.none, ENOENT))),
            Scenario("dangling symlink, then again", lambda n: (unlink(~n.dangling), unlink(~n.dangling, ENOENT))),
            # The classical suite has these two twice; its numbers are kept.
            Scenario(
                "another dangling symlink, then again",
                lambda n: (unlink(~n.dangling), unlink(~n.dangling, ENOENT)),
            ),
            Scenario("another absent name", lambda n: (unlink(~n.none, ENOENT), unlink(~n.none, ENOENT))),
        ),
    ),
)
