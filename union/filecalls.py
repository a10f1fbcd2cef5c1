# SPDX-License-Identifier: GPL-2.0-only
"""System calls on files that Python's os lacks: space, extents, handles, watches.

Each errno is an OSError. Numbers and structures are those that x86-64 and arm64 share.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

# fallocate(2) modes
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
COLLAPSE_RANGE = 0x08
ZERO_RANGE = 0x10
INSERT_RANGE = 0x20
UNSHARE_RANGE = 0x40

FICLONE = 0x40049409
FICLONERANGE = 0x4020940D
FIDEDUPERANGE = 0xC0189436
FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_FLAG_SYNC = 1
_FIEMAP_EXTENT_LAST = 0x0001
_FIEMAP_EXTENT_UNWRITTEN = 0x0800
_FIEMAP_EXTENTS = 256  # asked for at a time

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_FOLLOW = 0x400
AT_HANDLE_FID = 0x200  # name_to_handle_at(2): a handle that tells objects apart, not one to open
AT_HANDLE_CONNECTABLE = 0x002
MAX_HANDLE = 128

OVERLAYFS_MAGIC = 0x794C7630
TMPFS_MAGIC = 0x01021994
XFS_MAGIC = 0x58465342

_libc = ctypes.CDLL(None, use_errno=True)
_c_off = ctypes.c_int64


def _checked(result: int, path: str | None = None) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2); unlike posix_fallocate(3) it is never emulated by writing."""
    _checked(_libc.fallocate(fd, mode, _c_off(offset), _c_off(length)))


def syncfs(fd: int) -> None:
    """syncfs(2): write out the filesystem that `fd` is on."""
    _checked(_libc.syncfs(fd))


def readahead(fd: int, offset: int, count: int) -> None:
    """readahead(2)."""
    _checked(_libc.readahead(fd, _c_off(offset), ctypes.c_size_t(count)))


def link_descriptor(fd: int, path: str) -> None:
    """linkat(2) with AT_EMPTY_PATH: give the open file the new name `path`; needs CAP_DAC_READ_SEARCH."""
    _checked(_libc.linkat(fd, b"", AT_FDCWD, os.fsencode(path), AT_EMPTY_PATH), path)


def link_followed(source: str, path: str) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW: what the symlink `source` leads to gets the new name `path`."""
    paths = (os.fsencode(source), AT_FDCWD, os.fsencode(path))
    _checked(_libc.linkat(AT_FDCWD, *paths, AT_SYMLINK_FOLLOW), path)


def tee(source: int, target: int, length: int) -> int:
    """tee(2): what the pipe `source` holds goes to the pipe `target` too; the number of bytes."""
    return _checked(_libc.tee(source, target, ctypes.c_size_t(length), 0))


def clone(source: int, target: int, offset: int, length: int, at: int) -> None:
    """FICLONERANGE, or FICLONE for all of `source` if nothing else is said."""
    if (offset, length, at) == (0, 0, 0):
        fcntl.ioctl(target, FICLONE, source)
    else:
        fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, offset, length, at))


def dedupe(source: int, target: int, offset: int, length: int, at: int) -> int | None:
    """FIDEDUPERANGE with one target: the bytes now shared, None if the two differ; its status is an errno."""
    request = bytearray(struct.pack("=QQHHI qQQiI", offset, length, 1, 0, 0, target, at, 0, 0, 0))
    fcntl.ioctl(source, FIDEDUPERANGE, request)
    _, _, done, status, _ = struct.unpack_from("=qQQiI", request, 24)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return None if status else int(done)


def data_extents(fd: int) -> list[tuple[int, int]]:
    """FS_IOC_FIEMAP: offset and length of each extent that holds data, the file written out first."""
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        request = bytearray(32 + 56 * _FIEMAP_EXTENTS)
        struct.pack_into("=QQIIII", request, 0, start, (1 << 63) - 1, _FIEMAP_FLAG_SYNC, 0, _FIEMAP_EXTENTS, 0)
        fcntl.ioctl(fd, FS_IOC_FIEMAP, request)
        (mapped,) = struct.unpack_from("=I", request, 20)
        flags = _FIEMAP_EXTENT_LAST
        for number in range(mapped):
            at, _physical, length = struct.unpack_from("=QQQ", request, 32 + 56 * number)
            (flags,) = struct.unpack_from("=I", request, 32 + 56 * number + 40)
            if not flags & _FIEMAP_EXTENT_UNWRITTEN:
                found.append((at, length))
            start = at + length
        if flags & _FIEMAP_EXTENT_LAST:
            return found


class FileHandle(NamedTuple):
    """struct file_handle: a type that is the filesystem's own, and opaque bytes."""

    type: int
    data: bytes


