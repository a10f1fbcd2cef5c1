# SPDX-License-Identifier: GPL-2.0-only
"""renameat2(2) with flags: every kind of object against every other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EEXIST, EINVAL, ENOENT
from itertools import product

from datasets.tree import Directory, File, Symlink
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.namecalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from union.names import Name, Names
from union.operations import (
    CREAT,
    OpenFile,
    Operation,
    W,
    exchange,
    lists,
    make_dir,
    readlink,
    rename_flags,
    rename_noreplace,
)
from union.scenario import Group, Scenario, When

Operations = Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its name, what makes it, and how one sees that it is there. There are two of each."""

    words: str
    stem: str
    seen: Callable[[Name, str], Operations]
    make: Callable[[Name, str], Operations] = lambda _path, _which: ()


def new_file(path: Name, which: str) -> OpenFile:
    return OpenFile(path=path, flags=W | CREAT, mode=0o644, writes=which.encode())


def file_seen(path: Name, which: str) -> Operations:
    return (holds(path, which.encode()),)


KINDS = (
    Kind("lower file", "file", file_seen),
    Kind("new file", "newfile", file_seen, lambda path, which: (new_file(path, which),)),
    Kind(
        "lower directory",
        "dir",
        lambda path, which: (lists(path, "sub/", f"in{which}"), holds(path / "sub/deep", which.encode())),
    ),
    Kind(
        "new directory",
        "newdir",
        lambda path, which: (lists(path, f"in{which}"), holds(path / f"in{which}", which.encode())),
        lambda path, which: (make_dir(path), new_file(path / f"in{which}", which)),
    ),
    Kind("symlink", "link", lambda path, which: (readlink(path, reads=f"to{which}"),)),
)


def objects(which: str) -> dict[str, File | Directory | Symlink]:
    """The lower ones of the kinds, with something of their own in each."""
    content = File(which.encode())
    return {
        f"file{which}": content,
        f"dir{which}": Directory({f"in{which}": content, "sub": Directory({"deep": content})}),
        f"link{which}": Symlink(f"to{which}"),
    }


def tree() -> Directory:
    return Directory({
        **objects("1"), **objects("2"), "one": Directory(objects("1")), "two": Directory(objects("2")),
    })  # fmt: skip


def pair(n: Names, across: bool, source: Kind, target: Kind) -> tuple[Name, Name]:
    """Names of the first of one kind and the second of the other, in one directory or in two."""
    one, two = (own(n) / "one", own(n) / "two") if across else (own(n), own(n))
    return one / f"{source.stem}1", two / f"{target.stem}2"


def exchanged(source: Kind, target: Kind, across: bool) -> Scenario:
    def script(n: Names) -> Operations:
        first, second = pair(n, across, source, target)
        return (
            *source.make(first, "1"),
            *target.make(second, "2"),
            exchange(first, second),
            *target.seen(first, "2"),
            *source.seen(second, "1"),
            exchange(first, second),
            *source.seen(first, "1"),
            *target.seen(second, "2"),
        )

    return Scenario(f"{source.words} and {target.words}", script)


def exchanged_with_nothing(source: Kind, across: bool) -> Scenario:
    def script(n: Names) -> Operations:
        first, second = pair(n, across, source, source)
        missing = Name(f"{second}-missing")
        return (
            *source.make(first, "1"),
            exchange(first, missing, ENOENT),
            exchange(missing, first, ENOENT),
            *source.seen(first, "1"),
            absent(missing),
        )

    return Scenario(f"{source.words} and nothing", script)


def not_replaced(source: Kind, target: Kind) -> Scenario:
    def script(n: Names) -> Operations:
        first, second = pair(n, True, source, target)
        return (
            *source.make(first, "1"),
            *target.make(second, "2"),
            rename_noreplace(first, second, EEXIST),
            *source.seen(first, "1"),
            *target.seen(second, "2"),
        )

    return Scenario(f"{source.words} onto {target.words}", script)


def moved(source: Kind) -> Scenario:
    def script(n: Names) -> Operations:
        first, second = pair(n, True, source, source)
        free, beside = Name(f"{second}-free"), Name(f"{first}-free")
        return (
            *source.make(first, "1"),
            rename_noreplace(first, free),
            rename_noreplace(first, free, ENOENT),
            *source.seen(free, "1"),
            rename_noreplace(free, first),
            rename_noreplace(first, beside),
            *source.seen(beside, "1"),
            absent(first),
        )

    return Scenario(f"{source.words} onto free names", script)


def whited_out(source: Kind) -> Scenario:
    def script(n: Names) -> Operations:
        first, second = pair(n, True, source, source)
        free = Name(f"{second}-free")
        return (
            *source.make(first, "1"),
            rename_flags(first, free, RENAME_WHITEOUT, EINVAL),
            rename_flags(first, free, RENAME_WHITEOUT | RENAME_NOREPLACE, EINVAL),
            rename_flags(first, free, RENAME_WHITEOUT | RENAME_EXCHANGE, EINVAL),
            rename_flags(first, free, RENAME_NOREPLACE | RENAME_EXCHANGE, EINVAL),
            *source.seen(first, "1"),
            absent(free),
        )

    return Scenario(source.words, script)


def inside_itself(n: Names) -> Operations:
    directory = own(n) / "dir1"
    return (
        exchange(directory, directory / "sub", EINVAL),
        exchange(directory / "sub/deep", directory, EINVAL),
        rename_noreplace(directory, directory / "sub/new", EINVAL),
        exchange(directory, directory),
        lists(directory, "in1", "sub/"),
        holds(directory / "sub/deep", b"1"),
    )


def round_three_layers_of_names(n: Names) -> Operations:
    one, two, three = own(n) / "dir1", own(n) / "two/dir2", own(n) / "dir1/sub"
    return (
        exchange(three, two),
        lists(one, "in1", "sub/"),
        lists(three, "in2", "sub/"),
        lists(two, "deep"),
        exchange(one, two),
        lists(one, "deep"),
        lists(two, "in1", "sub/"),
        holds(two / "sub/sub/deep", b"2"),
    )


def group(name: str, sentence: str, *scenarios: Scenario, overlay_alone: bool = False) -> Group:
    lowers = (sets(len(scenarios), tree),)
    when = When.DIRECTORY_RENAMES
    return Group(name, sentence, scenarios, when=when, lowers=lowers, overlay_alone=overlay_alone)


GROUPS = (
    group(
        "rename-exchange",
        "Exchange two objects of any kinds in one directory, and back.",
        *(exchanged(source, target, False) for source, target in product(KINDS, KINDS)),
        *(exchanged_with_nothing(kind, False) for kind in KINDS),
    ),
    group(
        "rename-exchange-across",
        "Exchange two objects of any kinds in two directories, and back.",
        *(exchanged(source, target, True) for source, target in product(KINDS, KINDS)),
        Scenario("directory and what is in it", inside_itself),
        Scenario("directory and one at another depth", round_three_layers_of_names),
    ),
    group(
        "rename-noreplace",
        "Rename without replacing: onto free names and onto every kind of object.",
        *(not_replaced(source, target) for source, target in product(KINDS, KINDS)),
        *(moved(kind) for kind in KINDS),
    ),
    group(
        "rename-whiteout",
        "Ask an overlay for a whiteout, and for flags that contradict each other.",
        *(whited_out(kind) for kind in KINDS),
        overlay_alone=True,
    ),
)
