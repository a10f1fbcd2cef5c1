# SPDX-License-Identifier: GPL-2.0-only
"""rename(2) of one name: the scenarios that are the same for whatever is renamed.

A `Source` says what is renamed; each function below is one scenario told about it. Files and
directories, new ones and lower ones, empty and populated ones differ only in what rmdir and unlink
say to them and in how one sees that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EISDIR, ENOENT, ENOTDIR, ENOTEMPTY
from typing import Protocol

from tests.union.phrases import absent_dir
from union.names import Name, Names
from union.operations import Operation, open_dir, rename, rmdir, unlink
from union.scenario import Scenario

Operations = Sequence[Operation]


class Removal(Protocol):
    """`rmdir` or `unlink`."""

    __name__: str

    def __call__(self, path: Name, fails: int = 0) -> Operation: ...


def nothing(_: Name) -> Operations:
    """Nothing to make, no child to read."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is renamed, how to look at it under whatever name it has, and what removes it."""

    old: Callable[[Names], Name]
    new: Callable[[Names], Name]
    there: Callable[[Name], Operation]
    gone: Callable[[Name], Operation]
    removal: Removal
    removal_fails: int = 0
    wrong: Removal
    wrong_fails: int
    make: Callable[[Name], Operations] = nothing
    children: Callable[[Name], Operations] = nothing


def directory(
    old: Callable[[Names], Name],
    *,
    removal_fails: int = 0,
    make: Callable[[Name], Operations] = nothing,
    children: Callable[[Name], Operations] = nothing,
) -> Source:
    """A directory as a source."""
    return Source(
        old=old,
        new=lambda n: n.nodir,
        there=open_dir,
        gone=absent_dir,
        removal=rmdir,
        removal_fails=removal_fails,
        wrong=unlink,
        wrong_fails=EISDIR,
        make=make,
        children=children,
    )


def between_two_names(source: Source) -> tuple[Scenario, ...]:
    """The first six scenarios of every source."""
    return (
        there_and_back(source),
        removed_meanwhile(source, source.removal, source.removal_fails),
        removed_meanwhile(source, source.wrong, source.wrong_fails),
        removed_first(source),
        wrong_removal_first(source),
        two_hops(source),
    )


def there_and_back(source: Source) -> Scenario:
    """Each rename is tried again at once: the name it left is absent."""

    def script(n: Names) -> Operations:
        old, new = ~source.old(n), ~source.new(n)
        return (
            *source.make(old),
            rename(old, new),
            rename(old, new, ENOENT),
            rename(new, old),
            rename(new, old, ENOENT),
            source.there(old),
            source.gone(new),
            *source.children(source.old(n)),
        )

    return Scenario("there and back", script)


def removed_meanwhile(source: Source, remove: Removal, fails: int) -> Scenario:
    """While it is away its old name cannot be removed; back, it can unless `remove` fails anyway."""

    def script(n: Names) -> Operations:
        old, new = ~source.old(n), ~source.new(n)
        back = (
            *source.make(old),
            rename(old, new),
            remove(old, ENOENT),
            rename(new, old),
            rename(new, old, ENOENT),
            source.there(old),
            remove(old, fails),
        )
        if fails:
            return *back, source.there(old), source.gone(new), *source.children(source.old(n))
        return *back, remove(old, ENOENT), source.gone(old), source.gone(new)

    return Scenario(f"there, {remove.__name__} of the old name, back, {remove.__name__}", script)


def removed_first(source: Source) -> Scenario:
    """Removed, there is nothing to rename; what cannot be removed is renamed, and still cannot be."""

    def script(n: Names) -> Operations:
        old, new = ~source.old(n), ~source.new(n)
        remove, fails = source.removal, source.removal_fails
        return (
            *source.make(old),
            remove(old, fails),
            rename(old, new, 0 if fails else ENOENT),
            remove(old, ENOENT),
            remove(new, fails or ENOENT),
            *(source.children(source.new(n)) if fails else ()),
        )

    return Scenario("removal refused first and after" if source.removal_fails else "removed first", script)


def wrong_removal_first(source: Source) -> Scenario:
    """rmdir of a file or unlink of a directory is refused; renamed, the right call is made."""

    def script(n: Names) -> Operations:
        old, new = ~source.old(n), ~source.new(n)
        return (
            *source.make(old),
            source.wrong(old, source.wrong_fails),
            rename(old, new),
            source.wrong(old, ENOENT),
            source.removal(new, source.removal_fails),
            *(source.children(source.new(n)) if source.removal_fails else ()),
        )

    label = f"{source.wrong.__name__} refused first, {source.removal.__name__} of the new name"
    return Scenario(label, script)


def two_hops(source: Source) -> Scenario:
    """Renamed, and renamed on; each hop is tried again."""

    def script(n: Names) -> Operations:
        old, new = ~source.old(n), ~source.new(n)
        further = source.new(n) + "x"
        return (
            *source.make(old),
            rename(old, new),
            rename(old, new, ENOENT),
            rename(new, ~further),
            rename(new, ~further, ENOENT),
            source.gone(old),
            source.gone(new),
            source.there(~further),
            *source.children(further),
        )

    return Scenario("two hops", script)


def onto_empty_directory(source: Source) -> Scenario:
    """An empty lower directory gives way to a directory."""
    return Scenario(
        "onto an empty lower directory",
        lambda n: (
            *source.make(~source.old(n)),
            rename(~source.old(n), ~n.empty),
            source.gone(~source.old(n)),
            source.there(~n.empty),
            *source.children(n.empty),
        ),
    )


def onto_itself(source: Source) -> Scenario:
    """A rename that changes nothing succeeds."""
    return Scenario(
        "onto itself",
        lambda n: (
            *source.make(~source.old(n)),
            rename(~source.old(n), ~source.old(n)),
            source.there(~source.old(n)),
            *source.children(source.old(n)),
        ),
    )


Targets = Callable[[Names], Sequence[tuple[Name, int]]]
"""Targets that refuse the rename, each with its errno."""


def refused(
    source: Source, label: str, targets: Targets, after: Callable[[Names], Operations] = lambda _: ()
) -> Scenario:
    """No target takes it; it stays where it is."""
    return Scenario(
        label,
        lambda n: (
            *source.make(~source.old(n)),
            *(rename(~source.old(n), target, fails) for target, fails in targets(n)),
            source.there(~source.old(n)),
            *source.children(source.old(n)),
            *after(n),
        ),
    )


def onto_populated_directory(source: Source) -> Scenario:
    """A populated lower directory does not give way."""
    return refused(
        source,
        "onto a populated lower directory",
        lambda n: ((~n.dir, ENOTEMPTY),),
        after=lambda n: (open_dir(~n.dir),),
    )


def onto_its_holder(source: Source) -> Scenario:
    """The directory that holds it is not empty, whatever it is."""
    return refused(source, "onto the directory that holds it", lambda n: ((n.top, ENOTEMPTY),))


def onto_files(source: Source) -> Scenario:
    """A file does not give way to a directory, here and in another directory."""
    return refused(
        source,
        "onto a lower file here and in another directory",
        lambda n: ((~n.reg, ENOTDIR), (~n.dir / "a", ENOTDIR)),
    )
