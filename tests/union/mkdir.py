# SPDX-License-Identifier: GPL-2.0-only
"""mkdir(2) on fresh and on taken names."""

from __future__ import annotations

from errno import EEXIST

from datasets.reference import C0
from tests.union.phrases import holds
from union.operations import mkdir
from union.scenario import Group, Scenario

GROUPS = (
    Group(
        "mkdir",
        "Make directories on fresh names and on taken ones.",
        (
            Scenario("fresh name, then again", lambda n: (mkdir(~n.nodir), mkdir(~n.nodir, EEXIST))),
            Scenario(
                "on a lower file",
                lambda n: (mkdir(~n.reg, EEXIST), mkdir(~n.reg, EEXIST), holds(n.reg, C0)),
            ),
            Scenario("on an empty lower directory", lambda n: (mkdir(~n.empty, EEXIST),)),
            Scenario(
                "in an empty lower directory, then again",
                lambda n: (mkdir(~n.empty / "sub"), mkdir(~n.empty / "sub", EEXIST)),
            ),
            Scenario(
                "on a populated lower directory",
                lambda n: (mkdir(~n.dir, EEXIST), holds(n.dir / "a", b"")),
            ),
            Scenario(
                "in a populated lower directory, then again",
                lambda n: (
                    mkdir(~n.dir / "sub"),
                    mkdir(~n.dir / "sub", EEXIST),
                    holds(n.dir / "a", b""),
                ),
            ),
            Scenario(
                "on a symlink to a file, and on the file",
                lambda n: (
                    mkdir(~n.sym, EEXIST),
                    mkdir(~n.sym, EEXIST),
                    mkdir(~n.reg, EEXIST),
                    holds(n.reg, C0),
                ),
            ),
            Scenario(
                "on a symlink to a symlink to a file, and on both of its targets",
                lambda n: (
                    mkdir(~n.isym, EEXIST),
                    mkdir(~n.isym, EEXIST),
                    mkdir(~n.sym, EEXIST),
                    mkdir(~n.reg, EEXIST),
                    holds(n.reg, C0),
                ),
            ),
            Scenario(
                "on a symlink to a directory, and on the directory",
                lambda n: (
                    mkdir(~n.dsym, EEXIST),
                    mkdir(~n.dsym, EEXIST),
                    mkdir(~n.dir, EEXIST),
                    holds(n.dsym / "a", b""),
                    holds(n.dir / "a", b""),
                ),
            ),
            Scenario(
                "on a symlink to a symlink to a directory, and on both of its targets",
                lambda n: (
                    mkdir(~n.idsym, EEXIST),
                    mkdir(~n.idsym, EEXIST),
                    mkdir(~n.dsym, EEXIST),
                    mkdir(~n.dir, EEXIST),
                    holds(n.idsym / "a", b""),
                    holds(n.dsym / "a", b""),
                    holds(n.dir / "a", b""),
                ),
            ),
            Scenario(
                "on a dangling symlink",
                lambda n: (mkdir(~n.dangling, EEXIST), mkdir(~n.dangling, EEXIST)),
            ),
        ),
    ),
)
