# SPDX-License-Identifier: GPL-2.0-only
"""An upper that takes nothing for a while, from some step of a migration on: full, read-only, frozen, over quota.

What a step cannot do it fails to do as a whole, a listing never fails (D15), nothing is lost or hidden meanwhile, and
the migration gets to its end afterwards (D12).
"""

from __future__ import annotations

import os
import select
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC, EROFS
from functools import partial
from pathlib import Path
from typing import Final

from tests.mounts.migrating import Bench, steps
from union import syscalls
from union.children import end_with_parent
from union.interruption import Step
from union.scenario import Group, Trial, When
from union.stand import Missing, Stand, attempt, errno_name
from union.syscalls import MS_RDONLY
from union.together import Step as Call
from union.together import together

PATIENCE: Final = 20.0  # seconds until a process that should go on counts as one that hangs
FEW: Final = ("-N", "16")  # mkfs.ext4: as few inodes as it can do with
FILLER: Final = "filler"
_TOLD: Final = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps upper from taking anything: how it begins and ends, the errnos that steps may fail with meanwhile."""

    begin: Callable[[Bench], object]
    end: Callable[[Bench], object]
    errors: tuple[int, ...]
    features: Sequence[str] = ()


def fill(bench: Bench) -> None:
    """Take all room of upper's filesystem, and then all inodes that are left."""
    filler = bench.upper.root / FILLER
    filler.mkdir()
    fd = os.open(filler / "room", os.O_CREAT | os.O_WRONLY)
    at, size = 0, 64 << 20
    try:
        while size >= 1024:
            if attempt(os.posix_fallocate, fd, at, size) == 0:
                at += size
            else:
                size //= 2
    finally:
        os.close(fd)
    number = 0
    while attempt(os.mknod, filler / str(number)) == 0:
        number += 1


def empty(bench: Bench) -> None:
    """Give it back."""
    for path in (bench.upper.root / FILLER).iterdir():
        path.unlink()
    (bench.upper.root / FILLER).rmdir()


FULL: Final = Obstacle(fill, empty, (ENOSPC,), FEW)
READ_ONLY: Final = Obstacle(
    lambda bench: bench.stand.remount("", "up", MS_RDONLY), lambda bench: bench.stand.remount("", "up"), (EROFS,)
)


def hindered(stand: Stand, fstype: str, obstacle: Obstacle) -> None:
    """The obstacle is there from every second step on, for the rest of the migration."""
    bench = Bench.prepared(stand, fstype, features=obstacle.features if fstype == "ext4" else ())
    whole = steps(bench.original, "")
    told, failures, moments = len(stand.steps), 0, range(0, len(whole), 2)
    for number in moments:
        with _root(stand.mount(bench.options)) as root:
            for _, step in whole[:number]:
                step(root)
            obstacle.begin(bench)
            try:
                got = [attempt(step, root) for _, step in whole[number:]]
                found = wrong(whole[number:], got, obstacle.errors)
                found += bench.losses(stand.path("m"), None)
            finally:
                obstacle.end(bench)
        failures += sum(map(bool, got))
        found += bench.finished()
        stand.unmount()
        stand.complaints += [f"from step {number + 1} on, {whole[number][0]}: {line}" for line in found]
        if found:
            return
        bench.renewed()
    stand.holds("some steps failed", failures > 0)
    del stand.steps[told:]
    stand.steps.append(f"from {len(moments)} of {len(whole)} steps on: {failures} steps failed")


def wrong(taken: Sequence[Step], got: Sequence[int], errors: Sequence[int]) -> list[str]:
    """Steps that failed though they may not, or otherwise than they may."""
    return [
        f"{words}: {errno_name(error)}"
        for (words, _), error in zip(taken, got, strict=True)
        if error and (words.startswith("list ") or error not in errors)
    ]


@contextmanager
def _root(point: str) -> Iterator[int]:
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


# frozen


