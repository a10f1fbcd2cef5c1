# SPDX-License-Identifier: GPL-2.0-only
"""link(2) of files, symlinks and directories, to fresh names and onto taken ones.

A symlink is linked itself and read through, so files and symlinks share most of their scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, ELOOP, ENOENT, EPERM

from datasets.reference import C0
from tests.union.phrases import absent, absent_dir, create, holds
from union.names import Name, Names
from union.operations import R, link, mkdir, open_dir, open_file, rename, rmdir, unlink
from union.scenario import Group, Scenario

Source = Callable[[Names], Name]
"""What is linked: a lower file, or a symlink to one."""


def to_a_fresh_name(source: Source) -> Scenario:
    """Both names lead to the same content."""
    return Scenario(
        "to a fresh name",
        lambda n: (link(~source(n), ~n.none), holds(~source(n), C0), holds(~n.none, C0)),
    )


def from_an_absent_name(source: Source) -> Scenario:
    """An absent source wins over a target that is there."""
    return Scenario(
        "from an absent name onto it",
        lambda n: (link(~n.none, ~source(n), ENOENT), absent(~n.none), holds(~source(n), C0)),
    )


def onto_a_lower_file(source: Source) -> Scenario:
    """A lower file does not give way."""
    return Scenario(
        "onto another lower file",
        lambda n: (
            link(~source(n), ~n.dir / "a", EEXIST),
            holds(~source(n), C0),
            holds(~n.dir / "a", b""),
        ),
    )


def onto_a_new_file(source: Source) -> Scenario:
    """Neither does a file that was just created."""
    return Scenario(
        "onto a new file",
        lambda n: (
            create(~n.reg + "-new", b"aaaa"),
            link(~source(n), ~n.reg + "-new", EEXIST),
            holds(~source(n), C0),
            holds(~n.reg + "-new", b"aaaa"),
        ),
    )


def from_a_new_file(source: Source) -> Scenario:
    """What was just created does not replace it either."""
    return Scenario(
        "from a new file onto it",
        lambda n: (
            create(~n.reg + "-new", b"aaaa"),
            link(~n.reg + "-new", ~source(n), EEXIST),
            holds(~n.reg + "-new", b"aaaa"),
            holds(~source(n), C0),
        ),
    )


def onto_itself(source: Source) -> Scenario:
    """The name is taken, even by itself."""
    return Scenario(
        "onto itself",
        lambda n: (link(~source(n), ~source(n), EEXIST), holds(~source(n), C0)),
    )


def unlinked_first(source: Source) -> Scenario:
    """There is nothing left to link."""
    return Scenario(
        "unlinked first",
        lambda n: (
            unlink(~source(n)),
            link(~source(n), ~n.none, ENOENT),
            absent(~source(n)),
            absent(~n.none),
        ),
    )


def renamed_first(source: Source) -> Scenario:
    """The link follows the object, not the name."""
    return Scenario(
        "renamed first: the old name is refused, the new one is linked to the old",
        lambda n: (
            rename(~source(n), ~n.none),
            link(~source(n), ~n.none + "-a", ENOENT),
            link(~n.none, ~source(n)),
            holds(~source(n), C0),
            holds(~n.none, C0),
            absent(~n.none + "-a"),
        ),
    )


def file(n: Names) -> Name:
    """A lower file."""
    return n.reg


def symlink(n: Names) -> Name:
    """A symlink to a lower file."""
    return n.sym


FILES = Group(
    "hard-link",
    "Link lower and new files.",
    (
        to_a_fresh_name(file),
        Scenario(
            "from an absent name to another",
            lambda n: (
                link(~n.none, ~n.none + "a", ENOENT),
                absent(~n.none),
                absent(~n.none + "a"),
            ),
        ),
        from_an_absent_name(file),
        onto_a_lower_file(file),
        onto_a_new_file(file),
        from_a_new_file(file),
        onto_itself(file),
        Scenario(
            "a new file onto itself",
            lambda n: (
                create(~n.reg + "-new", b"aaaa"),
                link(~n.reg + "-new", ~n.reg + "-new", EEXIST),
                holds(~n.reg + "-new", b"aaaa"),
            ),
        ),
        Scenario(
            "an absent name onto itself",
            lambda n: (link(~n.none, ~n.none, ENOENT), absent(~n.none)),
        ),
        unlinked_first(file),
        renamed_first(file),
    ),
)

DIRECTORIES = Group(
    "hard-link-dir",
    "Fail to link directories, and onto directories.",
    (
        Scenario(
            "empty lower directory to a fresh name",
            lambda n: (link(~n.empty, ~n.nodir, EPERM), open_dir(~n.empty), absent_dir(~n.nodir)),
        ),
        Scenario(
            "lower file onto an empty directory",
            lambda n: (link(~n.reg, ~n.empty, EEXIST), holds(~n.reg, C0), open_dir(~n.empty)),
        ),
        Scenario(
            "populated lower directory onto an empty one",
            lambda n: (link(~n.dir, ~n.empty, EEXIST), open_dir(~n.dir), open_dir(~n.empty)),
        ),
        Scenario(
            "populated lower directory onto a file",
            lambda n: (link(~n.dir, ~n.reg, EEXIST), open_dir(~n.dir), holds(~n.reg, C0)),
        ),
        Scenario("onto itself", lambda n: (link(~n.dir, ~n.dir, EEXIST), open_dir(~n.dir))),
        Scenario(
            "onto the directory that holds it",
            lambda n: (
                link(~n.dir / "pop", ~n.dir, EEXIST),
                open_dir(~n.dir / "pop"),
                open_dir(~n.dir),
            ),
        ),
        Scenario(
            "removed first",
            lambda n: (
                rmdir(~n.empty),
                link(~n.empty, ~n.nodir, ENOENT),
                absent_dir(~n.empty),
                absent_dir(~n.nodir),
            ),
        ),
        Scenario(
            "new directory renamed first: both names are refused",
            lambda n: (
                mkdir(~n.empty / "new"),
                rename(~n.empty / "new", ~n.nodir),
                link(~n.empty / "new", ~n.nodir + "-a", ENOENT),
                link(~n.nodir, ~n.empty / "new", EPERM),
                absent_dir(~n.empty / "new"),
                open_dir(~n.nodir),
                absent_dir(~n.nodir + "-a"),
            ),
        ),
    ),
)

SYMLINKS = Group(
    "hard-link-sym",
    "Link symlinks, which are not followed.",
    (
        to_a_fresh_name(symlink),
        Scenario(
            "dangling symlink to the name it points at: a loop",
            lambda n: (
                link(~n.dangling, ~n.none),
                open_file(~n.dangling, R, fails=ELOOP),
                open_file(~n.none, R, fails=ELOOP),
            ),
        ),
        from_an_absent_name(symlink),
        onto_a_lower_file(symlink),
        onto_a_new_file(symlink),
        from_a_new_file(symlink),
        onto_itself(symlink),
        Scenario(
            "onto a dangling symlink",
            lambda n: (link(~n.sym, ~n.dangling, EEXIST), holds(~n.sym, C0), absent(~n.dangling)),
        ),
        unlinked_first(symlink),
        renamed_first(symlink),
    ),
)

GROUPS = (FILES, DIRECTORIES, SYMLINKS)
