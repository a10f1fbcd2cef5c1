# SPDX-License-Identifier: GPL-2.0-only
"""A disk that records its writes: what is in the log, and what a power cut leaves by it (D12)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

from datasets.tree import Directory, File
from tests.harness.isolated import isolated, needs_fuse, needs_mounts, needs_xfs, stand
from tests.mounts.half_way import write_out
from tests.mounts.write_cuts import cuts
from union.durability import CHUNK, Disk
from union.fuse.recorder import Recorder, Write, left_by
from union.stand import attempt


@needs_mounts
@needs_fuse
@isolated
def test_each_write_and_each_flush_is_in_the_log_in_order() -> None:
    with stand() as made:
        image = made.root / "disk.img"
        image.write_bytes(b"old!" * 2048)
        recorder = Recorder(image)
        made.undo(recorder.stop)
        disk = recorder.start()
        fd = os.open(image, os.O_RDWR)
        os.pwrite(fd, b"1" * 6000, 0)
        os.fsync(fd)
        start = recorder.position()
        os.pwrite(fd, b"2", 7000)
        assert os.pread(fd, 2, 6999) == b"!2"
        os.close(fd)
        writes = recorder.writes()
        recorder.stop()
        assert [(write.offset, write.data) for write in writes] == [
            (0, b"1" * 4096),
            (4096, b"1" * 1904),
            (0, None),
            (7000, b"2"),
        ]
        assert [write.end <= start for write in writes] == [True, True, True, False]
        left_by(disk, writes).restore(made.root / "again.img")
        assert (made.root / "again.img").read_bytes()[:8192] == image.read_bytes()


@needs_mounts
@needs_fuse
@isolated
def test_a_disk_that_was_stopped_is_a_plain_file_again() -> None:
    with stand() as made:
        image = made.root / "disk.img"
        image.write_bytes(bytes(4096))
        recorder = Recorder(image)
        recorder.start()
        recorder.stop()
        recorder.stop()
        image.write_bytes(b"plain")
        assert recorder.position() == 0
        assert not any(str(image) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


@needs_xfs
@needs_fuse
@isolated
def test_what_was_written_out_is_on_each_later_disk_and_on_no_earlier_one() -> None:
    with stand() as made:
        recorder = Recorder(made.root / "x.img")
        made.undo(recorder.stop)
        layer = made.filesystem("x", "xfs", Directory({"old": File(b"old")}))
        disks: list[Disk] = []
        layer = made.recover(layer, lambda _: disks.append(recorder.start()))
        Path(made.path("x/new")).write_bytes(b"new")
        write_out(made.path("x"))
        written = recorder.position()
        Path(made.path("x/late")).write_bytes(b"late")
        write_out(made.path("x"))
        writes = recorder.writes()
        layer = made.recover(layer, lambda _: recorder.stop())
        shown = []
        for end in (0, sum(write.end <= written for write in writes), len(writes)):
            layer = made.recover(layer, left_by(disks[0], writes[:end]).restore)
            shown.append({path.name: path.read_bytes() for path in Path(made.path("x")).iterdir()})
        old, new, late = {"old": b"old"}, {"new": b"new"}, {"late": b"late"}
        assert shown == [old, old | new, old | new | late]


@needs_xfs
@needs_fuse
@isolated
def test_a_disk_that_does_not_heed_a_flush_is_noticed() -> None:
    """What makes the trials complain: a write before the flush is lost, those behind it are not."""
    with stand() as made:
        recorder = Recorder(made.root / "x.img")
        made.undo(recorder.stop)
        layer = made.filesystem("x", "xfs")
        disks: list[Disk] = []
        layer = made.recover(layer, lambda _: disks.append(recorder.start()))
        start = recorder.position()
        Path(made.path("x/kept")).write_bytes(b"k" * CHUNK)
        write_out(made.path("x"))
        writes = recorder.writes()
        layer = made.recover(layer, lambda _: recorder.stop())
        data = next(write for write in writes if write.end > start and write.data == b"k" * 4096)
        layer = made.recover(layer, left_by(disks[0], [write for write in writes if write is not data]).restore)
        assert attempt(os.stat, made.path("x/kept")) == 0
        assert Path(made.path("x/kept")).read_bytes() != b"k" * CHUNK
        assert attempt(os.stat, made.path("x/none")) == errno.ENOENT


def test_some_writes_are_left_out_only_behind_the_last_flush() -> None:
    writes = [Write(1, 0, b"a"), Write(2), Write(3, 1, b"b"), Write(4, CHUNK - 1, b"cd"), Write(5)]
    found = [(words, disk.pieces) for words, disk in cuts(Disk(4 * CHUNK, {}), writes)]
    texts = [
        (words, bytes(pieces.get(0, bytes(CHUNK))[:2]), len(pieces)) for words, pieces in found if "some" not in words
    ]
    assert texts == [
        ("cut before the first write", b"\0\0", 0),
        ("cut after write 1", b"a\0", 1),
        ("cut after write 3", b"ab", 1),
        ("cut after write 4", b"ab", 2),
        ("cut after the last write", b"ab", 2),
    ]
    assert all(pieces[0][:1] == b"a" for words, pieces in found if words.startswith("cut before flush 5"))
    assert {left_by(Disk(9, {}), writes[:1], Random(seed)).pieces == {} for seed in range(9)} == {True, False}