def over_frozen(stand: Stand, fstype: str) -> None:
    """Frozen before every third step: all listings are whole, the migration waits and goes on after the thaw."""
    bench = Bench.prepared(stand, fstype)
    whole = steps(bench.original, "")
    told, waited, moments = len(stand.steps), 0, range(0, len(whole), 3)
    for number in moments:
        with _root(stand.mount(bench.options)) as root:
            for _, step in whole[:number]:
                step(root)
            with _frozen(stand):
                found = bench.losses(stand.path("m"), None)
                migrator = Migrator(root, whole[number:])
                waited += migrator.waits()
                found += together([partial(_listings, bench, migrator.at())], PATIENCE)[0].complaints
                found += [f"it waits: {line}" for line in bench.original.hidden(stand.path("up/u"))]
            found += migrator.ends()
        found += bench.finished()
        stand.unmount()
        stand.complaints += [f"frozen before step {number + 1}, {whole[number][0]}: {line}" for line in found]
        if found:
            return
        bench.renewed()
    stand.holds("some migrations waited", waited > 0)
    del stand.steps[told:]
    stand.steps.append(f"frozen before {len(moments)} of {len(whole)} steps: {waited} migrations waited for the thaw")


def _listings(bench: Bench, at: str) -> Iterator[Call]:
    """List all directories, but for the one that is copied up just now: whoever changes a directory has it locked
    while it waits for the thaw, see docs/kernel-findings.md.
    """
    for name, seen in bench.original.tree.items():
        if stat.S_ISDIR(seen.mode) and at != f"copy up {name}":
            yield Call(f"list {name or os.curdir}", partial(_listed, bench.stand.path(f"m/{name}")))


def _listed(path: str) -> tuple[()]:
    os.listdir(path)
    return ()


@contextmanager
def _frozen(stand: Stand) -> Iterator[None]:
    try:
        syscalls.freeze(stand.path("up"))
    except OSError as error:
        raise Missing(f"a kernel that can freeze filesystems: {error.strerror}") from None
    try:
        yield
    finally:
        syscalls.thaw(stand.path("up"))


class Migrator:
    """A process that takes these steps, and tells the errno of each."""

    def __init__(self, root: int, taken: Sequence[Step]) -> None:
        self._taken = taken
        self._got = b""
        self._pipe, theirs = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                end_with_parent()
                for _, step in taken:
                    os.write(theirs, _TOLD.pack(attempt(step, root)))
            finally:
                os._exit(0)
        os.close(theirs)

    def waits(self) -> bool:
        """Once it waits in the kernel, or has ended: whether it waits."""
        while True:
            ready, _, _ = select.select([self._pipe], [], [], 0.001)
            if not ready and self._state() == "D":
                return True
            if ready:
                said = os.read(self._pipe, 1 << 16)
                self._got += said
                if not said:
                    return False

    def at(self) -> str:
        """The words of the step that it takes now, as far as it has told; empty at its end."""
        done = len(self._got) // _TOLD.size
        return self._taken[done][0] if done < len(self._taken) else ""

    def _state(self) -> str:
        return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0]

    def ends(self) -> list[str]:
        """See it end; what was wrong with it."""
        while select.select([self._pipe], [], [], PATIENCE)[0]:
            said = os.read(self._pipe, 1 << 16)
            self._got += said
            if not said:
                os.waitpid(self._pid, 0)
                os.close(self._pipe)
                got = [number for number, in _TOLD.iter_unpack(self._got)]
                if len(got) < len(self._taken):
                    return [f"the migrator died at {self.at()}"]
                return wrong(self._taken, got, ())
        return [f"the migrator hangs after the thaw, at {self.at()}"]


def over(fstype: str, label: str, obstacle: Obstacle) -> Trial:
    """An upper on this filesystem."""
    return Trial(f"a {label} {fstype}", lambda stand: hindered(stand, fstype, obstacle))


def frozen(fstype: str) -> Trial:
    """Likewise."""
    return Trial(f"a frozen {fstype}", lambda stand: over_frozen(stand, fstype))


GROUPS = (
    Group(
        "hindered-uppers",
        "Migrate while upper takes nothing from some step on, and once more.",
        when=When.LONG,
        trials=(
            over("xfs", "full", FULL),
            over("ext4", "full", FULL),
            over("xfs", "read-only", READ_ONLY),
            over("ext4", "read-only", READ_ONLY),
            frozen("xfs"),
            frozen("ext4"),
        ),
    ),
)
