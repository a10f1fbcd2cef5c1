# SPDX-License-Identifier: GPL-2.0-only
"""readlink(2) of everything."""

from __future__ import annotations

from errno import EINVAL, ENOENT
from os.path import basename

from union.operations import readlink
from union.scenario import Group, Scenario

GROUPS = (
    Group(
        "readlink",
        "Read symlinks, and what is none.",
        (
            Scenario("lower file", lambda n: (readlink(~n.reg, fails=EINVAL),)),
            Scenario("symlink to a file", lambda n: (readlink(~n.sym, f"../{n.reg}"),)),
            Scenario("symlink to a symlink to a file", lambda n: (readlink(~n.isym, basename(n.sym)),)),
            Scenario("directory", lambda n: (readlink(~n.dir, fails=EINVAL),)),
            Scenario("symlink to a directory", lambda n: (readlink(~n.dsym, f"../{n.dir}"),)),
            Scenario("symlink to a symlink to a directory", lambda n: (readlink(~n.idsym, basename(n.dsym)),)),
            Scenario("absent name", lambda n: (readlink(~n.none, fails=ENOENT),)),
            Scenario("dangling symlink", lambda n: (readlink(~n.dangling, basename(n.none)),)),
            # The classical suite has these two twice; its numbers are kept.
            Scenario("another dangling symlink", lambda n: (readlink(~n.dangling, basename(n.none)),)),
            Scenario("another absent name", lambda n: (readlink(~n.none, fails=ENOENT),)),
        ),
    ),
)
