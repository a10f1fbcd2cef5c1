# SPDX-License-Identifier: GPL-2.0-only
"""What is mounted: one record of /proc/self/mountinfo, found by mount id and never by path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of this process's namespace.

    `parent` is the id of the mount it is on, `device` is "major:minor", `options` the options of the superblock in
    their order; a flag has the value "", and values are as the kernel prints them with its octal escapes undone.
    `root` is the directory of the filesystem that is mounted, `flags` are those of this mount alone.
    """

    id: int
    parent: int
    device: str
    point: str
    fstype: str
    source: str
    options: tuple[tuple[str, str], ...]
    root: str = "/"
    flags: frozenset[str] = frozenset()

    def describe(self) -> str:
        """In words: what is mounted where."""
        return f"{self.source} ({self.fstype}) on {self.point}"


def find(mount_id: int) -> Mount | None:
    """The mount with this id, None if there is none in our namespace."""
    lines = b"\n" + MOUNTINFO.read_bytes()  # searched as a whole: a rotating run asks after each of its remounts
    start = lines.find(b"\n%d " % mount_id) + 1
    return _parse(os.fsdecode(lines[start : lines.index(b"\n", start)])) if start else None


def mounts() -> Iterator[Mount]:
    """All mounts of our namespace, in the order in which they were mounted."""
    with MOUNTINFO.open(errors="surrogateescape") as lines:
        yield from map(_parse, lines)


def _parse(line: str) -> Mount:
    """A line: id, parent, device, root, mount point, mount options, tags, a hyphen, type, source, options."""
    left, _, right = line.rstrip("\n").partition(" - ")
    number, parent, device, root, point, flags = left.split(" ")[:6]
    fstype, source, options = right.split(" ", 2)
    # Overlay escapes the commas and equal signs inside of paths, so both separators can be trusted.
    pairs = (option.partition("=")[::2] for option in options.split(","))
    plain = tuple((_plain(key), _plain(value)) for key, value in pairs)
    own = frozenset(flags.split(","))
    return Mount(int(number), int(parent), device, _plain(point), fstype, _plain(source), plain, _plain(root), own)


def _plain(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
