# SPDX-License-Identifier: GPL-2.0-only
"""A full upper: a tmpfs that has room for so many more inodes or pages, for `union.faults`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from union import syscalls
from union.faults import Met
from union.stand import Stand

_PAGE: Final = 4096
_PLENTY: Final = 1 << 16  # inodes or pages: what there is room for the rest of the time


class Inodes:
    """Of the inodes that a call makes on the stand's own tmpfs, the n-th is one too many.

    A link counts as one too, and the values of `user.` xattrs and of symlinks take some of the room.
    """

    unit = "inode"

    def __init__(self, stand: Stand) -> None:
        self._root = stand.root
        self._leave(_PLENTY)

    def call(self, number: int, call: Callable[[], object]) -> Met:
        """There is room for one less than `number`."""
        self._leave(number - 1)
        result, failed = None, 0
        try:
            result = call()
        except OSError as error:
            failed = error.errno or errno.EIO
        finally:
            left = self._left()
            self._leave(_PLENTY)
        return Met(failed, result, bool(failed) or left <= 0)

    def _left(self) -> int:
        return os.statvfs(self._root).f_ffree

    def _leave(self, room: int) -> None:
        status = os.statvfs(self._root)
        syscalls.mount(
            "none", self._root, None, syscalls.MS_REMOUNT, f"nr_inodes={status.f_files - status.f_ffree + room}"
        )


class Pages(Inodes):
    """Of the pages that a call fills on the stand's own tmpfs, the n-th is one too many."""

    unit = "page"

    def __init__(self, stand: Stand) -> None:
        (stand.root / "page").write_bytes(b"1")  # a tmpfs of no pages is one without a limit
        super().__init__(stand)

    def _left(self) -> int:
        return os.statvfs(self._root).f_bfree

    def _leave(self, room: int) -> None:
        status = os.statvfs(self._root)
        used = status.f_blocks - status.f_bfree
        syscalls.mount("none", self._root, None, syscalls.MS_REMOUNT, f"size={(used + room) * _PAGE}")
