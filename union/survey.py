# SPDX-License-Identifier: GPL-2.0-only
"""What a migration of a live overlay would have to copy, and what it could not, without a change to anything.

A listing of a directory of the union may mark it opaque, and a lookup in it may be remembered. So the union is not
touched at all: its layers are walked, and put together here in the way that overlayfs does it, by the marks in them
(whiteouts, opaque directories, redirects). They are opened with O_NOATIME, for reading, and nothing is read but
directories, xattrs and file flags.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from datasets.tree import IMMUTABLE
from union import syscalls
from union.errors import SetupError
from union.live import Live
from union.live_migration import Advance, flags_of, obstacle, state
from union.migrate import Leftover
from union.upper import ROOT

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME


@dataclass(slots=True)
class Survey:
    """What is to be done: `objects` that are not in the upper layer yet, or without their data, and their `bytes`.

    `seen` are all objects that a migration comes by. `merged` directories of the upper layer still have to be marked.
    `obstacles` are those that cannot be copied up as things are, and why; they are not counted among `objects`. `free`
    bytes are left on the upper layer's filesystem, None: no limit.
    """

    seen: int = 0
    objects: int = 0
    bytes: int = 0
    merged: int = 0
    obstacles: list[Leftover] = field(default_factory=list)
    free: int | None = None

    @property
    def room(self) -> bool:
        """Whether what is to be copied will fit, as far as that can be told beforehand."""
        return self.free is None or self.bytes <= self.free


def survey(live: Live, advance: Advance = lambda _: None) -> Survey:
    """Look through all layers of the overlay; `advance` is told of each object.

    Raises SetupError if a layer is not to be found from here.
    """
    for lower in live.lowers:
        try:
            os.stat(lower)
        except OSError as error:
            raise SetupError(
                f"{live.point}: its lower layer {lower} cannot be looked at: {error.strerror}; a dry run needs all of "
                "them: run it in the mount namespace and the directory in which the overlay was mounted"
            ) from error
    found = Survey(free=_free(live))
    done = state(live).done
    if ROOT not in done:
        _Surveyor(live, done, found, advance).run()
    return found


def _free(live: Live) -> int | None:
    state = os.statvfs(live.upper)
    return state.f_bavail * state.f_frsize if state.f_blocks else None


@dataclass(frozen=True, slots=True)
class _At:
    """A directory in one layer: the layer's number, 0 for the upper one, and the path in it."""

    layer: int
    path: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory of the union: its path, and the directories it is made of, the topmost first."""

    path: str
    parts: tuple[_At, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name in one layer."""

    at: _At
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class _Surveyor:
    """The walk through the layers."""

    def __init__(self, live: Live, done: frozenset[str], found: Survey, advance: Advance) -> None:
        self._live = live
        self._done = done
        self._roots = (str(live.upper), *map(str, live.lowers))
        self._found = found
        self._advance = advance
        self._indexed = live.options.get("index") == "on"
        self._links: set[tuple[int, int]] = set()
        self._prefix = f"{live.namespace}.overlay."

    def run(self) -> None:
        """Walk all of it."""
        roots = [_At(number, "") for number in range(len(self._roots))]
        waiting = [_Place(ROOT, tuple(self._until_opaque(roots)))]
        while waiting:
            waiting += self._directory(waiting.pop())

    def _until_opaque(self, parts: Sequence[_At]) -> Iterator[_At]:
        for part in parts:
            yield part
            if self._xattr(part, "opaque") == b"y":
                return

    def _directory(self, place: _Place) -> Iterator[_Place]:
        """Count what is in a directory; its subdirectories."""
        if place.parts[0].layer == 0 and len(place.parts) > 1:
            self._found.merged += 1
        names: dict[str, _Entry] = {}
        hidden: set[str] = set()
        for part in place.parts:
            for name, entry in self._list(place, part):
                if name in hidden or name in names:
                    continue
                if self._is_whiteout(entry, part):
                    hidden.add(name)
                else:
                    names[name] = entry
        for name, entry in names.items():
            self._found.seen += 1
            self._advance(1)
            path = name if place.path == ROOT else f"{place.path}/{name}"
            if entry.is_directory:
                yield from self._subdirectory(place, path, name, entry)
            else:
                self._file(path, entry)

    def _subdirectory(self, place: _Place, path: str, name: str, entry: _Entry) -> Iterator[_Place]:
        try:
            parts = tuple(self._stack(place, name, entry))
        except OSError as error:
            self._cannot(path, f"its layers cannot be looked up: {error.strerror}")
            return
        if all(part.layer == 0 for part in parts) and path in self._live.apart:
            return
        if path in self._live.apart:
            self._cannot(path, self._live.apart[path])
            return
        if entry.at.layer:
            self._found.objects += 1
        if path in self._done:
            return
        yield _Place(path, parts)

    def _stack(self, place: _Place, name: str, entry: _Entry) -> Iterator[_At]:
        """The directories that `name` is made of: those of the same name below, or where a redirect leads."""
        yield entry.at
        if self._xattr(entry.at, "opaque") == b"y":
            return
        below = [part for part in place.parts if part.layer > entry.at.layer]
        name, below = self._redirected(entry.at, name, below)
        while below:
            part, *below = below
            found = self._look(_At(part.layer, f"{part.path}/{name}"))
            if found is None:
                continue
            if not found.is_directory:
                return
            yield found.at
            if self._xattr(found.at, "opaque") == b"y":
                return
            name, below = self._redirected(found.at, name, below)

    def _redirected(self, at: _At, name: str, below: list[_At]) -> tuple[str, list[_At]]:
        """The name in the layers below, and in which directories of theirs."""
        redirect = os.fsdecode(self._xattr(at, "redirect"))
        if redirect and (self._live.options.get("redirect_dir") == "nofollow" or self._live.namespace == "user"):
            raise OSError(errno.EPERM, "it has a redirect, which this mount does not follow")
        if redirect.startswith("/"):
            return redirect[1:], [_At(number, "") for number in range(at.layer + 1, len(self._roots))]
        return redirect or name, below

    def _file(self, path: str, entry: _Entry) -> None:
        regular = stat.S_ISREG(entry.status.st_mode)
        if entry.at.layer == 0 and not (regular and self._has(entry.at, "metacopy")):
            return
        if path in self._live.apart:
            self._cannot(path, self._live.apart[path])
            return
        if entry.at.layer and regular and (why := self._unwilling(entry.at)):
            self._cannot(path, why)
            return
        self._found.objects += 1
        if regular and not self._known_link(entry.status):
            self._found.bytes += entry.status.st_size

    def _unwilling(self, at: _At) -> str:
        """Why a file of a lower layer cannot be copied up; nothing if it can."""
        try:
            fd = os.open(self._real(at), _FLAGS)
        except OSError as error:
            return f"cannot be opened: {error.strerror}"
        try:
            return obstacle(flags_of(fd) & IMMUTABLE)
        finally:
            os.close(fd)

    def _known_link(self, status: os.stat_result) -> bool:
        """Whether the data is that of another name, with which it stays shared."""
        key = status.st_dev, status.st_ino
        if not self._indexed or status.st_nlink == 1:
            return False
        known = key in self._links
        self._links.add(key)
        return known

    # layers

    def _list(self, place: _Place, part: _At) -> Iterator[tuple[str, _Entry]]:
        try:
            fd = os.open(self._real(part), _FLAGS | os.O_DIRECTORY)
            try:
                names = [entry.name for entry in syscalls.getdents(fd)]
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.ENOENT or part.layer:
                self._cannot(place.path, f"{self._real(part)} cannot be listed: {error.strerror}")
            return
        for name in names:
            if name not in (".", "..") and (found := self._look(_At(part.layer, f"{part.path}/{name}"))):
                yield name, found

    def _look(self, at: _At) -> _Entry | None:
        try:
            return _Entry(at, os.lstat(self._real(at)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _is_whiteout(self, entry: _Entry, part: _At) -> bool:
        """A device 0:0, or, in a directory that says so, an empty file with an xattr."""
        mode = entry.status.st_mode
        if stat.S_ISCHR(mode):
            return entry.status.st_rdev == 0
        marked = stat.S_ISREG(mode) and not entry.status.st_size and self._has(entry.at, "whiteout")
        return marked and self._xattr(part, "opaque") == b"x"

    def _xattr(self, at: _At, name: str) -> bytes:
        try:
            return os.getxattr(self._real(at), self._prefix + name, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT):
                return b""
            raise

    def _has(self, at: _At, name: str) -> bool:
        """Whether the mark is there; it may have no value."""
        try:
            os.getxattr(self._real(at), self._prefix + name, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT):
                return False
            raise
        return True

    def _real(self, at: _At) -> str:
        return f"{self._roots[at.layer]}/{at.path}"

    def _cannot(self, path: str, reason: str) -> None:
        self._found.obstacles.append(Leftover(path, reason))
