# SPDX-License-Identifier: GPL-2.0-only
"""System calls that Python's os lacks. Each errno is an OSError that carries the path or paths.

Numbers and structures are those of Linux on x86-64 and arm64, where everything used here has the same
layout. Nothing is executed and nothing waits.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# mount(2) flags
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18

MNT_DETACH = 2  # umount2(2)

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
AT_FDCWD = -100
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_CHANGE_FD = 0x4C06
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4

# The mount API has the same numbers on every architecture but alpha; not every libc has the functions.
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_FSPICK = 433
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSMOUNT_CLOEXEC = 1
_FSOPEN_CLOEXEC = 1
_FSPICK_CLOEXEC = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
FSCONFIG_STRING_MAX = 255  # bytes of a value, the kernel's limit of 256 with its terminator


_libc = ctypes.CDLL(None, use_errno=True)
_StrPath = str | os.PathLike[str]


def _checked(result: int, *paths: _StrPath) -> int:
    """Turn -1 and errno into an OSError with up to two paths."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    names = [os.fspath(path) for path in paths]
    if len(names) > 1:
        raise OSError(number, os.strerror(number), names[0], None, names[1])
    raise OSError(number, os.strerror(number), *names)


def _bytes(text: _StrPath | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str, target: _StrPath, fstype: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2); `options` is the filesystem's own comma separated string."""
    args = (_bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(options))
    _checked(_libc.mount(*args), target)


def umount(target: _StrPath) -> None:
    """umount2(2) without flags: EBUSY means busy, nothing is detached lazily."""
    _checked(_libc.umount2(_bytes(target), 0), target)


def detach(target: _StrPath) -> None:
    """umount2(2) with MNT_DETACH: gone from the tree now, unmounted when the last user lets go."""
    _checked(_libc.umount2(_bytes(target), MNT_DETACH), target)


def unshare_mounts() -> None:
    """Give the calling thread a mount namespace of its own whose mounts tell no other about changes."""
    _checked(_libc.unshare(CLONE_NEWNS))
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def unshare_user() -> None:
    """Be root of a new user namespace in which our own user alone exists, with a mount namespace of its own.

    For a child process: there is no way back. Raises OSError if the kernel or its policy does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    _checked(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def unshare_processes() -> None:
    """Put the next child into a process namespace of its own, as its first process: with that one all in it end."""
    _checked(_libc.unshare(CLONE_NEWPID))


CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = struct.Struct("=6I")  # effective, permitted and inheritable of the lower 32, then of the upper 32


@contextmanager
def without_capabilities(*numbers: int) -> Iterator[None]:
    """The calling thread does without these capabilities (below 32), as far as they are effective; needs none."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    had = ctypes.create_string_buffer(_CAPABILITIES.size)
    _checked(_libc.capget(header, had))
    effective, *others = _CAPABILITIES.unpack(had.raw)
    for number in numbers:
        effective &= ~(1 << number)
    _checked(_libc.capset(header, _CAPABILITIES.pack(effective, *others)))
    try:
        yield
    finally:
        _checked(_libc.capset(header, had))


