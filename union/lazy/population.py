# SPDX-License-Identifier: GPL-2.0-only
"""The content of a lazy lower: it arrives in the background, what somebody waits for before the rest.

Names, sizes and modes are there from the start, as with a table of contents. A thread of the daemon copies each file
from the image into a cache; until a file is there, who opens it waits.
"""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from union.fuse.server import Content
from union.lazy.image import Image
from union.lazy.plan import Rate

_FIELDS: Final = 3  # of a file: when it arrived, when it was asked for first, and by which process; 0 for not yet
_DOUBLE: Final = 8


class Stall(NamedTuple):
    """Somebody waited for a file: since when, for how long in seconds (None: it has not come), and which process."""

    path: str
    since: float
    seconds: float | None
    pid: int


class Population(Content):
    """Made before the daemon is forked, which fills it; how far it is can be seen on both sides."""

    def __init__(self, image: Image, cache: Path, rate: Rate) -> None:
        """Fill the directory `cache`, which exists and is empty, at `rate`."""
        self.files = [path for path, entry in image.items() if entry.is_file]
        self._sizes = [image[path].size for path in self.files]
        self._numbers = {path: number for number, path in enumerate(self.files)}
        self._cache = str(cache.absolute())
        self._rate = rate
        size = _DOUBLE * (1 + _FIELDS * len(self.files))
        shared = memoryview(mmap.mmap(-1, size)).cast("d")
        self._fault, self._times = shared[:1], shared[1:]
        self._wanted: list[int] = []
        self._lock = threading.Lock()

    # for who looks on

    def arrived(self) -> list[float]:
        """When the files came, in that order, as time.monotonic() says it."""
        return sorted(when for when in self._times[::_FIELDS].tolist() if when)

    @property
    def complete(self) -> bool:
        """Whether all is there."""
        return all(self._times[::_FIELDS].tolist())

    def stalls(self, but: Collection[int] = ()) -> list[Stall]:
        """What was waited for, by other processes than those in `but`."""
        found = []
        for number, path in enumerate(self.files):
            arrived, asked, pid = self._times[_FIELDS * number : _FIELDS * (number + 1)]
            if asked and pid not in but:
                found.append(Stall(path, asked, arrived - asked if arrived else None, int(pid)))
        return found

    def fault(self) -> str:
        """Why no more comes, empty if nothing is wrong."""
        number = int(self._fault[0])
        return f"the content of the image cannot be cached: {os.strerror(number)}" if number else ""

    # in the daemon

    def start(self, arrived: Callable[[], None]) -> None:
        """Begin to fill."""
        threading.Thread(target=self._fill, args=(arrived,), daemon=True).start()

    def populated(self, path: str, pid: int) -> bool:
        """Whether it is there; if not it comes next."""
        number = self._numbers[path]
        at = _FIELDS * number
        if self._times[at]:
            return True
        if not self._times[at + 1]:
            self._times[at + 1], self._times[at + 2] = time.monotonic(), pid
            with self._lock:
                self._wanted.append(number)
        return False

    def open(self, path: str) -> int:
        """Its copy in the cache."""
        return os.open(f"{self._cache}/{self._numbers[path]}", os.O_RDONLY)

    def _fill(self, arrived: Callable[[], None]) -> None:
        pace = threading.Event()
        free = time.monotonic()  # when what the image comes by has nothing to carry any more
        try:
            for number in self._order(range(len(self.files))):
                free = max(free, time.monotonic()) + self._rate.seconds(self._sizes[number])
                pace.wait(free - time.monotonic())  # nothing is awaited: this is how slow it is
                temporary = f"{self._cache}/new"
                shutil.copyfile(self.files[number], temporary, follow_symlinks=False)
                os.rename(temporary, f"{self._cache}/{number}")
                self._times[_FIELDS * number] = time.monotonic()
                arrived()
        except OSError as error:
            self._fault[0] = error.errno or 0

    def _order(self, background: Sequence[int]) -> Iterator[int]:
        done: set[int] = set()
        rest = iter(background)
        while len(done) < len(background):
            with self._lock:
                number = self._wanted.pop(0) if self._wanted else next(rest)
            if number not in done:
                done.add(number)
                yield number
