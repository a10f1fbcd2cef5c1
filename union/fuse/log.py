# SPDX-License-Identifier: GPL-2.0-only
"""The log of all requests that a FUSE lower got, in memory that it shares with its reader.

What was asked can still be read when the daemon hangs or is dead, and a request is in the log before it is answered:
when an operation has returned, all that it asked of the lower is there.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from union.errors import SetupError
from union.fuse.wire import HOUSEKEEPING, Op

SIZE: Final = 1 << 28  # bytes, of which only what is written takes memory
_USED: Final = struct.Struct("=Q")
_RECORD: Final = struct.Struct("=dIHH")  # time, pid, operation, length of the path that follows


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its operation, the path it is about, relative to the root of the lower ("." is the root itself).

    `pid` is the process in whose name the kernel asked, 0 for the kernel itself; `time` is that of time.monotonic().
    """

    operation: str
    path: str
    pid: int
    time: float
    matters: bool

    def __str__(self) -> str:
        return f"{self.operation} {self.path} by process {self.pid}"


class RequestLog:
    """Written by the daemon, read by anybody who has it from before the fork."""

    def __init__(self) -> None:
        """Raises OSError when there is no memory for it."""
        fd = os.memfd_create("requests")
        try:
            os.ftruncate(fd, SIZE)
            self._memory = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._end = _USED.size
        _USED.pack_into(self._memory, 0, self._end)

    def write(self, operation: int, path: str, pid: int) -> None:
        """Add a request. Only one process may write, and none but it has what is written in `position` at once.

        Raises SetupError when the log is full.
        """
        raw = os.fsencode(path)
        end = self._end + _RECORD.size + len(raw)
        if end > SIZE:
            raise SetupError("the request log is full")
        _RECORD.pack_into(self._memory, self._end, time.monotonic(), pid, operation, len(raw))
        self._memory[self._end + _RECORD.size : end] = raw
        self._end = end
        _USED.pack_into(self._memory, 0, end)

    @property
    def position(self) -> int:
        """Where the next request will be."""
        used: int = _USED.unpack_from(self._memory)[0]
        return used

    def since(self, position: int = _USED.size, *, housekeeping: bool = False) -> Iterator[Asked]:
        """The requests from `position` on, the oldest first; with `housekeeping` also what calls no method."""
        yield from self._between(position, self.position, housekeeping)

    def until(self, position: int) -> Iterator[Asked]:
        """The requests before `position` that call a method."""
        yield from self._between(_USED.size, position, housekeeping=False)

    def _between(self, position: int, end: int, housekeeping: bool) -> Iterator[Asked]:
        while position < end:
            when, pid, number, length = _RECORD.unpack_from(self._memory, position)
            start = position + _RECORD.size
            position = start + length
            matters = number not in HOUSEKEEPING
            if matters or housekeeping:
                path = os.fsdecode(self._memory[start:position])
                yield Asked(_name(number), path, pid, when, matters)


def _name(number: int) -> str:
    try:
        return Op(number).name
    except ValueError:
        return f"operation {number}"
