# SPDX-License-Identifier: GPL-2.0-only
"""What the trials of power cuts complain about, and that a cut loses what was not written out (D12)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from datasets.layers import METACOPY, OPAQUE, REDIRECT
from datasets.tree import Directory, File, HardLink
from tests.harness.isolated import isolated, needs_mounts, needs_overlay, needs_xfs, stand
from tests.mounts.half_way import write_out
from union.durability import Disk, Original
from union.fences.disk import go_down
from union.marks import ORIGIN

CAPABILITY = "security.capability"
CAPABLE = pack("<5I", 0x02000001, 1, 0, 0, 0)
TREE = Directory({
    "d": Directory({"f": File(b"f"), "s": Directory({"g": File(b"g")})}),
    "capable": File(b"c", 0o755, xattrs={CAPABILITY: CAPABLE}),
    "one": File(b"linked"),
    "two": HardLink("one"),
})  # fmt: skip


def break_link(top: str) -> None:
    os.rename(f"{top}/one", f"{top}/old")
    Path(top, "one").write_bytes(b"linked")
    os.utime(f"{top}/one", ns=(0, os.stat(f"{top}/old").st_mtime_ns))
    os.unlink(f"{top}/old")


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        (lambda top: None, []),
        (lambda top: os.unlink(f"{top}/d/f"), ["mtime of d/f", "hard links ", "d/f: missing instead of "]),
        (lambda top: Path(top, "new").touch(), ["hard links ", "new: Seen("]),
        (lambda top: os.chmod(f"{top}/d", 0o700), ["d: Seen("]),
        (lambda top: os.utime(f"{top}/d/f", (1, 1)), ["mtime of d/f"]),
        (lambda top: os.removexattr(f"{top}/capable", CAPABILITY), ["capable: Seen("]),
        (break_link, ["hard links "]),
    ],
    ids=["nothing", "a file", "a new file", "a mode", "a time", "capabilities", "a hard link"],
)
@needs_mounts
@isolated
def test_what_is_lost_is_told(harm: Callable[[str], object], wanted: list[str]) -> None:
    with stand() as made:
        made.layers(l=TREE)
        top = made.path("l")
        original = Original.of(top, linked=True)
        harm(top)
        found = original.losses(top, linked=True)
        assert len(found) == len(wanted) and all(map(str.startswith, found, wanted)), found


@needs_mounts
@isolated
def test_a_file_whose_data_comes_last_may_lose_its_time_and_capabilities_and_no_more() -> None:
    with stand() as made:
        made.layers(l=TREE)
        top = made.path("l")
        original = Original.of(top)
        os.removexattr(f"{top}/capable", CAPABILITY)
        os.utime(f"{top}/capable", (1, 1))
        assert len(original.losses(top)) == 2
        assert len(original.losses(top, "one")) == 2
        assert original.losses(top, "capable") == []
        os.chmod(f"{top}/capable", 0o700)
        assert len(original.losses(top, "capable")) == 1


@needs_overlay
@isolated
def test_a_directory_that_is_opaque_by_hand_over_what_only_lower_has_is_told() -> None:
    """By the tree that the union shows, and by the upper layer without it."""
    options = "lowerdir={l},upperdir={u},workdir={w}"
    with stand() as made:
        made.layers(l=TREE, u=Directory(), w=Directory())
        point = made.mount(options)
        original, upper = Original.of(point), made.path("u")
        os.utime(f"{point}/d/s", (1, 1))
        assert original.hidden(upper) == [] and original.losses(point) == []
        made.unmount()
        os.setxattr(f"{upper}/d", OPAQUE, b"y")
        point = made.mount(options)
        assert any("d/f: missing" in line for line in original.losses(point))
        assert original.hidden(upper) == [
            "d is opaque over d/f, which upper has not",
            "d is opaque over d/s, which is not",
        ]


@needs_mounts
@isolated
def test_metadata_without_data_and_directories_with_a_lower_part_are_no_cover() -> None:
    with stand() as made:
        made.layers(l=TREE, u=TREE)
        original, upper = Original.of(made.path("l")), made.path("u")
        os.setxattr(f"{upper}/d", OPAQUE, b"y")
        assert original.hidden(upper) == []  # d/s was made there
        os.setxattr(f"{upper}/d/f", METACOPY, b"")
        os.setxattr(f"{upper}/d/s", ORIGIN, b"a handle")
        assert original.hidden(upper) == [
            "d is opaque over d/f, whose data upper has not",
            "d is opaque over d/s, which is not",
        ]
        os.setxattr(f"{upper}/d/s", REDIRECT, b"/elsewhere")  # was moved there, and is looked up elsewhere
        assert len(original.hidden(upper)) == 1


@needs_xfs
@pytest.mark.parametrize("fstype", ["xfs", "ext4"])
@isolated
def test_a_power_cut_loses_what_was_not_written_out_and_nothing_else(fstype: str) -> None:
    with stand() as made:
        layer = made.filesystem("x", fstype)
        Path(made.path("x/kept")).write_bytes(b"kept")
        write_out(made.path("x"))
        Path(made.path("x/lost")).write_bytes(b"lost")
        go_down(layer)
        layer = made.recover(layer)
        assert os.listdir(made.path("x")) == ["kept"]
        assert Path(made.path("x/kept")).read_bytes() == b"kept"


@needs_xfs
@isolated
def test_a_disk_is_put_back_as_it_was() -> None:
    with stand() as made:
        layer = made.filesystem("x", "xfs", Directory({"old": File(b"old")}))
        saved: list[Disk] = []
        layer = made.recover(layer, lambda image: saved.append(Disk.of(image)))
        Path(made.path("x/old")).write_bytes(b"changed")
        Path(made.path("x/new")).touch()
        made.recover(layer, saved[0].restore)
        assert os.listdir(made.path("x")) == ["old"]
        assert Path(made.path("x/old")).read_bytes() == b"old"
        assert sum(map(len, saved[0].pieces.values())) < saved[0].size / 10, "holes are left out"
