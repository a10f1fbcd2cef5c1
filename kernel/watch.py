# SPDX-License-Identifier: GPL-2.0-only
"""Watches a guest to its end, whatever runs it: passes its output on, keeps the limits, says how it ended."""

from __future__ import annotations

import os
import re
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kernel.console import Console
from kernel.feed import Feed
from kernel.guest import GuestResult, Outcome, Sink

POWER_OFF_LIMIT = 10.0
"""Seconds that a guest gets to power off, and a killed one to be gone."""
_FAULT_LIMIT = 0.3  # seconds for the rest of what the kernel has to say about a fault


class Channels(Protocol):
    """What holds a guest: `pipes` are our ends of its channels, by name."""

    @property
    def pipes(self) -> dict[str, int]:
        """`console`, `status`, `out`, `err` and `answers` are read, `feed` is written to; see `init.py`."""

    def kill(self) -> None:
        """Ask for the end of every process of the guest; harmless when they are gone."""


@dataclass(frozen=True)
class Use:
    """What the caller of `run` wants of the channels; limits are in seconds, and `scale` times as long in effect.

    `end` marks the end of stdout and of stderr; a guest that has one is ended when both and the status are there.
    """

    time_limit: float | None
    boot_limit: float
    on_stdout: Sink
    on_stderr: Sink
    stdin: int | None
    end_at_fault: bool
    scale: float = 1
    end: bytes = b""


class Watch:
    """Reads the channels of a guest until it is over and judges how it ended."""

    def __init__(self, process: Channels, console: Console, use: Use) -> None:
        self._process = process
        self._console = console
        self._use = use
        self._begin = time.monotonic()
        self._booted: float | None = None
        self._cpus: int | None = None
        self._ended = 0.0
        self._status: int | None = None
        self._said = b""
        self._out_of_time = False
        self._limit: float | None = None  # when the guest must have said another one
        self._fault: float | None = None  # when the kernel reported it
        self._feed = None if use.stdin is None else Feed(use.stdin, process.pipes["feed"])
        self._ends: list[UntilMark] = []
        self._sinks: dict[str, Callable[[bytes], object]] = {
            "console": self._take_console,
            "status": self._take_status,
            "out": self._ending(self._take_output),
            "err": self._ending(use.on_stderr),
            "answers": self._feed.acknowledged if self._feed else discard,
        }

    def until_over(self) -> None:
        """Pass output and input on until every channel is closed; kill a guest that passes a limit."""
        # In this order: what the console tells comes before what a broken kernel lets out.
        order = {self._process.pipes[name]: place for place, name in enumerate(self._sinks)}
        # poll, as input can come from a file or the empty device, which epoll does not take.
        with selectors.PollSelector() as selector:
            for name, sink in self._sinks.items():
                selector.register(self._process.pipes[name], selectors.EVENT_READ, sink)
            killed: float | None = None
            while order:
                deadline = killed or self._deadline()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    if killed:
                        break
                    self._out_of_time = self._status is None and self._fault is None
                    self._process.kill()
                    killed = time.monotonic() + POWER_OFF_LIMIT
                    continue
                if self._feed:
                    self._feed.listen(selector, self._booted is not None and self._status is None)
                for key, _ in sorted(selector.select(left), key=lambda event: order.get(event[0].fd, len(order))):
                    if key.fd not in order:
                        key.data()
                    elif data := _read(key.fd):
                        key.data(data)
                    else:
                        selector.unregister(key.fd)
                        del order[key.fd]
                if self._ends and self._complete() and not killed:
                    self._process.kill()
                    killed = time.monotonic() + POWER_OFF_LIMIT
        for end in self._ends:
            end.finish()
        self._console.finish()

    def result(self) -> GuestResult:
        """The verdict; panic and fault come before all else, as they explain the rest."""
        console = self._console
        reason = console.hint or ""
        if self._booted is None:
            outcome = Outcome.NOT_BOOTED
            reason = reason or console.panic or console.last()
        elif console.panic:
            outcome, reason = Outcome.PANIC, console.panic
        elif console.oops:
            outcome, reason = Outcome.OOPS, console.oops
        elif console.restarting:
            outcome, reason = Outcome.LOST, "it restarted"
        elif self._complete():
            outcome = Outcome.EXITED
        else:
            outcome = Outcome.HANG if self._out_of_time else Outcome.LOST
        return GuestResult(
            outcome, self._status, console.tail(), console.log, self._booted, self._since_begin(), reason, self._cpus
        )

    def _ending(self, sink: Callable[[bytes], object]) -> Callable[[bytes], object]:
        if not self._use.end:
            return sink
        self._ends.append(UntilMark(sink, self._use.end))
        return self._ends[-1]

    def _complete(self) -> bool:
        """Whether the command has ended and all that it wrote is here."""
        return self._status is not None and all(end.seen for end in self._ends)

    def _deadline(self) -> float | None:
        if self._fault is not None:
            return self._fault + _FAULT_LIMIT
        if self._status is not None:
            return self._ended + POWER_OFF_LIMIT
        if self._booted is None:
            return self._begin + self._use.boot_limit * self._use.scale
        limits = [self._limit] if self._limit is not None else []
        if self._use.time_limit is not None:
            limits.append(self._begin + self._booted + self._use.time_limit * self._use.scale)
        return min(limits, default=None)

    def _take_output(self, data: bytes) -> None:
        self._ended = time.monotonic()  # what is still on its way keeps the guest
        if self._fault is None:
            self._use.on_stdout(data)

    def _take_console(self, data: bytes) -> None:
        self._console.add(data)
        if self._use.end_at_fault and self._fault is None and (self._console.oops or self._console.panic):
            self._fault = time.monotonic()
        if self._console.restarting or self._console.stuck:
            # A UML kernel that is told to restart executes itself: nobody asked for a second run.
            self._process.kill()

    def _take_status(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            if found := re.fullmatch(rb"started (\d+)", line):
                self._booted = self._since_begin()
                self._cpus = int(found[1])
            elif found := re.fullmatch(rb"limit (\d{1,6})", line):
                self._limit = time.monotonic() + int(found[1]) * self._use.scale if int(found[1]) else None
            elif found := re.fullmatch(rb"exit (\d+)", line):
                self._status = int(found[1])
                self._ended = time.monotonic()

    def _since_begin(self) -> float:
        return time.monotonic() - self._begin


class UntilMark:
    """Passes bytes on to `sink` up to `mark`, of which nothing gets through, however the bytes are cut."""

    def __init__(self, sink: Callable[[bytes], object], mark: bytes) -> None:
        self.seen = False
        self._sink = sink
        self._mark = mark
        self._held = b""

    def __call__(self, data: bytes) -> None:
        """Take the next bytes."""
        data, found, _ = (self._held + data).partition(self._mark)
        self.seen = self.seen or bool(found)
        most = 0 if found else min(len(data), len(self._mark) - 1)
        held = next((size for size in range(most, 0, -1) if data.endswith(self._mark[:size])), 0)
        self._held = data[len(data) - held :]
        if ready := data[: len(data) - held]:
            self._sink(ready)

    def finish(self) -> None:
        """There is no more: what looked like the mark was none."""
        if self._held:
            self._sink(self._held)
            self._held = b""


def _read(fd: int) -> bytes:
    """What there is to read, nothing at the end; a socket ends like that too when its other end left input unread."""
    try:
        return os.read(fd, 1 << 16)
    except ConnectionResetError:
        return b""


def discard(_: bytes) -> None:
    """The sink of what nobody wants."""
