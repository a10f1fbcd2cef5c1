# SPDX-License-Identifier: GPL-2.0-only
"""A disk that remembers each write: the image of a loop device is served by a FUSE daemon, which logs what it is told.

What a power cut may leave follows from that log: all writes up to some moment, or of those after the last flush only
some. It is a FUSE file of its own since no device of the guest records writes, and a file shows each of them.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from union import children, filesystems
from union.durability import CHUNK, Disk
from union.errors import SetupError
from union.fuse import wire
from union.fuse.wire import Op, Request

_DEVICE: Final = "/dev/fuse"
_OPTIONS: Final = "fd={fd},rootmode=100600,user_id=0,group_id=0"  # the root is the file itself
_RECORD: Final = struct.Struct("=QI")  # offset, length; the data follows, none for a flush
_WRITE_IN: Final = struct.Struct("=QQIIQII")  # fh, offset, size, flags, lock owner, flags, padding


class Write(NamedTuple):
    """What the disk was told: bytes at an offset, or without `data` to flush all that was written before.

    `end` is the position that the log had behind it.
    """

    end: int
    offset: int = 0
    data: bytes | None = None


class Recorder:
    """Serves an image file in its own place, until it is stopped. Whatever uses it must be gone by then."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._log = image.with_suffix(".log")
        self._stack = ExitStack()

    def start(self) -> Disk:
        """From now on what is at the path of the image is a file that remembers. Raises SetupError.

        The image itself changes with it: this is what it was.
        """
        disk = Disk.of(self._image)
        with ExitStack() as own:
            fds = []
            new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            for path, flags in ((_DEVICE, os.O_RDWR), (self._image, os.O_RDWR), (self._log, new)):
                try:
                    fds.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
                except OSError as error:
                    raise SetupError(f"{path}: {error.strerror}") from error
                own.callback(os.close, fds[-1])
            filesystems.mount(self._stack, "recorder", self._image, "fuse", _OPTIONS.format(fd=fds[0]))
            self._stack.callback(children.end, children.daemon(lambda: _serve(*fds), fds))
        self._image.stat()  # a loop device takes the size as the kernel knows it, without asking
        return disk

    def stop(self) -> None:
        """The image is a plain file again. Raises SetupError if it is still in use; does nothing if it is one."""
        self._stack.close()  # each write was answered when it was in the log: nothing is lost with the daemon

    def position(self) -> int:
        """How much is in the log by now, in bytes."""
        return self._log.stat().st_size

    def writes(self) -> list[Write]:
        """All that the disk was told, in order."""
        log, at, found = self._log.read_bytes(), 0, []
        while at < len(log):
            offset, length = _RECORD.unpack_from(log, at)
            at += _RECORD.size + length
            found.append(Write(at, offset, log[at - length : at] if length else None))
        return found


def _serve(fuse: int, image: int, log: int) -> None:
    while True:
        try:
            asked = wire.request(os.read(fuse, wire.BUFFER))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno == errno.ENOENT:  # who asked was killed
                continue
            raise
        if asked.operation in wire.UNANSWERED:
            continue
        try:
            answer = wire.answer(asked.unique, _body(asked, image, log))
        except OSError as error:
            answer = wire.answer(asked.unique, error=error.errno or errno.EIO)
        with suppress(FileNotFoundError):
            os.write(fuse, answer)


def _body(asked: Request, image: int, log: int) -> bytes:
    """The answer to one request; it is in the log before it is answered."""
    if asked.operation == Op.WRITE:
        _, offset, size, *_ = asked.numbers(_WRITE_IN.format)
        data = asked.body[_WRITE_IN.size : _WRITE_IN.size + size]
        os.pwrite(image, data, offset)
        os.write(log, _RECORD.pack(offset, size) + data)
        return struct.pack("=II", size, 0)
    if asked.operation == Op.READ:
        _, offset, size = asked.numbers("=QQI")
        return os.pread(image, size, offset)
    if asked.operation == Op.FSYNC:
        os.write(log, _RECORD.pack(0, 0))
        return b""
    if asked.operation == Op.INIT:
        return wire.greeting(asked, passthrough=False)[0]  # writes of at most a page
    if asked.operation == Op.GETATTR:
        return wire.attributes(os.fstat(image))
    if asked.operation == Op.OPEN:
        return wire.opened(1)
    if asked.operation == Op.STATFS:
        return wire.statistics(os.fstatvfs(image))
    if asked.operation in (Op.FLUSH, Op.RELEASE):
        return b""
    raise OSError(errno.ENOSYS, "not served")


def left_by(disk: Disk, writes: Iterable[Write], chance: Random | None = None) -> Disk:
    """What is on a disk after these writes; with `chance` only some of them were done."""
    pieces = dict(disk.pieces)
    for write in writes:
        if write.data is not None and (chance is None or chance.random() < 0.5):
            _put(pieces, write.offset, write.data)
    return Disk(disk.size, pieces)


def _put(pieces: dict[int, bytes], offset: int, data: bytes) -> None:
    """A page at a time, which is in one piece."""
    while data:
        start, into = offset - offset % CHUNK, offset % CHUNK
        part = data[: CHUNK - into]
        piece = pieces.get(start, b"").ljust(CHUNK, b"\0")
        pieces[start] = piece[:into] + part + piece[into + len(part) :]
        offset, data = offset + len(part), data[len(part) :]
