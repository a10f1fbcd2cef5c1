# SPDX-License-Identifier: GPL-2.0-only
"""Memory that runs out: each allocation of a system call fails once, and the union must stand it.

The kernel counts the slab allocations of a task and fails the one that `fail-nth` names, see
Documentation/fault-injection/fault-injection.rst. Nothing else is asked of it: no probability, no other task.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from datasets.tree import Directory
from union import syscalls
from union.portrait import Portrait, differences, portrait
from union.stand import Missing, Stand, errno_name

FAIL_NTH: Final = "/proc/thread-self/fail-nth"
MOST: Final = 400  # allocations of one call
BATCH: Final = 24

Call = Callable[[str], object]
"""What is done to the union mounted at the path; its result is compared with that of an undisturbed call."""


class Met(NamedTuple):
    """How a call went: the errno (0: none), its result, and whether the allocation that was to fail was asked for."""

    error: int
    result: object
    reached: bool


class Injector(Protocol):
    """What lets the n-th allocation of a call fail; `unit` is what is allocated."""

    unit: str

    def call(self, number: int, call: Callable[[], object]) -> Met:
        """Make the call; its `number`-th allocation, from 1, fails."""


class Slab:
    """The kernel's own injector; what it set is undone with the stand. Raises Missing if the kernel lacks it."""

    unit = "allocation"

    def __init__(self, stand: Stand) -> None:
        try:
            self._nth = os.open(FAIL_NTH, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Missing("a kernel that can let allocations fail (CONFIG_FAULT_INJECTION)") from None
        stand.undo(lambda: os.close(self._nth))
        debug = stand.root / "debugfs"
        debug.mkdir()
        try:
            syscalls.mount("none", debug, "debugfs")
        except OSError:
            raise Missing("a kernel with debugfs") from None
        stand.undo(lambda: syscalls.umount(debug))
        if not (debug / "failslab").is_dir():
            raise Missing("a kernel whose slab allocations can fail (CONFIG_FAILSLAB)")
        # Nearly all allocations may wait for memory, and those are spared otherwise. A trace of each would hide
        # what else the kernel says.
        for name, value in (("ignore-gfp-wait", "N"), ("verbose", "0")):
            self._set(stand, debug / "failslab" / name, value)

    def _set(self, stand: Stand, knob: Path, value: str) -> None:
        before = knob.read_text()
        knob.write_text(value)
        stand.undo(lambda: knob.write_text(before) and None)

    def call(self, number: int, call: Callable[[], object]) -> Met:
        """Nothing is between the two system calls that could ask for memory."""
        armed, nth, write_at = b"%d" % number, self._nth, os.pwrite
        result, failed = None, 0
        write_at(nth, armed, 0)
        try:
            result = call()
        except OSError as error:
            failed = error.errno or errno.EIO
        finally:
            left = int(os.pread(nth, 16, 0))
            write_at(nth, b"0", 0)
        return Met(failed, result, left == 0)


@dataclass(frozen=True, slots=True)
class Disturbed:
    """A call that is repeated with each of its allocations failing once.

    Each time it gets a directory of its own in the union, on which the layers hold `lower`, `middle` (none if None)
    and `upper`. `before` is done to it first, undisturbed. `errors` are the errnos, beside success, that the call may
    fail with. `settle` is done afterwards, undisturbed, before the union is looked at; `kept` is what must then hold
    of the upper directory, as after an undisturbed call.
    """

    call: Call
    lower: Directory
    upper: Directory | None = None
    middle: Directory | None = None
    options: str = ""
    before: Call | None = None
    errors: tuple[int, ...] = (errno.ENOMEM, errno.ENOSPC)  # the latter from a tmpfs that can make no inode
    settle: Call | None = None
    kept: Call | None = None


def each_allocation(stand: Stand, injector: Injector, what: Disturbed) -> int:
    """Let each allocation of the call fail once, on names with cold caches each time; how many there were.

    After a failure the union must be as before or as after the call, wholly; the call must then succeed; and a new
    mount of the same layers must show the same.
    """
    told = len(stand.steps)
    number = failures = 0
    reached = True
    while reached and number < MOST and not stand.complaints:
        batch = _Batch(stand, injector, what, number)
        for _ in range(BATCH):
            number += 1
            met = batch.once(number)
            failures += met.error != 0
            reached = met.reached
            if not reached or stand.complaints:
                break
        batch.again()
    del stand.steps[told:]
    stand.steps.append(f"{number - 1} times a failing {injector.unit}: the call failed {failures} times")
    if not stand.complaints:
        stand.holds("some call failed", failures > 0)
        stand.holds(f"it needs no more than {MOST} of them", not reached)
    return number - 1


class _Batch:
    """One overlay with a directory for each of the next allocations: to mount one for each would take ten times as
    long."""

    def __init__(self, stand: Stand, injector: Injector, what: Disturbed, done: int) -> None:
        self._stand, self._injector, self._what = stand, injector, what
        tops = ["before", "after", *map(str, range(done + 1, done + BATCH + 1))]
        layers = {"lower": what.lower, "middle": what.middle, "upper": what.upper}
        made = {f"{name}{done}": _copies(tree, tops) for name, tree in layers.items() if tree is not None}
        made.setdefault(f"upper{done}", Directory())
        stand.layers(**made, **{f"work{done}": Directory()})
        lowers = ":".join(f"{{{name}{done}}}" for name in ("middle", "lower") if f"{name}{done}" in made)
        self._options = f"lowerdir={lowers},upperdir={{upper{done}}},workdir={{work{done}}}"
        self._options += f",{what.options}" if what.options else ""
        self._upper = stand.path(f"upper{done}")
        self._point = stand.mount(self._options)
        self._used: list[int] = []
        before = self._prepared("before")
        self._before = portrait(before)
        after = self._prepared("after")
        self._result = what.call(after)
        self._settle(after)
        self._after = portrait(after)
        self._kept = what.kept(f"{self._upper}/after") if what.kept else None

    def _prepared(self, top: str) -> str:
        path = f"{self._point}/{top}"
        if self._what.before:
            self._what.before(path)
        return path

    def _settle(self, path: str) -> None:
        if self._what.settle:
            self._what.settle(path)

    def once(self, number: int) -> Met:
        """The call with its `number`-th allocation failing."""
        what, stand = self._what, self._stand
        path = self._prepared(str(number))
        met = self._injector.call(number, lambda: what.call(path))
        said = f"{self._injector.unit} {number} fails, {errno_name(met.error)}"
        if met.error:
            stand.holds(f"{said}: it may fail so", met.error in what.errors)
        else:
            stand.same(f"{said}: result", met.result, self._result)
        self._settle(path)
        now = portrait(path)
        if met.error and now == self._before:
            try:
                stand.same(f"{said}: result of the next call", what.call(path), self._result)
            except OSError as error:
                stand.complaints.append(f"{said}: the next call fails with {errno_name(error.errno or 0)}")
            self._settle(path)
            now = portrait(path)
        self._compare(said, now)
        if what.kept:
            stand.same(f"{said}: the upper directory", what.kept(f"{self._upper}/{number}"), self._kept)
        self._used.append(number)
        return met

    def again(self) -> None:
        """A new mount of the same layers must show all that was done."""
        self._point = self._stand.again(self._options)
        for number in self._used:
            self._compare(f"{self._injector.unit} {number} failed, mounted again", portrait(f"{self._point}/{number}"))
        self._stand.unmount()

    def _compare(self, said: str, now: Portrait) -> None:
        if now != self._after:
            self._stand.complaints.append(f"{said}: {differences(now, self._after)}")


def _copies(tree: Directory, names: Sequence[str]) -> Directory:
    return Directory(dict.fromkeys(names, tree))
