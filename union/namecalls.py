# SPDX-License-Identifier: GPL-2.0-only
"""System calls on names, attributes and directories that Python's os lacks.

Each errno is an OSError. As in `union.syscalls`, the layouts are those of Linux on x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

UTIME_OMIT: Final = (1 << 30) - 2

FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602

KEPT_FLAGS: Final = 0x08 | 0x10 | 0x20 | 0x80  # sync, immutable, append, noatime: what copy-up takes along

_STATX_BASIC: Final = 0x7FF
STATX_ATTR_IMMUTABLE: Final = 0x10
STATX_ATTR_APPEND: Final = 0x20

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, *paths: str) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), *paths)


def rename(old: str, new: str, flags: int) -> None:
    """renameat2(2)."""
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags), old)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


def set_times(path: str, atime: int | None, mtime: int | None, *, follow: bool) -> None:
    """utimensat(2) with nanoseconds since the epoch; a time of None stays as it is."""
    times = (_Timespec * 2)(*(_Timespec(0, UTIME_OMIT) if t is None else _Timespec(*divmod(t, 10**9))
                              for t in (atime, mtime)))  # fmt: skip
    flags = 0 if follow else AT_SYMLINK_NOFOLLOW
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags), path)


def get_flags(path: str) -> int:
    """The flags of lsattr(1) by FS_IOC_GETFLAGS."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        flags: int = struct.unpack("i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0]
        return flags
    finally:
        os.close(fd)


def set_flags(path: str, flags: int) -> None:
    """chattr(1) by FS_IOC_SETFLAGS."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", flags))
    finally:
        os.close(fd)


class Statx(NamedTuple):
    """What statx(2) says of an object; `attributes` are the STATX_ATTR_ bits that the filesystem supports."""

    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: tuple[int, int]
    attributes: int


# mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask, four times, rdev, dev
_STATX: Final = struct.Struct("=II Q III H2x QQQ Q 64s II II")
_statx_buffer = ctypes.create_string_buffer(256)


def statx(path: str, *, follow: bool) -> Statx:
    """statx(2). Not for use by two threads at once: they would share the buffer."""
    flags = 0 if follow else AT_SYMLINK_NOFOLLOW
    _checked(_libc.statx(AT_FDCWD, os.fsencode(path), flags, _STATX_BASIC, _statx_buffer), path)
    values = _STATX.unpack_from(_statx_buffer)
    _mask, _blksize, attributes, nlink, uid, gid, mode, _ino, size = values[:9]
    return Statx(mode, nlink, uid, gid, size, values[12:14], attributes & values[10])


class Cookie(NamedTuple):
    """A directory entry with `after`, the position behind it that lseek(2) takes."""

    name: str
    type: int
    after: int


_DIRENT: Final = struct.Struct("=QqHB")


def getdents(fd: int, size: int) -> list[Cookie]:
    """One getdents64(2) with a buffer of `size` bytes; empty at the end of the directory."""
    buffer = ctypes.create_string_buffer(size)
    length = _checked(_libc.getdents64(fd, buffer, size), f"fd {fd}")
    return list(_entries(buffer.raw[:length]))


def _entries(data: bytes) -> Iterator[Cookie]:
    at = 0
    while at < len(data):
        _ino, after, length, kind = _DIRENT.unpack_from(data, at)
        name = data[at + _DIRENT.size : data.index(0, at + _DIRENT.size)]
        yield Cookie(os.fsdecode(name), kind, after)
        at += length
