# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of a new, populated directory."""

from __future__ import annotations

from errno import EINVAL, EISDIR, ENOTDIR, ENOTEMPTY

from datasets.reference import C1
from tests.union.phrases import absent, absent_dir, create, holds
from tests.union.rename_skeleton import (
    Operations,
    between_two_names,
    directory,
    onto_empty_directory,
    onto_its_holder,
    onto_itself,
    onto_populated_directory,
    refused,
)
from union.names import Name, Names
from union.operations import mkdir, open_dir, rename, rmdir, rmtree, unlink
from union.scenario import Group, Scenario


def populated(name: Name, child: str = "a") -> Operations:
    """Make the directory `name` with one file."""
    return mkdir(name), create(Name(name) / child, b"aaaa")


def nested(name: Name, child: str) -> Operations:
    """Make the directory `name` with `pop` and in that one file."""
    return mkdir(name), mkdir(Name(name) / "pop"), create(Name(name) / "pop" / child, b"aaaa")


def fresh(n: Names) -> Name:
    """The name the new directory is made under."""
    return n.dir + "-new"


NEW_POPULATED = directory(
    fresh,
    removal_fails=ENOTEMPTY,
    make=populated,
    children=lambda name: (holds(name / "a", b"aaaa"),),
)

ONTO_REMOVED = (
    Scenario(
        "onto the name of a removed lower leaf directory",
        lambda n: (
            *populated(~fresh(n)),
            rmdir(~n.dir / "pop/c"),
            rename(~fresh(n), ~n.dir / "pop/c"),
            open_dir(~n.dir / "pop/c"),
            holds(n.dir / "pop/c/a", b"aaaa"),
        ),
    ),
    Scenario(
        "onto the name of a removed lower tree, other children",
        lambda n: (
            *populated(~fresh(n)),
            rmtree(~n.dir / "pop"),
            rename(~fresh(n), ~n.dir / "pop"),
            open_dir(~n.dir / "pop"),
            holds(n.dir / "pop/a", b"aaaa"),
            absent(n.dir / "pop/b"),
        ),
    ),
    Scenario(
        "onto the name of a removed lower tree, same children",
        lambda n: (
            *populated(~fresh(n), "b"),
            rmtree(~n.dir / "pop"),
            rename(~fresh(n), ~n.dir / "pop"),
            absent_dir(~fresh(n)),
            open_dir(~n.dir / "pop"),
            holds(n.dir / "pop/b", b"aaaa"),
        ),
    ),
    Scenario(
        "onto the name of a removed lower tree, other grandchildren",
        lambda n: (
            *nested(~fresh(n), "x"),
            rmtree(~n.dir),
            rename(~fresh(n), ~n.dir),
            absent_dir(~fresh(n)),
            open_dir(~n.dir),
            holds(n.dir / "pop/x", b"aaaa"),
            absent(n.dir / "pop/b"),
        ),
    ),
    Scenario(
        "onto the name of a removed lower tree, same grandchildren",
        lambda n: (
            *nested(~fresh(n), "b"),
            rmtree(~n.dir),
            rename(~fresh(n), ~n.dir),
            absent_dir(~fresh(n)),
            open_dir(~n.dir),
            holds(n.dir / "pop/b", b"aaaa"),
        ),
    ),
)

GROUPS = (
    Group(
        "rename-new-pop-dir",
        "Rename a new, populated directory.",
        (
            *between_two_names(NEW_POPULATED),
            onto_empty_directory(NEW_POPULATED),
            onto_itself(NEW_POPULATED),
            refused(
                NEW_POPULATED,
                "onto a lower file and onto its own child",
                lambda n: ((~n.reg, ENOTDIR), (~fresh(n) / "a", EINVAL)),
            ),
            refused(
                NEW_POPULATED,
                "onto a lower file in another directory",
                lambda n: ((~n.dir / "a", ENOTDIR),),
            ),
            onto_its_holder(NEW_POPULATED),
            onto_populated_directory(NEW_POPULATED),
            *ONTO_REMOVED,
            Scenario(
                "onto a populated lower directory that unlink does not remove",
                lambda n: (
                    *nested(~fresh(n), "b"),
                    unlink(~n.dir, EISDIR),
                    rename(~fresh(n), ~n.dir, ENOTEMPTY),
                    open_dir(~fresh(n)),
                    open_dir(~n.dir),
                    holds(fresh(n) / "pop/b", b"aaaa"),
                    holds(n.dir / "pop/b", C1),
                ),
            ),
            Scenario(
                "onto a lower directory emptied by hand, its children stay gone",
                lambda n: (
                    *populated(~fresh(n)),
                    rmdir(n.dir / "pop/c"),
                    unlink(n.dir / "pop/b"),
                    rename(~fresh(n), ~n.dir / "pop"),
                    open_dir(~n.dir / "pop"),
                    holds(n.dir / "pop/a", b"aaaa"),
                    absent(n.dir / "pop/b"),
                ),
            ),
        ),
    ),
)
