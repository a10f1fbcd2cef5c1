# SPDX-License-Identifier: GPL-2.0-only
"""Directories listed in small pieces, from remembered positions and while names change."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, EINVAL, ENOTDIR
from functools import partial
from itertools import product
from stat import S_IFCHR, S_IFIFO, S_IFSOCK

from datasets.tree import Directory, File, Node, Special, Symlink, Whiteout
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import (
    SMALL,
    ListDirectory,
    Operation,
    cannot_list,
    chmod,
    chown,
    exchange,
    go_on_listing,
    list_again,
    lists,
    lseek,
    make_dir,
    make_file,
    mknod,
    rename,
    rmdir,
    rmtree,
    seeks,
    set_times,
    start_listing,
    symlink,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]

SOME = 40  # names of a directory: several pieces of SMALL bytes
MANY = 200  # of each layer of the large one


def files(prefix: str, numbers: range) -> dict[str, Node]:
    return {f"{prefix}{number:03}": File() for number in numbers}


def upper_half() -> Directory:
    """The upper one of two lower layers: it shares half of the names, hides some and has some alone."""
    hidden: dict[str, Node] = {f"both{number:03}": Whiteout() for number in range(0, SOME, 8)}
    return Directory(
        {
            "merged": Directory({**files("both", range(SOME // 2)), **files("top", range(SOME // 2)), **hidden}),
            "mixed": Directory({"one": File(b"top"), "two": Symlink("x"), "hidden": Whiteout(), "six": Directory()}),
        }
    )


def lower_half() -> Directory:
    return Directory(
        {
            "merged": Directory(files("both", range(SOME))),
            "single": Directory(files("both", range(SOME))),
            "other": Directory({"moved": File(b"moved"), "moveddir": Directory({"in": File(b"in")})}),
            "mixed": Directory(
                {
                    "one": Directory({"gone": File()}),
                    "hidden": File(),
                    "three": Special(S_IFIFO),
                    "four": Special(S_IFSOCK),
                    "five": Special(S_IFCHR, rdev=os.makedev(1, 3)),
                    "six": File(b"hidden by a directory"),
                }
            ),
        }
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of directory, what makes it, and what it holds."""

    words: str
    path: str
    entries: tuple[str, ...]
    make: Callable[[Name], Operations] = lambda _path: ()


