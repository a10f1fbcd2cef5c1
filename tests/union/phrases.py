# SPDX-License-Identifier: GPL-2.0-only
"""The opens that nearly every scenario makes, under the names one would read aloud."""

from __future__ import annotations

from errno import ENOENT

from union.names import Name
from union.operations import CREAT, OpenFile, R, W, open_dir, open_file


def holds(path: Name, content: bytes, *, unprivileged: bool = False) -> OpenFile:
    """`path` opens read-only and has this content."""
    return open_file(path, R, reads=content, unprivileged=unprivileged)


def absent(path: Name) -> OpenFile:
    """`path` does not open: there is no such file."""
    return open_file(path, R, fails=ENOENT)


def absent_dir(path: Name) -> OpenFile:
    """`path` does not open with O_DIRECTORY: there is no such directory."""
    return open_dir(path, fails=ENOENT)


def create(path: Name, content: bytes, extra: int = 0) -> OpenFile:
    """Create `path` with O_CREAT and the flags `extra`, and write `content`; its mode is 0000."""
    return open_file(path, W | CREAT | extra, writes=content)