class FsContext:
    """A filesystem being configured through fsopen(2). Close it by using it as a context manager.

    The kernel's own words about a refusal are in `messages()`.
    """

    def __init__(self, fstype: str, mounted: _StrPath | None = None) -> None:
        """A new filesystem, or by fspick(2) the one that is `mounted` there.

        Raises OSError: ENODEV if the kernel lacks `fstype`, ENOSYS if it lacks the mount API.
        """
        self._fstype = fstype
        if mounted is None:
            self._fd = _checked(_libc.syscall(_NR_FSOPEN, _bytes(fstype), _FSOPEN_CLOEXEC), fstype)
        else:
            self._fd = _checked(_libc.syscall(_NR_FSPICK, AT_FDCWD, _bytes(mounted), _FSPICK_CLOEXEC), mounted)

    @classmethod
    def received(cls, fstype: str, fd: int) -> FsContext:
        """The context that another process has sent as a descriptor, ours from now on."""
        context = cls.__new__(cls)
        context._fstype, context._fd = fstype, fd
        return context

    def fileno(self) -> int:
        """Its descriptor, to be sent to another process."""
        return self._fd

    def __enter__(self) -> FsContext:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)

    def set(self, key: str, value: str | int = "") -> None:
        """One mount option: a flag if `value` is empty, an open descriptor if it is a number.

        The value has at most FSCONFIG_STRING_MAX bytes.
        """
        if isinstance(value, int):
            _checked(_libc.syscall(_NR_FSCONFIG, self._fd, _FSCONFIG_SET_FD, _bytes(key), None, value), key)
            return
        command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
        self._config(command, _bytes(key), _bytes(value or None), f"{key}={value}" if value else key)

    def create(self) -> None:
        """Make the superblock with the options given so far."""
        self._config(_FSCONFIG_CMD_CREATE, None, None, self._fstype)

    def reconfigure(self) -> None:
        """Change the filesystem that was picked to the options given so far."""
        self._config(_FSCONFIG_CMD_RECONFIGURE, None, None, self._fstype)

    def mount(self, target: _StrPath) -> None:
        """Attach the created superblock to the directory `target`."""
        fd = _checked(_libc.syscall(_NR_FSMOUNT, self._fd, _FSMOUNT_CLOEXEC, 0), target)
        try:
            args = (fd, b"", AT_FDCWD, _bytes(target), _MOVE_MOUNT_F_EMPTY_PATH)
            _checked(_libc.syscall(_NR_MOVE_MOUNT, *args), target)
        finally:
            os.close(fd)

    def messages(self) -> list[str]:
        """What the kernel said since the last call, oldest first, without its level letter."""
        found: list[str] = []
        while True:
            try:
                text = os.read(self._fd, 4096)
            except OSError as error:
                if error.errno == errno.ENODATA:
                    return found
                raise
            found.append(text.decode(errors="replace").rstrip("\n").partition(" ")[2])

    def _config(self, command: int, key: bytes | None, value: bytes | None, name: str) -> None:
        _checked(_libc.syscall(_NR_FSCONFIG, self._fd, command, key, value, 0), name)


def knows_filesystem(fstype: str) -> bool:
    """Whether the kernel has the filesystem, a module that it can load included; needs the right to mount."""
    try:
        with FsContext(fstype):
            return True
    except OSError as error:
        if error.errno == errno.ENOSYS:  # no mount API to ask: the mount itself will tell
            return True
        if error.errno == errno.ENODEV:
            return False
        raise


class Dirent(NamedTuple):
    """A directory entry as the kernel gave it: name (surrogateescape), d_ino and d_type (DT_*)."""

    name: str
    ino: int
    type: int


DT_CHR = 2
DT_DIR = 4
DT_REG = 8
DT_LNK = 10

_DIRENT = struct.Struct("=QqHB")  # d_ino, d_off, d_reclen, d_type; the name follows, ended by NUL
_buffer = ctypes.create_string_buffer(64 * 1024)


def getdents(fd: int) -> list[Dirent]:
    """List the open directory `fd` from its present position to its end, `.` and `..` included.

    Not for use by two threads at once: they would share the buffer.
    """
    entries = []
    while some := getdents_once(fd, len(_buffer)):
        entries += some
    return entries


def getdents_once(fd: int, size: int) -> list[Dirent]:
    """The next entries of the open directory `fd`, as many as fit into `size` bytes (at most 64 KiB); none at its end.

    Not for use by two threads at once either.
    """
    entries = []
    unpack, header = _DIRENT.unpack_from, _DIRENT.size  # every entry of every directory comes through here
    size = _checked(_libc.getdents64(fd, _buffer, size), f"fd {fd}")
    data = ctypes.string_at(_buffer, size)
    at = 0
    while at < size:
        ino, _position, length, kind = unpack(data, at)
        name = data[at + header : data.index(0, at + header)]
        entries.append(Dirent(name.decode(errors="surrogateescape"), ino, kind))
        at += length
    return entries