MERGED = tuple(sorted(
    {f"both{number:03}" for number in range(SOME)} - {f"both{number:03}" for number in range(0, SOME, 8)}
    | {f"top{number:03}" for number in range(SOME // 2)}
))  # fmt: skip
SINGLE = tuple(f"both{number:03}" for number in range(SOME))
NEW = tuple(f"new{number:03}" for number in range(SOME))


def filled(path: Name) -> Operations:
    return (make_dir(path), *(make_file(path / name) for name in NEW))


def moved_into(path: Name) -> Operations:
    """A new directory with lower objects moved into it: the overlay calls it impure."""
    other = Name(f"{os.path.dirname(path)}/other")
    return (*filled(path), rename(other / "moved", path / "moved"), chmod(path / "moved", 0o600))


def copied_up(path: Name) -> Operations:
    return (set_times(path, None, 10**18), *(chmod(path / name, 0o600) for name in MERGED[:5]))


KINDS = (
    Kind("merged directory", "merged", MERGED),
    Kind("merged directory, copied up", "merged", MERGED, copied_up),
    Kind("lower directory", "single", SINGLE),
    Kind("new directory", "newdir", NEW, filled),
    Kind("new directory with lower objects", "newdir", (*NEW, "moved"), moved_into),
)


def in_pieces(kind: Kind) -> Scenario:
    """Small buffers, and positions to come back to; twice, the second time from the overlay's cache."""

    def script(n: Names) -> Operations:
        path = own(n) / kind.path
        return (
            *kind.make(path),
            lists(path, *kind.entries, size=SMALL),
            lists(path, *kind.entries, size=48),
            seeks(path, *kind.entries),
            lseek(path, 0, os.SEEK_CUR),
            lseek(path, -1, os.SEEK_SET, EINVAL),
            lists(path, *kind.entries, size=SMALL),
        )

    return Scenario(f"{kind.words}, in small pieces", script)


def changed(kind: Kind) -> Scenario:
    """Names come and go while the directory is held open, then it is rewound; then once more."""

    def script(n: Names) -> Operations:
        path = own(n) / kind.path
        one, two, three, *rest = kind.entries[10:]
        unsure = {one, two, three, "added", "addeddir", "renamed", "again"}
        after = (*kind.entries[:10], *rest, "added", "addeddir/", "renamed")
        return (
            *kind.make(path),
            start_listing(path, "d"),
            unlink(path / one),
            make_file(path / "added"),
            make_dir(path / "addeddir"),
            rename(path / two, path / "renamed", cycle=False),
            unlink(path / three),
            go_on_listing(path, "d", *kind.entries[:10], *rest, unsure=unsure),
            list_again(path, "d", *after),
            lists(path, *after, size=SMALL),
            unlink(path / "added"),
            make_file(path / one),
            rmdir(path / "addeddir"),
            list_again(path, "d", *kind.entries[:10], *rest, one, "renamed"),
        )

    return Scenario(f"{kind.words}, while names change", script)


def two_at_once(n: Names) -> Operations:
    """Two listings of one directory, a change between them, and a change of the directory itself."""
    path = own(n) / "merged"
    left = MERGED[1:]
    return (
        start_listing(path, "first"),
        unlink(path / MERGED[0]),
        start_listing(path, "second"),
        chown(path, 3, 4),
        go_on_listing(path, "second", *left),
        go_on_listing(path, "first", *left, unsure={MERGED[0]}),
        list_again(path, "first", *left),
        chmod(path, 0o700),
        list_again(path, "second", *left),
    )


def moved_while_listed(n: Names) -> Operations:
    """The directory is renamed, emptied and removed while it is held open."""
    path, moved = own(n) / "newdir", own(n) / "merged/sub"
    return (
        *filled(path),
        start_listing(path, "d"),
        rename(path, moved, cycle=False),
        go_on_listing(moved, "d", *NEW),
        list_again(moved, "d", *NEW),
        *(unlink(moved / name) for name in NEW),
        list_again(moved, "d"),
        make_file(moved / "last"),
        list_again(moved, "d", "last"),
    )


def all_types(n: Names) -> Operations:
    """Every d_type, from two layers that do not agree about the names."""
    path = own(n) / "mixed"
    before = ("one", "two@", "three|", "four=", "five%", "six/")
    return (
        lists(path, *before),
        seeks(path, *before),
        unlink(path / "one"),
        absent(path / "one"),
        make_dir(path / "one"),
        unlink(path / "two"),
        mknod(path / "two", S_IFSOCK),
        unlink(path / "five"),
        symlink("x", path / "five"),
        rmdir(path / "six"),
        make_file(path / "hidden"),
        lists(path, "one/", "two=", "three|", "four=", "five@", "hidden"),
        lists(path / "one"),
        rename(path / "four", path / "three"),
        exchange(path / "two", path / "five"),
        lists(path, "one/", "two@", "three=", "five=", "hidden"),
    )


def of_lower_objects(n: Names) -> Operations:
    """A new directory gets and loses lower objects: pure, impure, and pure again."""
    path, other = own(n) / "newdir", own(n) / "other"
    return (
        make_dir(path),
        make_file(path / "mine"),
        lists(path, "mine"),
        rename(other / "moved", path / "moved"),
        lists(path, "mine", "moved"),
        seeks(path, "mine", "moved"),
        unlink(path / "mine"),
        lists(path, "moved"),
        rename(path / "moved", other / "back"),
        lists(path),
        lists(other, "back", "moveddir/"),
        rename(other / "back", path / "moved"),
        make_file(path / "more"),
        lists(path, "moved", "more"),
        holds(path / "moved", b"moved"),
        unlink(path / "moved"),
        unlink(path / "more"),
        lists(path),
        rmdir(path),
    )


def refused(n: Names) -> Operations:
    path = own(n) / "merged"
    return (
        cannot_list(own(n) / "mixed/three", ENOTDIR),
        cannot_list(own(n) / "other/moved", ENOTDIR),
        ListDirectory(path=path, size=16, fails=EINVAL),
        lists(path, *MERGED, unprivileged=True),
        chmod(path, 0o711),
        cannot_list(path, EACCES, unprivileged=True),
        lists(path, *MERGED),
    )


# A large one --------------------------------------------------------------------------------------


def large(which: int) -> Directory:
    """Of three layers, each shares names with each other one; names of several lengths."""
    entries: dict[str, Node] = {}
    for number in range(MANY):
        if number % 7 != which:
            entries[f"{number:03}-{'n' * (number % 60)}"] = File()
        elif which < 2 and number % 2:
            entries[f"{number:03}-{'n' * (number % 60)}"] = Whiteout()
    entries[f"only{which}"] = Directory()
    return Directory({"large": Directory(entries)})


def large_names() -> tuple[str, ...]:
    """What they show: a name is hidden if a whiteout is above all that have it."""
    shown = [
        f"{number:03}-{'n' * (number % 60)}"
        for number in range(MANY)
        if not (number % 7 == 0 and number % 2)  # a whiteout of the topmost layer
    ]
    return (*shown, "only0/", "only1/", "only2/")


def large_listed(n: Names) -> Operations:
    path, names = own(n) / "large", large_names()
    removed = names[:MANY:5]
    left = [name for name in names if name not in removed]
    return (
        lists(path, *names),
        lists(path, *names, size=SMALL),
        seeks(path, *names, step=17),
        start_listing(path, "d"),
        *(unlink(path / name) for name in removed),
        go_on_listing(path, "d", *left, unsure=removed),
        list_again(path, "d", *left),
        seeks(path, *left, step=19),
        *(make_file(path / name) for name in removed[::2]),
        lists(path, *left, *removed[::2], size=SMALL),
        rmtree(path),
        make_dir(path),
        lists(path),
    )


SCENARIOS = (
    *(how(kind) for how, kind in product((in_pieces, changed), KINDS)),
    Scenario("two listings at once", two_at_once),
    Scenario("directory moved while it is listed", moved_while_listed),
    Scenario("every type", all_types),
    Scenario("lower objects in a new directory", of_lower_objects),
    Scenario("not a directory, not allowed, no room", refused),
)

GROUPS = (
    Group(
        "listing",
        "List directories of every kind in pieces, and while names change.",
        SCENARIOS,
        lowers=(sets(len(SCENARIOS), upper_half), sets(len(SCENARIOS), lower_half)),
    ),
    Group(
        "listing-large",
        "List a large directory of three layers.",
        (Scenario("in pieces, changed, emptied", large_listed),),
        lowers=tuple(sets(1, partial(large, which)) for which in range(3)),
    ),
)
