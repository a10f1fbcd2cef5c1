# SPDX-License-Identifier: GPL-2.0-only
"""Disk quota by system call: project ids, limits and what is used. Each errno is an OSError that carries the path."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Final, NamedTuple

CAP_SYS_RESOURCE: Final = 24  # who has it may exceed limits
USER, PROJECT = 0, 2  # whose quota

_NR_QUOTACTL_FD: Final = 443
_Q_GETQUOTA, _Q_SETQUOTA = 0x800007, 0x800008
_QIF_LIMITS: Final = 1 | 4  # of blocks and of inodes are set
_DQBLK: Final = struct.Struct("=8QI4x")  # limits of KiB, bytes used, the same of inodes, two times, what is set
_KIB: Final = 1024
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR: Final = struct.Struct("=5I8x")  # flags, extent size, extents, project, extent size of copies
_PROJINHERIT: Final = 0x200

_libc = ctypes.CDLL(None, use_errno=True)


class Usage(NamedTuple):
    """What an id uses of a filesystem."""

    size: int  # bytes
    inodes: int


def usage(path: str, kind: int, number: int) -> Usage:
    """Of the id `number` on the filesystem of the directory; ENOSYS, ESRCH or EINVAL without quota."""
    _, _, size, _, _, inodes, *_ = _DQBLK.unpack(_call(path, _Q_GETQUOTA, kind, number, bytes(_DQBLK.size)))
    return Usage(size, inodes)


def limit(path: str, kind: int, number: int, size: int, inodes: int) -> None:
    """Let the id have so many bytes and inodes, 0 for any number, on the filesystem of the directory."""
    blocks = -(-size // _KIB)
    _call(path, _Q_SETQUOTA, kind, number, _DQBLK.pack(blocks, 0, 0, inodes, 0, 0, 0, 0, _QIF_LIMITS))


def set_project(path: str, number: int) -> None:
    """Give the directory to a project, with all that is made in it from then on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags, size, extents, _, copies = _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size)))
        fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(flags | _PROJINHERIT, size, extents, number, copies))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _call(path: str, command: int, kind: int, number: int, data: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        buffer = ctypes.create_string_buffer(data, len(data))
        if _libc.syscall(_NR_QUOTACTL_FD, fd, command << 8 | kind, number, buffer) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return buffer.raw
    finally:
        os.close(fd)
