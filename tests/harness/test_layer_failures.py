# SPDX-License-Identifier: GPL-2.0-only
"""What the trials of failing and mapped layers use: a filesystem mounted again, owners mapped."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from datasets.tree import Directory, File
from tests.harness.isolated import isolated, needs_mounts, needs_xfs, stand
from tests.mounts.half_way import exchanged, linked, renamed
from tests.mounts.layer_failures import Row, try_rows
from union.idmaps import Mapping, idmapped
from union.portrait import Seen
from union.stand import attempt


@needs_xfs
@isolated
def test_a_filesystem_that_was_shut_down_is_mounted_again_with_what_was_written_out() -> None:
    with stand() as made:
        layer = made.filesystem("x", "xfs", Directory({"kept": File(b"kept")}))
        os.sync()
        made.shut_down(layer)
        assert attempt(os.listdir, made.path("x")) == errno.EIO
        layer = made.recover(layer)
        assert Path(made.path("x/kept")).read_bytes() == b"kept"
        made.shut_down(layer)
        assert attempt(os.listdir, made.path("x")) == errno.EIO
    assert not any("/ovl-detach-" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


@needs_mounts
@isolated
def test_owners_are_mapped_there_and_only_there() -> None:
    with stand() as made:
        made.layers(d=Directory({"f": File(b"", 0o644, 3, 4), "g": File(b"", 0o644, 13, 4)}))
        idmapped(made, "d", "m", Mapping(0, 1000, 10))
        assert (os.stat(made.path("m/f")).st_uid, os.stat(made.path("m/f")).st_gid) == (1003, 1004)
        assert os.stat(made.path("d/f")).st_uid == 3
        assert os.stat(made.path("m/g")).st_uid == 65534


@needs_mounts
@isolated
def test_an_errno_that_is_not_allowed_is_a_complaint() -> None:
    with stand() as made:
        rows = (Row("stat", lambda top: os.stat(f"{top}/none")), Row("list", lambda top: os.listdir(top)))
        try_rows(made, str(made.root), rows)
        assert made.complaints == ["stat: ENOENT instead of EIO", "list: success instead of EIO"]


def test_what_a_move_makes_of_a_tree() -> None:
    one, two, three = Seen(0, 1), Seen(0, 2), Seen(0, 3)
    before = {"": one, "a": one, "a/x": two, "ab": three, "b": three}
    assert renamed(before, "a", "c") == {"": one, "c": one, "c/x": two, "ab": three, "b": three}
    assert renamed(before, "a", "b") == {"": one, "b": one, "b/x": two, "ab": three}
    assert exchanged(before, "a", "b") == {"": one, "b": one, "b/x": two, "ab": three, "a": three}
    assert linked(before, "ab", "c") == {**before, "c": three}
