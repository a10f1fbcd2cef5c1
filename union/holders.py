# SPDX-License-Identifier: GPL-2.0-only
"""Processes that hold something of a union open, and use it later: files, directories, mappings, programs (D16)."""

from __future__ import annotations

import errno
import faulthandler
import gc
import mmap
import os
import platform
import select
import signal
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets.tree import Directory, File
from union import filecalls, syscalls
from union.children import end_with_parent
from union.errors import SetupError
from union.stand import errno_name

WORKS: Final = "works"
WRONG: Final = "WRONG DATA"
SILENT: Final = "no event"
PAGE: Final = mmap.PAGESIZE
FAR: Final = 0x20000  # bytes: a page that is not mapped along with the first ones
_PATIENCE: Final = 30.0  # seconds
_WRONG, _SILENT, _FAULT = 250, 251, 252  # exit statuses; others are errnos
_IN_ATTRIB: Final = 4
_MACHINE: Final = "x86_64"


def _program() -> bytes:
    """An ELF program that reads a byte and then ends with status 0, by instructions on a page far away."""
    base = 0x400000
    size = FAR + PAGE
    kind = b"\x7fELF\x02\x01\x01"
    header = struct.pack("<16sHHIQQQIHHHHHH", kind, 2, 62, 1, base + 0x78, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, PAGE)
    wait = b"\x31\xc0\x31\xff\x48\x8d\x74\x24\xf0\xba\x01\0\0\0\x0f\x05"  # read(0, stack - 16, 1)
    jump = b"\xb8" + struct.pack("<I", base + FAR) + b"\xff\xe0"
    end = b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"  # exit(0)
    return (header + segment + wait + jump).ljust(FAR, b"\x90") + end.ljust(PAGE, b"\x90")