class _RawHandle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * MAX_HANDLE))


def name_to_handle(path: str, flags: int = 0) -> FileHandle:
    """name_to_handle_at(2); a symlink is not followed."""
    raw, mount = _RawHandle(size=MAX_HANDLE), ctypes.c_int()
    call = _libc.name_to_handle_at
    _checked(call(AT_FDCWD, os.fsencode(path), ctypes.byref(raw), ctypes.byref(mount), flags), path)
    return FileHandle(raw.type, bytes(raw.data[: raw.size]))


def open_by_handle(mount_fd: int, handle: FileHandle, flags: int) -> int:
    """open_by_handle_at(2) on the filesystem of `mount_fd`; needs CAP_DAC_READ_SEARCH."""
    raw = _RawHandle(size=len(handle.data), type=handle.type)
    raw.data[: len(handle.data)] = list(handle.data)
    return _checked(_libc.open_by_handle_at(mount_fd, ctypes.byref(raw), flags | os.O_CLOEXEC))


class Space(NamedTuple):
    """The part of struct statfs that says what kind of filesystem it is, and how full."""

    type: int
    block_size: int
    blocks: int
    free: int
    name_max: int


def statfs(path: str) -> Space:
    """statfs(2)."""
    words = (ctypes.c_long * 32)()  # longer than the structure: type, bsize, blocks, bfree, bavail, files, ...
    _checked(_libc.statfs(os.fsencode(path), ctypes.byref(words)), path)
    return Space(words[0], words[1], words[2], words[3], words[8])


class Watched(NamedTuple):
    """An inotify event: its mask, and the name in a watched directory."""

    mask: int
    name: str


def inotify_init() -> int:
    """inotify_init1(2), not blocking."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2)."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), path)


def inotify_events(fd: int) -> list[Watched]:
    """All events that are waiting."""
    found: list[Watched] = []
    while data := _waiting(fd):
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("=iIII", data, at)
            found.append(Watched(mask, os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))))
            at += 16 + length
    return found


FAN_REPORT_FID = 0x200
FAN_NONBLOCK = 0x2
FAN_CLASS_CONTENT = 0x4
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM = 0x10000
FAN_ALLOW = 1
FAN_DENY = 2
_FAN_HEADER = struct.Struct("=IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid


class Notified(NamedTuple):
    """A fanotify event: its mask, and the object's descriptor or, if the group reports those, its handle."""

    mask: int
    fd: int
    handle: FileHandle | None


def fanotify_init(flags: int) -> int:
    """fanotify_init(2); needs CAP_SYS_ADMIN."""
    return _checked(_libc.fanotify_init(flags | 1, os.O_RDONLY | os.O_CLOEXEC))  # 1: FAN_CLOEXEC


def fanotify_mark(fd: int, path: str, mask: int) -> None:
    """fanotify_mark(2) of one object."""
    _checked(_libc.fanotify_mark(fd, FAN_MARK_ADD, ctypes.c_uint64(mask), AT_FDCWD, os.fsencode(path)), path)


def fanotify_events(fd: int) -> list[Notified]:
    """All events that are waiting, or the next ones if `fd` blocks."""
    found: list[Notified] = []
    while data := _waiting(fd):
        at = 0
        while at < len(data):
            length, _, _, header, mask, event_fd, _ = _FAN_HEADER.unpack_from(data, at)
            record = data[at + header : at + length]
            found.append(Notified(mask, event_fd, _handle_in(record) if record else None))
            at += length
        if os.get_blocking(fd):
            break
    return found


def fanotify_answer(fd: int, event_fd: int, answer: int) -> None:
    """Let a permission event's caller go on, or refuse it."""
    os.write(fd, struct.pack("=iI", event_fd, answer))


def _handle_in(record: bytes) -> FileHandle:
    # struct fanotify_event_info_fid: type, padding, length, fsid of 8 bytes; then a struct file_handle
    size, kind = struct.unpack_from("=Ii", record, 12)
    return FileHandle(kind, record[20 : 20 + size])


def _waiting(fd: int) -> bytes:
    try:
        return os.read(fd, 64 * 1024)
    except BlockingIOError as error:
        if error.errno == errno.EAGAIN:
            return b""
        raise
