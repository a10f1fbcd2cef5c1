# SPDX-License-Identifier: GPL-2.0-only
"""Operations that list directories: whole, in small pieces, from remembered positions, while names change.

What a listing gives is one text: the entries as `ls -F` marks them, in alphabetical order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from union import namecalls
from union.namecalls import Cookie
from union.names import Name
from union.operations.attributes import Spelled
from union.operations.base import Held, Result, Value, acting_as

LARGE = 32 * 1024
SMALL = 300  # bytes: one entry with the longest name, or some ten short ones
MARKS = {1: "|", 2: "%", 4: "/", 6: "#", 8: "", 10: "@", 12: "="}  # by d_type
_OPEN = os.O_RDONLY | os.O_DIRECTORY


def spelled(entries: Iterable[str]) -> str:
    """Marked entries as the text that stands for a listing; `./` and `../` are added."""
    return ", ".join(map(repr, sorted([*entries, "./", "../"])))


def marked(name: str, type: int) -> str:
    """An entry with its mark; an unknown d_type is shown as a number."""
    return name + MARKS.get(type, f" (d_type {type})")


def _told(entries: Iterable[Cookie], unsure: Collection[str] = ()) -> str:
    """What was listed, repeats included but for names of `unsure`, which may come once or not at all."""
    counts = Counter(marked(entry.name, entry.type) for entry in entries)
    shown = [
        name for name, count in counts.items()
        for _ in range(count if name.rstrip("/@|=%#") not in unsure else count - 1)
    ]  # fmt: skip
    return ", ".join(map(repr, sorted(shown)))


def _read(fd: int, size: int) -> list[Cookie]:
    """All entries from the present position on."""
    entries: list[Cookie] = []
    while some := namecalls.getdents(fd, size):
        entries += some
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDirectory(Spelled):
    """getdents64(2) over the whole directory, with a buffer of `size` bytes."""

    word: ClassVar[str] = "list"
    lists: str | None = None
    size: int = LARGE

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.lists)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            fd = os.open(f"{root}/{self.path}", _OPEN)
        try:
            return _told(_read(fd, self.size))
        finally:
            os.close(fd)

    def details(self) -> list[str]:
        return [] if self.size == LARGE else [f"buffer={self.size}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeekInDirectory(Spelled):
    """telldir(3) and seekdir(3): list it all, then go back to positions and list the rest again.

    Gives the listing if each rest is what it was, else what was not. Every `step`-th position is tried, the
    last one first, in the same open directory.
    """

    word: ClassVar[str] = "seekdir"
    lists: str | None = None
    step: int = 1

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.lists)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            fd = os.open(f"{root}/{self.path}", _OPEN)
        try:
            entries = _read(fd, SMALL)
            for index in reversed(range(0, len(entries), self.step)):
                os.lseek(fd, entries[index].after, os.SEEK_SET)
                rest = _read(fd, LARGE)
                if rest != entries[index + 1 :]:
                    return f"behind {entries[index].name!r} came {_told(rest)}"
            os.lseek(fd, 0, os.SEEK_SET)
            again = _read(fd, LARGE)
            return _told(again) if again == entries else f"the same directory, rewound, gave {_told(again)}"
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeekBeyond(Spelled):
    """lseek(2) on a directory where there is no entry: `whence` and `position` as given; the answer is the errno."""

    word: ClassVar[str] = "lseek"
    position: int
    whence: int

    def call(self, root: str, held: Held) -> Value:
        fd = os.open(f"{root}/{self.path}", _OPEN)
        try:
            os.lseek(fd, self.position, self.whence)
        finally:
            os.close(fd)
        return None

    def details(self) -> list[str]:
        return [str(self.position), str(self.whence)]


@dataclass(slots=True)
class Listing:
    """An open directory and what it gave since it was opened or rewound."""

    fd: int
    entries: list[Cookie]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartListing(Spelled):
    """Open a directory, read its first entries with a small buffer, and hold it under `name`."""

    word: ClassVar[str] = "start-listing"
    name: str

    def call(self, root: str, held: Held) -> Value:
        fd = os.open(f"{root}/{self.path}", _OPEN)
        listing = Listing(fd, [])
        held.keep(self.name, listing, lambda: os.close(fd))
        listing.entries += namecalls.getdents(fd, SMALL)
        return None

    def details(self) -> list[str]:
        return [self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOnListing(Spelled):
    """Read a held directory to its end: all that it gave since it was opened, or since now if it is rewound.

    The `unsure` names were added or removed meanwhile: readdir(3) leaves open whether they are listed.
    """

    word: ClassVar[str] = "go-on-listing"
    name: str
    lists: str | None = None
    unsure: frozenset[str] = frozenset()
    rewind: bool = False

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.lists)

    def call(self, root: str, held: Held) -> Value:
        listing: Listing = held.get(self.name)
        if self.rewind:
            os.lseek(listing.fd, 0, os.SEEK_SET)
            listing.entries.clear()
        listing.entries += _read(listing.fd, SMALL)
        return _told(listing.entries, self.unsure)

    def details(self) -> list[str]:
        return [self.name, *(["--rewind"] if self.rewind else [])]


# What scenarios are written with ------------------------------------------------------------------


def lists(path: Name, *entries: str, size: int = LARGE, unprivileged: bool = False) -> ListDirectory:
    """The directory holds these entries, marked as by `ls -F`, and no others."""
    return ListDirectory(path=path, lists=spelled(entries), size=size, unprivileged=unprivileged)


def cannot_list(path: Name, fails: int, *, unprivileged: bool = False) -> ListDirectory:
    return ListDirectory(path=path, fails=fails, unprivileged=unprivileged)


def seeks(path: Name, *entries: str, step: int = 1) -> SeekInDirectory:
    """From any position in the directory the same entries follow, of these."""
    return SeekInDirectory(path=path, lists=spelled(entries), step=step)


def lseek(path: Name, position: int, whence: int, fails: int = 0) -> SeekBeyond:
    return SeekBeyond(path=path, position=position, whence=whence, fails=fails)


def start_listing(path: Name, name: str) -> StartListing:
    return StartListing(path=path, name=name)


def go_on_listing(path: Name, name: str, *entries: str, unsure: Collection[str] = ()) -> GoOnListing:
    """Read to the end, `path` held as `name` gave these entries; the `unsure` names may be among them."""
    return GoOnListing(path=path, name=name, lists=spelled(entries), unsure=frozenset(unsure))


def list_again(path: Name, name: str, *entries: str) -> GoOnListing:
    """Rewound, `path` held as `name` gives exactly these entries."""
    return replace(go_on_listing(path, name, *entries), rewind=True)
