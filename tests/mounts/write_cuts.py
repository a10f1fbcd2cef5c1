# SPDX-License-Identifier: GPL-2.0-only
"""The power is cut at each write of a migration to the disk of upper: nothing is lost or hidden (D12).

The disk records what it is told. All writes up to some one, and before each flush some of those since the last one, are
a disk as it may be found after a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from tests.mounts.half_way import write_out
from tests.mounts.migrating import Bench, steps
from union.durability import Disk
from union.fuse.recorder import Recorder, Write, left_by
from union.scenario import Group, Trial, When
from union.stand import Stand
from union.witness import is_opaque

SYNC_EACH: Final = 12  # steps: what is written out in between is a copied file's data, and the log with it
RESUME_EACH: Final = 16  # cuts
SOME: Final = 2  # disks that did only some of the writes, for each flush


def at_each_write(stand: Stand, fstype: str) -> None:
    """Migrate, and look at each disk that a power cut may have left on the way."""
    recorder = Recorder(stand.root / "up.img")
    stand.undo(recorder.stop)
    bench = Bench.prepared(stand, fstype)
    told = len(stand.steps)
    disk, writes = _recorded(bench, recorder)
    count, marked = 0, []
    for words, left in cuts(disk, writes):
        count += 1
        bench.upper = stand.recover(bench.upper, left.restore)
        _looked_at(bench, words, resume=count % RESUME_EACH == 0)
        marked.append(is_opaque(stand.path("up/u")))
        if stand.complaints:
            return
    stand.same("all is migrated at first, in the end", (marked[0], marked[-1]), (False, True))
    del stand.steps[told:]
    flushes = sum(write.data is None for write in writes)
    stand.steps.append(f"{count} cut points, of {len(writes) - flushes} writes and {flushes} flushes")


def _recorded(bench: Bench, recorder: Recorder) -> tuple[Disk, list[Write]]:
    """Migrate on a disk that records: what it was, and what it was told. It is a plain disk then."""
    stand, disks = bench.stand, list[Disk]()
    bench.upper = stand.recover(bench.upper, lambda _: disks.append(recorder.start()))
    point = stand.mount(bench.options)
    write_out(point)
    start = recorder.position()
    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, (_, step) in enumerate(steps(bench.original, ""), start=1):
            step(root)
            if number % SYNC_EACH == 0:
                write_out(point)
    finally:
        os.close(root)
    write_out(point)
    writes = recorder.writes()
    stand.unmount()
    bench.upper = stand.recover(bench.upper, lambda _: recorder.stop())
    before = [write for write in writes if write.end <= start]
    return left_by(disks[0], before), writes[len(before) :]


def cuts(disk: Disk, writes: Sequence[Write]) -> Iterator[tuple[str, Disk]]:
    """What each cut leaves, and how it is told."""
    flushed, since = disk, list[Write]()
    yield "cut before the first write", disk
    for number, write in enumerate(writes, start=1):
        if write.data is not None:
            since.append(write)
            disk = left_by(disk, [write])
            yield f"cut after write {number}", disk
        elif since:
            for seed in range(SOME):
                yield f"cut before flush {number}, some writes done ({seed})", left_by(flushed, since, Random(seed))
            flushed, since = disk, []
    yield "cut after the last write", disk


def _looked_at(bench: Bench, words: str, *, resume: bool) -> None:
    try:
        found = bench.left(resume=resume)
    except OSError as error:
        found = [str(error)]
    if resume:
        bench.lower = bench.stand.recover(bench.lower)
    bench.stand.complaints += [f"{words}: {line}" for line in found]


GROUPS = (
    Group(
        "power-cuts-writes",
        "Cut the power at each write to the disk of upper.",
        when=When.LONG,
        trials=(
            Trial("xfs", lambda stand: at_each_write(stand, "xfs")),
            Trial("ext4", lambda stand: at_each_write(stand, "ext4")),
        ),
    ),
)
