# SPDX-License-Identifier: GPL-2.0-only
"""The data of files beyond read and write: space, holes, extents, copies made by the kernel."""

from __future__ import annotations

import errno as errnos
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from union import filecalls, mountinfo, syscalls
from union.names import Name
from union.operations.base import Held, R, Value
from union.operations.descriptors import Step

UNSUPPORTED: Final = errnos.EOPNOTSUPP


def digest(content: bytes) -> str:
    """A content too large to be shown: its size and the start of its SHA-256."""
    return f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()[:16]}"


@contextmanager
def opened(path: str, flags: int = R) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest(Step):
    """Read the whole file and compare by hash."""

    word: ClassVar[str] = "digest"

    def call(self, root: str, held: Held) -> Value:
        return digest(Path(f"{root}/{self.path}").read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadByData(Step):
    """Read what SEEK_DATA and SEEK_HOLE call data, and take the rest for zeroes: must be the content."""

    word: ClassVar[str] = "read-by-data"

    def call(self, root: str, held: Held) -> Value:
        with opened(f"{root}/{self.path}") as fd:
            return digest(_assembled(fd, _data_ranges(fd)))


def _data_ranges(fd: int) -> Iterator[tuple[int, int]]:
    end, at = os.fstat(fd).st_size, 0
    while at < end:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errnos.ENXIO:  # no data from here on
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at - start


def _assembled(fd: int, ranges: Iterable[tuple[int, int]]) -> bytes:
    content = bytearray(os.fstat(fd).st_size)
    for start, length in ranges:
        part = os.pread(fd, length, start)
        content[start : start + len(part)] = part
    return bytes(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadByExtents(Step):
    """The same by the extents that FIEMAP gives. `unsupported` is what a filesystem without it answers."""

    word: ClassVar[str] = "read-by-extents"
    unsupported: int = 0

    def call(self, root: str, held: Held) -> Value:
        with opened(f"{root}/{self.path}") as fd:
            return digest(_assembled(fd, filecalls.data_extents(fd)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(Step):
    """Whether the file takes up as many blocks as its size: `full`, or `sparse` if less."""

    word: ClassVar[str] = "blocks"

    def call(self, root: str, held: Held) -> Value:
        status = os.stat(f"{root}/{self.path}")
        return "sparse" if status.st_blocks * 512 < status.st_size else "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteHoles(Step):
    """Keep as `held` where the first data is that the filesystem knows of; not all of them know holes."""

    word: ClassVar[str] = "note-holes"
    held: str

    def call(self, root: str, held: Held) -> Value:
        held.keep(self.held, _first_data(f"{root}/{self.path}"), lambda: None)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HolesKept(Step):
    """Whether the hole that the file began with is one still: `kept`, or how far it is now."""

    word: ClassVar[str] = "holes-kept"
    held: str

    def call(self, root: str, held: Held) -> Value:
        before, now = held.get(self.held), _first_data(f"{root}/{self.path}")
        return "kept" if now >= before else f"data from byte {now} on, it was {before}"


def _first_data(path: str) -> int:
    with opened(path) as fd:
        return next((start for start, _ in _data_ranges(fd)), os.fstat(fd).st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocate(Step):
    """fallocate(2) in one of its modes. `unsupported` is what a filesystem without the mode answers."""

    word: ClassVar[str] = "fallocate"
    held: str
    mode: int
    at: int
    length: int
    unsupported: int = 0

    def call(self, root: str, held: Held) -> Value:
        filecalls.fallocate(held.get(self.held), self.mode, self.at, self.length)
        return None


How = Literal["copy_file_range", "sendfile", "splice", "tee", "clone", "dedupe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Step):
    """The kernel copies `length` bytes at `start` of the held file `source` to `at` of the held file `target`.

    The value is the number of bytes, for a dedupe None if the two differ; a clone has none.
    `unsupported` is what a filesystem that shares no extents answers.
    """

    word: ClassVar[str] = "transfer"
    how: How
    source: str
    target: str
    length: int
    start: int = 0
    at: int = 0
    unsupported: int = 0

    def call(self, root: str, held: Held) -> Value:
        source, target = held.get(self.source), held.get(self.target)
        if self.how == "copy_file_range":
            return os.copy_file_range(source, target, self.length, self.start, self.at)
        if self.how == "clone":
            filecalls.clone(source, target, self.start, self.length, self.at)
            return None
        if self.how == "dedupe":
            return filecalls.dedupe(source, target, self.start, self.length, self.at)
        os.lseek(target, self.at, os.SEEK_SET)
        if self.how == "sendfile":
            return os.sendfile(target, source, self.start, self.length)
        return _through_pipe(source, target, self.start, self.length, tee=self.how == "tee")


def _through_pipe(source: int, target: int, start: int, length: int, *, tee: bool) -> int:
    """Splice into a pipe and out of it, by way of a second pipe if `tee`; not more than a pipe holds."""
    ends = [*os.pipe(), *os.pipe()]
    try:
        count = os.splice(source, ends[1], length, offset_src=start)
        if not tee:
            return os.splice(ends[0], target, count)
        filecalls.tee(ends[0], ends[3], count)
        return os.splice(ends[2], target, count)
    finally:
        for end in ends:
            os.close(end)


NAME_MAX: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class StatFs(Step):
    """statfs(2): the filesystem's type; and there are blocks, some of them free, and names of 255 bytes."""

    word: ClassVar[str] = "statfs"

    def call(self, root: str, held: Held) -> Value:
        space = filecalls.statfs(f"{root}/{self.path}")
        if not 0 < space.free <= space.blocks:
            return f"{space.free} of {space.blocks} blocks free"
        if space.name_max < NAME_MAX:
            return f"names of {space.name_max} bytes"
        return "overlay" if space.type == filecalls.OVERLAYFS_MAGIC else f"type {space.type:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeeze(Step):
    """Leave about `spare` bytes free on the filesystem that takes the copies, until `held` is closed.

    A tmpfs is made small; on any other the held file `filler` gets the free space without growing.
    """

    word: ClassVar[str] = "squeeze"
    held: str
    filler: str
    spare: int

    def call(self, root: str, held: Held) -> Value:
        space = filecalls.statfs(root)
        filler = held.get(self.filler)
        upper = upper_filesystem(root)
        if upper is None:
            size = space.free * space.block_size
            if size > MAX_FILLED:
                raise OSError(errnos.EFBIG, "too much to fill, this is nobody's test filesystem", root)
            held.keep(self.held, None, lambda: _give_back(filler, size))
            _fill(filler, size)
            _give_back(filler, self.spare)
        else:
            used = (space.blocks - space.free) * space.block_size
            held.keep(self.held, None, lambda: _resize(upper, space.blocks * space.block_size))
            _resize(upper, used + self.spare)
        return None


MAX_FILLED: Final = 1 << 30  # bytes
SMALLEST_PIECE: Final = 64 << 10
_PUNCH: Final = filecalls.PUNCH_HOLE | filecalls.KEEP_SIZE


def _fill(filler: int, size: int) -> None:
    """Take all space there is, up to `size` bytes, in smaller and smaller pieces: some of it is reserved."""
    at, piece = 0, size
    while piece >= SMALLEST_PIECE:
        try:
            filecalls.fallocate(filler, filecalls.KEEP_SIZE, at, piece)
            at += piece
        except OSError:
            piece //= 2


def _give_back(filler: int, size: int) -> None:
    filecalls.fallocate(filler, _PUNCH, 0, size)
    filecalls.syncfs(filler)  # blocks are free when that is in the journal


def can_be_squeezed(upper: str) -> bool:
    """Whether `Squeeze` can leave little space on the filesystem of `upper`: not if that frees blocks when it likes."""
    space = filecalls.statfs(upper)
    if space.type == filecalls.XFS_MAGIC:
        return space.free * space.block_size <= MAX_FILLED
    return space.type == filecalls.TMPFS_MAGIC


def upper_filesystem(root: str) -> str | None:
    """Where the tmpfs is mounted that holds the upper layer of the union at `root`; None if it is no tmpfs.

    A plain tmpfs at `root` is its own.
    """
    mount = mountinfo.find(syscalls.mount_id(root))
    where = dict(mount.options).get("upperdir", root) if mount else root
    if filecalls.statfs(where).type != filecalls.TMPFS_MAGIC:
        return None
    number = syscalls.mount_id(where)
    while syscalls.mount_id(os.path.dirname(where)) == number:
        where = os.path.dirname(where)
    return where


def _resize(tmpfs: str, size: int) -> None:
    syscalls.mount("none", tmpfs, None, syscalls.MS_REMOUNT, f"size={size}")


# Written short, as scenarios use them ---------------------------------------------------------------


def reads_whole(path: Name, content: bytes) -> tuple[Step, ...]:
    """`path` has this content, read through and read by what it calls its data."""
    return Digest(path=path, returns=digest(content)), ReadByData(path=path, returns=digest(content))
