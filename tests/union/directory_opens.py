# SPDX-License-Identifier: GPL-2.0-only
"""Opening directories: kind of path x access, and with flags that only make sense for files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EEXIST, EINVAL, EISDIR

from union.names import Name, Names
from union.operations import CREAT, DIRECTORY, EXCL, RW, RWA, TRUNC, WA, R, W, open_file
from union.scenario import Group, Scenario, When


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of path to a populated lower directory, and the flags every open of it carries."""

    words: str
    path: Callable[[Names], Name]
    always: int = 0


DIR = Kind("directory", lambda n: ~n.dir)
DIR_BY_FLAG = Kind("directory with O_DIRECTORY", lambda n: ~n.dir, DIRECTORY)
SYMLINK = Kind("symlink to a directory", lambda n: ~n.dsym)
TWO_SYMLINKS = Kind("symlink to a symlink to a directory", lambda n: ~n.idsym)

WRITING = (
    ("write-only", W),
    ("append write-only", WA),
    ("read-write", RW),
    ("append read-write", RWA),
)
FILE_FLAGS = (
    ("O_CREAT", CREAT),
    ("O_CREAT|O_EXCL", CREAT | EXCL),
    ("O_TRUNC", TRUNC),
    ("O_CREAT|O_TRUNC", CREAT | TRUNC),
    ("O_CREAT|O_EXCL|O_TRUNC", CREAT | EXCL | TRUNC),
)


def read_twice(kind: Kind) -> Scenario:
    """Read-only opens succeed."""
    return Scenario(
        f"{kind.words}, read-only twice",
        lambda n: (
            open_file(kind.path(n), R | kind.always),
            open_file(kind.path(n), R | kind.always),
        ),
    )


def refused_then_readable(kind: Kind, words: str, access: int) -> Scenario:
    """Writing is refused and leaves the directory readable, and so again."""
    return Scenario(
        f"{kind.words}, {words} refused, then readable, twice",
        lambda n: (
            open_file(kind.path(n), access | kind.always, fails=EISDIR),
            open_file(kind.path(n), R | kind.always),
            open_file(kind.path(n), access | kind.always, fails=EISDIR),
            open_file(kind.path(n), R | kind.always),
        ),
    )


def refused_in_a_row(kind: Kind) -> Scenario:
    """Writing is refused twice with nothing in between."""
    return Scenario(
        f"{kind.words}, write-only refused twice in a row",
        lambda n: (
            open_file(kind.path(n), W | kind.always, fails=EISDIR),
            open_file(kind.path(n), W | kind.always, fails=EISDIR),
            open_file(kind.path(n), R | kind.always),
        ),
    )


def weird_errno(flags: int) -> int:
    """Why an open of an existing directory with flags meant for files fails."""
    if flags & DIRECTORY and flags & CREAT:
        # EISDIR or EEXIST before commit 43b450632676 ("open: return EINVAL for O_DIRECTORY | O_CREAT"),
        # hence a group that runs only by name.
        return EINVAL
    return EEXIST if flags & EXCL else EISDIR


def weird(kind: Kind, words: str, flags: int) -> Scenario:
    """An open with flags meant for files is refused and leaves the directory readable."""
    return Scenario(
        f"{kind.words}, {words} refused",
        lambda n: (
            open_file(kind.path(n), flags | kind.always, fails=weird_errno(flags | kind.always)),
            open_file(kind.path(n), R | kind.always),
        ),
    )


def opens(name: str, kind: Kind, in_a_row: bool = False) -> Group:
    """The group of plain opens of one kind of path."""
    first, *others = (refused_then_readable(kind, words, access) for words, access in WRITING)
    between = (refused_in_a_row(kind),) if in_a_row else ()
    return Group(name, f"Open a {kind.words}.", (read_twice(kind), first, *between, *others))


def weird_opens(name: str, kind: Kind, when: When = When.ALWAYS) -> Group:
    """The group of opens with flags meant for files."""
    scenarios = tuple(
        weird(kind, f"{words}, {access_words}", flags | access)
        for access_words, access in (("read-only", R), ("write-only", W))
        for words, flags in FILE_FLAGS
    )
    return Group(name, f"Open a {kind.words} as only files can be opened.", scenarios, when)


GROUPS = (
    opens("dir-open", DIR, in_a_row=True),
    weird_opens("dir-weird-open", DIR),
    opens("dir-open-dir", DIR_BY_FLAG, in_a_row=True),
    opens("dir-sym1-open", SYMLINK),
    weird_opens("dir-sym1-weird-open", SYMLINK),
    opens("dir-sym2-open", TWO_SYMLINKS),
    weird_opens("dir-sym2-weird-open", TWO_SYMLINKS),
)
BY_NAME = (weird_opens("dir-weird-open-dir", DIR_BY_FLAG, When.BY_NAME),)
