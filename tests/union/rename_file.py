# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of lower files, and of a file with two names."""

from __future__ import annotations

from errno import EISDIR, ENOENT, ENOTDIR

from datasets.reference import C0
from tests.union.phrases import absent, holds
from tests.union.rename_skeleton import Source, between_two_names, onto_its_holder, onto_itself, refused
from union.operations import link, rename, rmdir, unlink
from union.scenario import Group, Scenario

FILE = Source(
    old=lambda n: n.reg,
    new=lambda n: n.none,
    there=lambda name: holds(name, C0),
    gone=absent,
    removal=unlink,
    wrong=rmdir,
    wrong_fails=ENOTDIR,
)

GROUPS = (
    Group(
        "rename-file",
        "Rename a lower file.",
        (
            *between_two_names(FILE),
            Scenario(
                "onto another lower file",
                lambda n: (
                    rename(~n.reg, ~n.dir / "a"),
                    rename(~n.reg, ~n.dir / "a", ENOENT),
                    absent(~n.reg),
                    holds(~n.dir / "a", C0),
                ),
            ),
            onto_itself(FILE),
            refused(
                FILE,
                "onto an empty and onto a populated directory",
                lambda n: ((~n.empty, EISDIR), (~n.dir, EISDIR)),
            ),
            onto_its_holder(FILE),
        ),
    ),
    Group(
        "rename-hard-link",
        "Rename both names of a lower file that was linked.",
        (
            Scenario(
                "one name there and back, the other there",
                lambda n: (
                    link(~n.reg, ~n.none),
                    rename(~n.none, ~n.none + "-a"),
                    rename(~n.none + "-a", ~n.none),
                    rename(~n.reg, ~n.reg + "-a"),
                    absent(~n.reg),
                    holds(~n.none, C0),
                    absent(~n.none + "-a"),
                    holds(~n.reg + "-a", C0),
                ),
            ),
        ),
    ),
)