CONTENT: Final = bytes(range(1, 252)) * ((FAR + PAGE) // 251 + 1)
TREE: Final = Directory({
    "file": File(CONTENT),
    "program": File(_program(), 0o755),
    "dir": Directory({"in": File(b"in"), "other": Directory()}),
})  # fmt: skip
"""What each row has of its own in the lower layer."""


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is opened in a directory like TREE, and what is done with it later.

    `needs_lower`: it cannot work over a dead lower unless what it needs was copied up before it was opened.
    """

    what: str
    use: str
    open: Callable[[str], Any]
    work: Callable[[Any], object]
    needs_lower: bool = True


class Wrong(Exception):
    """Data that nobody has written."""


class Silent(Exception):
    """No event."""


def _same(got: bytes, wanted: bytes) -> None:
    if got != wanted:
        raise Wrong


def _opened(name: str, flags: int) -> Callable[[str], int]:
    return lambda top: os.open(f"{top}/{name}", flags)


def _read(fd: int) -> None:
    _same(os.pread(fd, 100, FAR), CONTENT[FAR : FAR + 100])


def _write(fd: int) -> None:
    os.pwrite(fd, CONTENT[:100], 0)
    os.fsync(fd)


def _through_proc(fd: int) -> None:
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    _read(again)


def _listed(fd: int) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    if {entry.name for entry in syscalls.getdents(fd)} != {".", "..", "in", "other"}:
        raise Wrong


def _open_in(fd: int) -> None:
    _same(os.read(os.open("in", os.O_RDONLY, dir_fd=fd), 9), b"in")


def _missing(fd: int) -> None:
    try:
        os.stat("none", dir_fd=fd)
    except FileNotFoundError:
        return
    raise Wrong


def _make(fd: int) -> None:
    os.mkdir("made", dir_fd=fd)


def _entered(top: str) -> int:
    os.chdir(f"{top}/dir")
    return syscalls.AT_FDCWD


def _cwd(_at: int) -> None:
    if Path.cwd().name != "dir":
        raise Wrong


def _open_relative(_at: int) -> None:
    _same(os.read(os.open("in", os.O_RDONLY), 9), b"in")


def _stat_cwd(_at: int) -> None:
    os.stat(".")


def _mapped(flags: int) -> Callable[[str], mmap.mmap]:
    def work(top: str) -> mmap.mmap:
        fd = os.open(f"{top}/file", os.O_RDONLY)
        where = mmap.mmap(fd, FAR + PAGE, flags, mmap.PROT_READ)
        where.madvise(mmap.MADV_RANDOM)  # no page but the one that is touched
        _same(where[:9], CONTENT[:9])
        return where

    return work


def _resident(where: mmap.mmap) -> None:
    _same(where[:9], CONTENT[:9])


def _absent(where: mmap.mmap) -> None:
    _same(where[FAR : FAR + 9], CONTENT[FAR : FAR + 9])


def _started(top: str) -> subprocess.Popen[bytes]:
    if platform.machine() != _MACHINE:
        raise SetupError(f"the program of this row runs on {_MACHINE} alone")
    return subprocess.Popen([f"{top}/program"], stdin=subprocess.PIPE, preexec_fn=end_with_parent)


def _goes_on(program: subprocess.Popen[bytes]) -> None:
    program.communicate(b"!")
    if program.returncode < 0:
        os.kill(os.getpid(), -program.returncode)
    elif program.returncode:
        raise Wrong


def _watched(name: str) -> Callable[[str], tuple[int, str]]:
    def work(top: str) -> tuple[int, str]:
        fd = filecalls.inotify_init()
        filecalls.inotify_add_watch(fd, f"{top}/{name}", _IN_ATTRIB)
        return fd, f"{top}/{name}"

    return work


def _told(watch: tuple[int, str]) -> None:
    fd, path = watch
    os.utime(path)
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        raise Silent from None


_DIRECTORY: Final = _opened("dir", os.O_RDONLY | os.O_DIRECTORY)
_SHARED, _PRIVATE = _mapped(mmap.MAP_SHARED), _mapped(mmap.MAP_PRIVATE)
ROWS: Final = (
    Row("file, read-only", "read", _opened("file", os.O_RDONLY), _read),
    Row("file, read-only", "fstat", _opened("file", os.O_RDONLY), os.fstat),
    Row("file, read-only", "fsync", _opened("file", os.O_RDONLY), os.fsync, False),
    Row("file, read and write", "read", _opened("file", os.O_RDWR), _read, False),
    Row("file, read and write", "write, fsync", _opened("file", os.O_RDWR), _write, False),
    Row("O_PATH", "fstat", _opened("file", os.O_PATH), os.fstat),
    Row("O_PATH", "open through /proc, read", _opened("file", os.O_PATH), _through_proc),
    Row("directory", "list", _DIRECTORY, _listed),
    Row("directory", "fstat", _DIRECTORY, os.fstat),
    Row("directory", "openat, read", _DIRECTORY, _open_in),
    Row("directory", "stat of a missing name", _DIRECTORY, _missing),
    Row("directory", "mkdirat", _DIRECTORY, _make),
    Row("working directory", "getcwd", _entered, _cwd, False),
    Row("working directory", "stat", _entered, _stat_cwd),
    Row("working directory", "open a file, read", _entered, _open_relative),
    Row("shared mapping", "a page that was read", _SHARED, _resident, False),
    Row("shared mapping", "another page", _SHARED, _absent),
    Row("private mapping", "a page that was read", _PRIVATE, _resident, False),
    Row("private mapping", "another page", _PRIVATE, _absent),
    Row("running program", "goes on on another page", _started, _goes_on),
    Row("inotify watch of a file", "its time changes", _watched("file"), _told),
    Row("inotify watch of a directory", "its time changes", _watched("dir"), _told),
)


class Holder:
    """A process that has opened what a row says, in the directory `top` of a union."""

    def __init__(self, row: Row, top: str) -> None:
        """Raises SetupError if it cannot be opened."""
        said, ready = os.pipe()
        go, self._go = os.pipe()
        self.row = row
        self._pid = os.fork()
        if not self._pid:
            _hold(row, top, ready, go)
        os.close(ready)
        os.close(go)
        words = os.read(said, 1000)
        os.close(said)
        if words != b"ready":
            self._end()
            raise SetupError(f"{row.what}, {row.use}: {words.decode() or 'its process died'}")

    def result(self) -> str:
        """Use it now: WORKS, the name of an errno or a signal, WRONG or SILENT. Raises SetupError if it never ends."""
        os.write(self._go, b"!")
        fd = os.pidfd_open(self._pid)
        try:
            if not select.select([fd], [], [], _PATIENCE)[0]:
                raise SetupError(f"{self.row.what}, {self.row.use}: hangs")
        finally:
            os.close(fd)
            status = self._end()
        if os.WIFSIGNALED(status):
            return signal.Signals(os.WTERMSIG(status)).name
        code = os.WEXITSTATUS(status)
        if code == _FAULT:
            raise SetupError(f"{self.row.what}, {self.row.use}: the process failed")
        return {0: WORKS, _WRONG: WRONG, _SILENT: SILENT}.get(code) or errno_name(code)

    def _end(self) -> int:
        """Its wait status; it is killed unless it has ended."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
        os.close(self._go)
        return status


def _hold(row: Row, top: str, ready: int, go: int) -> None:
    """In the process."""
    status = _FAULT
    faulthandler.disable()  # a signal is a result
    gc.disable()  # it would look at all that we have inherited, and copy the pages
    try:
        end_with_parent()
        try:
            held = row.open(top)
        except (OSError, SetupError) as error:
            os.write(ready, str(error).encode())
            return
        os.write(ready, b"ready")
        os.close(ready)
        os.read(go, 1)
        try:
            row.work(held)
            status = 0
        except OSError as error:
            status = error.errno or errno.EIO
        except Wrong:
            status = _WRONG
        except Silent:
            status = _SILENT
    finally:
        os._exit(status)