def mount_id(path: _StrPath | int) -> int:
    """The id, as in mountinfo, of the mount that `path` (or the open descriptor) is on.

    Read from /proc and not with statx: a filesystem that was shut down answers no stat.
    """
    if not isinstance(path, int):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return mount_id(fd)
        finally:
            os.close(fd)
    with open(f"/proc/self/fdinfo/{path}", "rb", buffering=0) as info:
        found = re.search(rb"^mnt_id:\s*(\d+)$", info.read(), re.MULTILINE)
    if found:
        return int(found[1])
    raise OSError(errno.EOPNOTSUPP, "this kernel tells no mount id", f"/proc/self/fdinfo/{path}")


_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
_XFS_IOC_GOINGDOWN = 0x8004587D
_NOLOGFLUSH = 2


def freeze(path: _StrPath) -> None:
    """Freeze the filesystem: whoever writes to it waits until it is thawed. Raises OSError if it cannot be."""
    _ioctl(path, _FIFREEZE)


def thaw(path: _StrPath) -> None:
    """Let writers of a frozen filesystem go on."""
    _ioctl(path, _FITHAW)


def go_down(fd: int) -> None:
    """XFS_IOC_GOINGDOWN on the open root `fd`, the log not written out: all that `xfs_io -x -c shutdown` does.

    For filesystems that are shut down by the thousand: a program each would cost more than all the rest.
    Raises OSError.
    """
    fcntl.ioctl(fd, _XFS_IOC_GOINGDOWN, struct.pack("=I", _NOLOGFLUSH))


def _ioctl(path: _StrPath, request: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, 0)
    finally:
        os.close(fd)


def drop_caches(*, pages: bool = True) -> None:
    """Drop unused dentries and inodes of the whole system and, if wanted, clean page cache; needs root."""
    fd = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    try:
        os.write(fd, b"3" if pages else b"2")
    finally:
        os.close(fd)


# struct loop_config up to the end of its loop_info64: fd, block_size, then in that five 64-bit numbers,
# number, encrypt type, key size, flags, file name, crypt name, key, init; then 8 reserved 64-bit words.
_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
_LOOP_ATTEMPTS = 64  # others may take the device that was free a moment ago


def attach_loop(image: _StrPath, *, read_only: bool = False) -> tuple[str, int]:
    """Attach `image` to a free loop device: its path and a descriptor of it, open for reading.

    The device frees itself when the descriptor is closed and nothing is mounted from it any more, even
    if this process is killed. Raises OSError for a missing loop driver or device node.
    """
    image_fd = os.open(image, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR)
        try:
            return _attach_free(control, image_fd, os.fsencode(image), read_only)
        finally:
            os.close(control)
    finally:
        os.close(image_fd)


def _attach_free(control: int, image_fd: int, name: bytes, read_only: bool) -> tuple[str, int]:
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    config = _LOOP_CONFIG.pack(image_fd, 0, *[0] * 5, 0, 0, 0, flags, name[:63], b"", b"", 0, 0, *[0] * 8)
    for _ in range(_LOOP_ATTEMPTS):
        device = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        fd = os.open(device, os.O_RDONLY if read_only else os.O_RDWR)
        try:
            fcntl.ioctl(fd, LOOP_CONFIGURE, config)
            # A kernel without BLK_DEV_WRITE_MOUNTED mounts no device that is open for writing.
            return device, os.open(device, os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise OSError(error.errno, error.strerror, device) from error
        finally:
            os.close(fd)
    raise OSError(errno.EBUSY, "no loop device stays free", "/dev/loop-control")


def change_loop(device: _StrPath, image: _StrPath) -> None:
    """Give a read-only loop device another image of the same size. Raises OSError."""
    fd = os.open(device, os.O_RDONLY)
    try:
        other = os.open(image, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, LOOP_CHANGE_FD, other)
        finally:
            os.close(other)
    finally:
        os.close(fd)
