# SPDX-License-Identifier: GPL-2.0-only
"""The structures in private xattrs are read and written as the kernel does it: a wrong one is noticed by it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.tree import Directory, File
from tests.harness.isolated import isolated, needs_mounts
from union import filecalls, marks
from union.marks import Handle
from union.stand import Stand

LAYERS = "lowerdir={l},upperdir={u},workdir={w}"


def on_a_stand(tmp_path: Path, stack: ExitStack) -> Stand:
    stand = Stand(stack, tmp_path)
    stand.layers(l=Directory({"f": File(b"lower")}), u=Directory(), w=Directory())
    return stand


def test_a_handle_survives_packing() -> None:
    handle = Handle(0, marks.MAGIC, 29, marks.PATH_UPPER, 1, bytes(range(16)), b"inode nr")
    assert Handle.unpack(handle.packed()) == handle
    assert len(handle.packed()) == handle.length
    assert handle.entry() == handle.packed().hex()
    assert Handle.shown(handle.given()) == handle


def test_what_is_no_handle_is_refused() -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        Handle.unpack(bytes(20))
    handle = Handle(0, marks.MAGIC, 21, 0, 1, bytes(16), b"")
    with pytest.raises(ValueError, match="0xfb"):
        Handle.shown(handle.given(marks.UNALIGNED_TYPE))


def test_a_digest_mark_states_its_length() -> None:
    assert marks.digest_mark(bytes(32))[:4] == bytes((0, 36, 0, marks.FS_VERITY_SHA256))
    assert marks.digest_mark(bytes(32), more=1)[1] == 37
    assert marks.digest_mark(version=1) == bytes((1, 4, 0, marks.FS_VERITY_SHA256))


@needs_mounts
@isolated
def test_an_origin_is_read_as_the_kernel_wrote_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = on_a_stand(tmp_path, stack)
        at = stand.mount(LAYERS)
        Path(at, "f").write_bytes(b"upper")
        origin = Handle.of(stand.path("u/f"))
        assert origin.magic == marks.MAGIC
        assert origin.length == len(origin.packed())
        assert (origin.type, origin.fid) == filecalls.name_to_handle(stand.path("l/f"))


@needs_mounts
@isolated
def test_the_kernel_takes_an_origin_of_ours_and_no_wrong_one(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = on_a_stand(tmp_path, stack)
        at = stand.mount(LAYERS)
        Path(at, "f").write_bytes(b"upper")
        upper, lower = stand.path("u/f"), os.stat(stand.path("l/f")).st_ino
        origin = Handle.of(upper)
        for handle, number in ((origin, lower), (replace(origin, magic=0), os.stat(upper).st_ino)):
            stand.unmount()
            os.setxattr(upper, marks.ORIGIN, handle.packed())
            stand.mount(LAYERS)
            assert os.stat(f"{at}/f").st_ino == number


@needs_mounts
@isolated
def test_a_file_without_verity_has_no_digest(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = on_a_stand(tmp_path, stack)
        with pytest.raises(OSError):  # ENODATA, or what a kernel without verity says
            marks.measure_verity(stand.path("l/f"))
        with pytest.raises(OSError):  # tmpfs has none
            marks.enable_verity(stand.path("l/f"))
