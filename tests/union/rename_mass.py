# SPDX-License-Identifier: GPL-2.0-only
"""Many renames over the same few names.

A ring is seven names with one gap: what stands before the gap is renamed into it, 31 times, which is
four times round and a half. In these groups each scenario goes on where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import ENOENT, ENOTDIR

from datasets.reference import C0, FIRST_SET
from tests.union.phrases import create, holds
from tests.union.rename_skeleton import Operations
from union.names import Name, Names, NumberedSet
from union.operations import link, mkdir, open_dir, readlink, rename, rmdir, unlink
from union.scenario import Group, Scenario

RING = 7
MOVES = 31
GAP = 3  # where the gap of a ring is at the end
BACKWARD_GAP = 2  # the same for a ring turned the other way
# Where in a full ring the name of the set of the same number has gone, and the content of a new file.
ENDS = {0: 2, 1: 3, 2: 4, 4: 5, 5: 0, 6: 1}

Pick = Callable[[NumberedSet], Name]
"""Which name of a set is meant."""


def ring(n: Names, pick: Pick, step: int = -1) -> Operations:
    """Turn the ring: the gap, first at the last name, wanders by `step` with each rename."""
    moves = []
    gap = RING - 1
    for _ in range(MOVES):
        source = (gap + step) % RING
        moves.append(rename(pick(n[FIRST_SET + source]), pick(n[FIRST_SET + gap])))
        gap = source
    return moves


def remove_all(n: Names, pick: Pick, count: int, gap: int = GAP) -> Operations:
    """Unlink the first `count` names; the one at the gap is absent."""
    return [unlink(pick(n[FIRST_SET + i]), ENOENT if i == gap else 0) for i in range(count)]


def chain(*parts: Iterable[Operations]) -> Operations:
    """All the operations in a row."""
    return [operation for part in parts for operations in part for operation in operations]


# Files --------------------------------------------------------------------------------------------


def shift(n: Names) -> Operations:
    """Shift four files up by one name, three times."""
    return [
        rename(n[FIRST_SET + i + shifted].reg, n[FIRST_SET + i + shifted + 1].reg)
        for shifted in range(3)
        for i in reversed(range(4))
    ]


def suffixes(n: Names) -> Operations:
    """Give four files one new name after the other."""
    first = [rename(n[FIRST_SET + i].reg, n[FIRST_SET + i].reg + "_0") for i in range(4)]
    later = [
        rename(n[FIRST_SET + i].reg + f"_{hop}", n[FIRST_SET + i].reg + f"_{hop + 1}")
        for hop in range(3)
        for i in reversed(range(4))
    ]
    return [*first, *later]


def links(n: Names) -> Operations:
    """Link eight files, turn the ring of the links and, backwards, the ring of the files."""
    return [
        *(link(n[FIRST_SET + i].reg, n[FIRST_SET + i].none) for i in range(8)),
        *ring(n, lambda s: s.none),
        *ring(n, lambda s: s.reg, step=1),
    ]


FILES = (
    Group(
        "rename-mass",
        "Shift lower files along a row of names.",
        (
            Scenario("four files up by one name, three times", shift),
            Scenario("unlink them", lambda n: [unlink(n[FIRST_SET + i].reg) for i in range(3, 7)]),
        ),
        sequence=True,
    ),
    Group(
        "rename-mass-2",
        "Give lower files one new name after the other.",
        (
            Scenario("four files through four names each", suffixes),
            Scenario("unlink them", lambda n: [unlink(n[FIRST_SET + i].reg + "_3") for i in range(4)]),
        ),
        sequence=True,
    ),
    Group(
        "rename-mass-3",
        "Turn a ring of lower files.",
        (
            Scenario("turn the ring", lambda n: ring(n, lambda s: s.reg)),
            Scenario("unlink them", lambda n: remove_all(n, lambda s: s.reg, RING)),
        ),
        sequence=True,
    ),
    Group(
        "rename-mass-4",
        "Turn a ring of new files.",
        (
            Scenario(
                "create the files and turn the ring",
                lambda n: [
                    *(create(n[FIRST_SET + i].none, b"abcd%d" % i) for i in range(RING)),
                    *ring(n, lambda s: s.none),
                ],
            ),
            Scenario("unlink them", lambda n: remove_all(n, lambda s: s.none, RING)),
        ),
        sequence=True,
    ),
    Group(
        "rename-mass-5",
        "Turn two rings of the names of hard-linked lower files.",
        (
            Scenario("link the files, turn the ring of links and, backwards, the ring of files", links),
            Scenario(
                "unlink all names",
                lambda n: [
                    *remove_all(n, lambda s: s.none, 8),
                    *remove_all(n, lambda s: s.reg, 8, BACKWARD_GAP),
                ],
            ),
        ),
        sequence=True,
    ),
)

# Directories --------------------------------------------------------------------------------------


def full_directories(n: Names) -> Operations:
    """Make six directories with a file in each."""
    names = [n[FIRST_SET + i].nodir for i in range(RING - 1)]
    return chain((mkdir(name), create(name / "a", b"abcd%d" % i)) for i, name in enumerate(names))


def remove_full_directories(n: Names) -> Operations:
    """Remove each directory with its file; the one at the gap is absent."""
    names = [(n[FIRST_SET + i].nodir, i == GAP) for i in range(RING)]
    return chain((rmdir(name, ENOENT),) if absent else (unlink(name / "a"), rmdir(name)) for name, absent in names)


DIRECTORIES = (
    Group(
        "rename-mass-dir",
        "Turn a ring of new directories.",
        (
            Scenario(
                "make empty directories and turn the ring",
                lambda n: [
                    *(mkdir(n[FIRST_SET + i].nodir) for i in range(RING - 1)),
                    *ring(n, lambda s: s.nodir),
                ],
            ),
            Scenario(
                "remove them",
                lambda n: [rmdir(n[FIRST_SET + i].nodir, ENOENT if i == GAP else 0) for i in range(RING)],
            ),
            Scenario(
                "make directories with a file and turn the ring",
                lambda n: [*full_directories(n), *ring(n, lambda s: s.nodir)],
            ),
            Scenario(
                "read the files where they are now",
                lambda n: [holds(n[FIRST_SET + i].nodir / "a", b"abcd%d" % origin) for i, origin in ENDS.items()],
            ),
            Scenario("remove files and directories", remove_full_directories),
        ),
        sequence=True,
    ),
)

# Symlinks -----------------------------------------------------------------------------------------


def read_links_to_files(n: Names) -> Operations:
    """Each symlink still names the file it named, wherever it is now."""
    ends = [(n[FIRST_SET + i].sym, n[FIRST_SET + origin].reg) for i, origin in ENDS.items()]
    return chain((readlink(name, f"../{target}"), holds(name, C0)) for name, target in ends)


def read_links_to_directories(n: Names) -> Operations:
    """Each symlink still names the directory it named, wherever it is now."""
    ends = [(n[FIRST_SET + i].dsym, n[FIRST_SET + origin].dir) for i, origin in ENDS.items()]
    return chain((readlink(name, f"../{target}"), open_dir(name)) for name, target in ends)


def remove_links_to_directories(n: Names) -> Operations:
    """rmdir does not remove a symlink, unlink does; the one at the gap is absent."""
    names = [(n[FIRST_SET + i].dsym, i == GAP) for i in range(8)]
    return chain((unlink(name, ENOENT),) if absent else (rmdir(name, ENOTDIR), unlink(name)) for name, absent in names)


SYMLINKS = (
    Group(
        "rename-mass-sym",
        "Turn rings of lower symlinks.",
        (
            Scenario("turn the ring of symlinks to files", lambda n: ring(n, lambda s: s.sym)),
            Scenario("read the symlinks to files, and through them", read_links_to_files),
            Scenario("unlink the symlinks to files", lambda n: remove_all(n, lambda s: s.sym, 8)),
            Scenario("turn the ring of symlinks to directories", lambda n: ring(n, lambda s: s.dsym)),
            Scenario("read the symlinks to directories, and open through them", read_links_to_directories),
            Scenario("rmdir refused, unlink the symlinks to directories", remove_links_to_directories),
        ),
        sequence=True,
    ),
)

GROUPS = (*FILES, *DIRECTORIES, *SYMLINKS)
