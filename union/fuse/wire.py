# SPDX-License-Identifier: GPL-2.0-only
"""The FUSE protocol as bytes: requests that the kernel sends through /dev/fuse, and the answers to them.

Numbers and structures are those of the kernel's <linux/fuse.h>, protocol 7.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

MAJOR: Final = 7
MINOR: Final = 40  # the newest that the answers here are made for
ROOT_ID: Final = 1
BUFFER: Final = 1 << 17  # a read of /dev/fuse must have room for the largest request


class Op(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


HOUSEKEEPING: Final = frozenset(
    {Op.FORGET, Op.BATCH_FORGET, Op.RELEASE, Op.RELEASEDIR, Op.INTERRUPT, Op.DESTROY, Op.INIT, Op.NOTIFY_REPLY}
)
"""What the kernel sends when it lets go of something, or of its own accord: no method of the filesystem is called."""

UNANSWERED: Final = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})

# flags of the first exchange
ASYNC_READ: Final = 1 << 0
EXPORT_SUPPORT: Final = 1 << 4
PARALLEL_DIROPS: Final = 1 << 18
POSIX_ACL: Final = 1 << 20
INIT_EXT: Final = 1 << 30
PASSTHROUGH: Final = 1 << 37

FOPEN_PASSTHROUGH: Final = 1 << 7
BACKING_OPEN: Final = 0x4010E501  # ioctl of /dev/fuse
BACKING_CLOSE: Final = 0x4004E502

_IN: Final = struct.Struct("=IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, extension, padding
_OUT: Final = struct.Struct("=IiQ")  # len, error, unique
_ATTR: Final = struct.Struct("=6Q10I")
_ENTRY: Final = struct.Struct("=4Q2I")  # nodeid, generation, validity of entry and attributes: always 0
_ATTR_VALID: Final = struct.Struct("=QII")
_OPENED: Final = struct.Struct("=QIi")  # fh, flags, backing id
_INIT_OUT: Final = struct.Struct("=IIIIHHIIHHII6I")
_STATFS: Final = struct.Struct("=5Q4I6I")
_SIZE: Final = struct.Struct("=II")
_DIRENT: Final = struct.Struct("=QQII")  # ino, offset of the next, length of the name, type
_BACKING: Final = struct.Struct("=iIQ")


class Request(NamedTuple):
    """One request; `body` is what follows its header."""

    operation: int
    unique: int
    node: int
    pid: int
    body: bytes

    def numbers(self, layout: str) -> tuple[int, ...]:
        """The numbers that its body begins with."""
        return struct.unpack_from(layout, self.body)

    def name(self, skip: int = 0) -> str:
        """The name in its body, behind `skip` bytes."""
        return os.fsdecode(self.body[skip : self.body.index(0, skip)])


def request(data: bytes) -> Request:
    """What was read from /dev/fuse at once."""
    length, operation, unique, node, _uid, _gid, pid, _extension, _padding = _IN.unpack_from(data)
    return Request(operation, unique, node, pid, data[_IN.size : length])


def answer(unique: int, body: bytes = b"", error: int = 0) -> bytes:
    """The answer to request `unique`: `body`, or a positive errno."""
    return _OUT.pack(_OUT.size + len(body), -error, unique) + body


def _attributes(found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return _ATTR.pack(
        found.st_ino,
        found.st_size,
        found.st_blocks,
        *(time // 10**9 for time in times),
        *(time % 10**9 for time in times),
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        _device(found.st_rdev),
        found.st_blksize,
        0,
    )


def _device(number: int) -> int:
    """A device number as the kernel packs it into 32 bits."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def entry(node: int, found: os.stat_result) -> bytes:
    """The answer to a lookup: valid for no time at all, so that the kernel asks each time."""
    return _ENTRY.pack(node, 1, 0, 0, 0, 0) + _attributes(found)


def attributes(found: os.stat_result) -> bytes:
    """The answer to a stat, valid for no time at all."""
    return _ATTR_VALID.pack(0, 0, 0) + _attributes(found)


def opened(handle: int, flags: int = 0, backing: int = 0) -> bytes:
    """The answer to an open."""
    return _OPENED.pack(handle, flags, backing)


def statistics(found: os.statvfs_result) -> bytes:
    """The answer to a statfs."""
    blocks = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
    return _STATFS.pack(*blocks, found.f_bsize, found.f_namemax, found.f_frsize, 0, *[0] * 6)


def sized(data: bytes, room: int) -> bytes:
    """The answer to a getxattr or listxattr with `room` bytes, 0 to ask for the size; OverflowError for too few."""
    if room == 0:
        return _SIZE.pack(len(data), 0)
    if room < len(data):
        raise OverflowError
    return data


def ioctl_result(data: bytes) -> bytes:
    """The answer to an ioctl that succeeded and gives `data`."""
    return struct.pack("=iIII", 0, 0, 0, 0) + data


def listing(entries: Iterable[tuple[str, int, int]], first: int, room: int) -> bytes:
    """As many directory entries (name, ino, DT_*) as fit into `room` bytes; the first has position `first`."""
    found = b""
    for position, (name, ino, kind) in enumerate(entries, start=first + 1):
        raw = os.fsencode(name)
        one = _DIRENT.pack(ino, position, len(raw), kind) + raw
        one += bytes(-len(one) % 8)
        if len(found) + len(one) > room:
            break
        found += one
    return found


def greeting(asked: Request, *, passthrough: bool) -> tuple[bytes, bool]:
    """The answer to the first request, and whether the kernel can do all of it."""
    _major, minor, readahead, flags = asked.numbers("=4I")
    if flags & INIT_EXT:
        flags |= asked.numbers("=5I")[4] << 32
    wanted = ASYNC_READ | EXPORT_SUPPORT | PARALLEL_DIROPS | POSIX_ACL | INIT_EXT
    wanted |= PASSTHROUGH if passthrough else 0
    given = wanted & flags
    body = _INIT_OUT.pack(
        MAJOR,
        min(minor, MINOR),
        readahead,
        given & 0xFFFFFFFF,
        16,  # background requests, congestion threshold
        12,
        4096,  # bytes of a write: there is none
        1,  # time granularity, ns
        0,
        0,
        given >> 32,
        1 if passthrough else 0,  # layers of stacking above what is passed through
        *[0] * 6,
    )
    return body, given == wanted


def backing_map(fd: int) -> bytes:
    """What BACKING_OPEN takes."""
    return _BACKING.pack(fd, 0, 0)
