# SPDX-License-Identifier: GPL-2.0-only
"""Opening files: kind of path x modifiers x access.

A group is a kind of path with a set of modifiers; its scenarios are the five accesses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EEXIST, ENOENT

from datasets.reference import C0
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import CREAT, EXCL, RW, RWA, TRUNC, WA, Operation, R, W, open_file
from union.scenario import Group, Scenario

ACCESSES = (
    ("read-only", R),
    ("write-only", W),
    ("append write-only", WA),
    ("read-write", RW),
    ("append read-write", RWA),
)


@dataclass(frozen=True, slots=True)
class Modifiers:
    """The flags of a column of the matrix."""

    name: str
    flags: int
    words: str


PLAIN = Modifiers("plain", 0, "")
TRUNCATE = Modifiers("trunc", TRUNC, "O_TRUNC")
CREATE = Modifiers("creat", CREAT, "O_CREAT")
CREATE_TRUNCATE = Modifiers("creat-trunc", CREAT | TRUNC, "O_CREAT|O_TRUNC")
CREATE_NEW = Modifiers("creat-excl", CREAT | EXCL, "O_CREAT|O_EXCL")
CREATE_NEW_TRUNCATE = Modifiers("creat-excl-trunc", CREAT | EXCL | TRUNC, "O_CREAT|O_EXCL|O_TRUNC")


def written(content: bytes, data: bytes, flags: int) -> bytes:
    """What a file of this content holds after an open with `flags` and one write of `data`."""
    if flags & TRUNC:
        return data
    if flags & os.O_APPEND:
        return content + data
    return data + content[len(data) :]


def existing(path: Name, access: int, modifiers: int) -> Sequence[Operation]:
    """A file is there: O_EXCL is refused, else it is read twice or written twice."""
    flags = access | modifiers
    if modifiers & EXCL:
        return open_file(path, flags, fails=EEXIST), holds(path, C0)
    if access == R:
        content = b"" if modifiers & TRUNC else C0
        return open_file(path, flags, reads=content), open_file(path, flags, reads=content)
    # Looking with O_TRUNC would spoil what there is to see.
    look = R if modifiers & TRUNC else R | modifiers
    first = written(C0, b"q", flags)
    second = written(first, b"p", flags)
    return (
        open_file(path, flags, writes=b"q"),
        open_file(path, look, reads=first),
        open_file(path, flags, writes=b"p"),
        open_file(path, look, reads=second),
    )


def missing(path: Name, access: int, modifiers: int) -> Sequence[Operation]:
    """Nothing is there: without O_CREAT it stays so, with it the second open finds the file of the first."""
    flags = access | modifiers
    if not modifiers & CREAT:
        return open_file(path, flags, fails=ENOENT), open_file(path, flags, fails=ENOENT)
    # The classical suite repeats O_TRUNC only for the first two accesses; so both cases are covered.
    again = flags if access in (R, W) else flags & ~TRUNC
    if modifiers & EXCL:
        refused = open_file(path, again, fails=EEXIST)
        if access == R:
            return open_file(path, flags, reads=b""), refused, holds(path, b"")
        return open_file(path, flags, writes=b"q"), holds(path, b"q"), refused, holds(path, b"q")
    if access == R:
        return open_file(path, flags, reads=b""), open_file(path, again, reads=b"")
    return (
        open_file(path, flags, writes=b"q"),
        holds(path, b"q"),
        open_file(path, again, writes=b"p"),
        holds(path, written(b"q", b"p", again)),
    )


def dangling(path: Name, target: Name, access: int, modifiers: int) -> Sequence[Operation]:
    """A symlink to nothing: only O_CREAT without O_EXCL makes its target."""
    flags = access | modifiers
    if modifiers & EXCL:
        return open_file(path, flags, fails=EEXIST), absent(target)
    if not modifiers & CREAT:
        return open_file(path, flags, fails=ENOENT), absent(target)
    if access == R:
        return open_file(path, flags, reads=b""), holds(target, b"")
    return open_file(path, flags, writes=b"q"), holds(target, b"q")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of path, the script of its cells and the modifiers it is opened with."""

    name: str
    words: str
    cell: Callable[[Names, int, int], Sequence[Operation]]
    columns: tuple[Modifiers, ...]


KINDS = (
    Kind(
        "open",
        "lower file",
        lambda n, access, modifiers: existing(~n.reg, access, modifiers),
        (PLAIN, TRUNCATE, CREATE, CREATE_TRUNCATE, CREATE_NEW, CREATE_NEW_TRUNCATE),
    ),
    Kind(
        "noent",
        "absent name",
        lambda n, access, modifiers: missing(~n.none, access, modifiers),
        (PLAIN, TRUNCATE, CREATE, CREATE_TRUNCATE, CREATE_NEW, CREATE_NEW_TRUNCATE),
    ),
    Kind(
        "sym1",
        "symlink to a file",
        lambda n, access, modifiers: existing(~n.sym, access, modifiers),
        (PLAIN, TRUNCATE, CREATE, CREATE_NEW),
    ),
    Kind(
        "sym2",
        "symlink to a symlink to a file",
        lambda n, access, modifiers: existing(~n.isym, access, modifiers),
        (PLAIN, TRUNCATE, CREATE, CREATE_NEW),
    ),
    Kind(
        "symx",
        "dangling symlink",
        lambda n, access, modifiers: dangling(~n.dangling, ~n.none, access, modifiers),
        (PLAIN, TRUNCATE, CREATE, CREATE_NEW, CREATE_TRUNCATE),
    ),
)


def scenario(kind: Kind, modifiers: Modifiers, access_words: str, access: int) -> Scenario:
    """One cell of the matrix."""
    label = ", ".join(filter(None, (kind.words, modifiers.words, access_words)))
    return Scenario(label, lambda names: kind.cell(names, access, modifiers.flags))


def group(kind: Kind, modifiers: Modifiers) -> Group:
    """One kind of path with one set of modifiers, by every access."""
    article = "an" if kind.words[0] in "aeiou" else "a"
    sentence = f"Open {article} {kind.words} with {modifiers.words or 'no modifier'}."
    scenarios = tuple(scenario(kind, modifiers, words, access) for words, access in ACCESSES)
    return Group(f"{kind.name}-{modifiers.name}", sentence, scenarios)


GROUPS = tuple(group(kind, modifiers) for kind in KINDS for modifiers in kind.columns)
