# SPDX-License-Identifier: GPL-2.0-only
"""An upper that takes no more, for `union.faults`: full after so many inodes or pages, or its directories protected."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from datasets.tree import APPEND_ONLY, IMMUTABLE
from union import namecalls, syscalls
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


class Protection:
    """Directories of upper, or the work directories, are append-only or immutable: four ways, one after the other."""

    unit = "protection"
    _WAYS: Final = (("upper", APPEND_ONLY), ("upper", IMMUTABLE), ("work", APPEND_ONLY), ("work", IMMUTABLE))

    def __init__(self, stand: Stand) -> None:
        self._root = stand.root

    def call(self, number: int, call: Callable[[], object]) -> Met:
        """The `number`-th way, from 1; later ones are no hindrance."""
        if number > len(self._WAYS):
            return Met(0, call(), False)
        kind, flags = self._WAYS[number - 1]
        directories = [str(top) for layer in self._root.glob(f"{kind}[0-9]*") for top, _, _ in os.walk(layer)]
        held = list(self._held(directories))
        for directory in directories:
            namecalls.set_flags(directory, flags)
        try:
            return Met(0, call(), True)
        except OSError as error:
            return Met(error.errno or errno.EIO, None, True)
        finally:
            for directory in directories:
                namecalls.set_flags(directory, 0)
            for fd in held:
                os.close(fd)

    def _held(self, directories: Sequence[str]) -> Iterator[int]:
        """Descriptors of what the union shows of them: it keeps the flags of an inode as it first saw them, which must
        not be during the call, when somebody else drops the caches.
        """
        for directory in directories:
            _, _, below = directory.removeprefix(f"{self._root}/").partition("/")
            with suppress(OSError):  # of an upper that is not mounted any more, or hidden
                yield os.open(self._root / "m" / below, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
