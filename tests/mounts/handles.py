# SPDX-License-Identifier: GPL-2.0-only
"""What the families about file handles share: the layers, and what a handle leads to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from datasets.tree import Directory, File, HardLink
from tests.mounts.marked import ONE_LOWER, TWO_LOWERS, layers
from union.filecalls import FileHandle, open_by_handle
from union.stand import Stand

EXPORT: Final = f"{ONE_LOWER},index=on,nfs_export=on,redirect_dir=on"
EXPORT_TWO: Final = f"{TWO_LOWERS},index=on,nfs_export=on,redirect_dir=on"
PLAIN: Final = f"{ONE_LOWER},index=off,nfs_export=off"


def prepared(stand: Stand) -> str:
    """Layers with files, directories and a hard link in l; mounted, exported."""
    inner = Directory({"f": File(b"inner"), "deep": Directory({"f": File(b"deep")})})
    lower = Directory({"f": File(b"lower"), "d": inner, "e": Directory(), "a": File(b"hard"), "b": HardLink("a")})
    layers(stand, l=lower)
    return stand.mount(EXPORT)


@contextmanager
def decoded(stand: Stand, handle: FileHandle, flags: int) -> Iterator[int]:
    """A descriptor of what the handle leads to in the overlay on m. Raises OSError."""
    root = os.open(stand.path("m"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = open_by_handle(root, handle, flags)
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def opened(stand: Stand, handle: FileHandle) -> tuple[int, int]:
    """Device and inode number of what the handle leads to. Raises OSError."""
    with decoded(stand, handle, os.O_PATH) as fd:
        found = os.fstat(fd)
        return found.st_dev, found.st_ino


def where(stand: Stand, handle: FileHandle) -> str:
    """The path, in the union, of the directory that the handle leads to. Raises OSError."""
    with decoded(stand, handle, os.O_PATH | os.O_DIRECTORY) as fd:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(stand.path("m")) or "/"


def content(stand: Stand, handle: FileHandle) -> bytes:
    """The content of the file that the handle leads to. Raises OSError."""
    with decoded(stand, handle, os.O_RDONLY) as fd:
        return os.read(fd, 4096)


def stale(stand: Stand, handle: FileHandle, number: int | Sequence[int] = errno.ESTALE) -> None:
    """The handle leads nowhere: it cannot be opened."""

    def open_by_handle_at() -> None:
        opened(stand, handle)

    stand.fails(number, open_by_handle_at)
