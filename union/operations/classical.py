# SPDX-License-Identifier: GPL-2.0-only
"""The operations of the classical suite."""

from __future__ import annotations

import errno as errnos
import os
import shlex
from dataclasses import dataclass
from typing import ClassVar

from union.names import Name
from union.operations.base import (
    CREAT,
    DIRECTORY,
    EXCL,
    RW,
    TRUNC,
    Held,
    Operation,
    R,
    Result,
    TwoNames,
    Value,
    W,
    acting_as,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile(Operation):
    """open(2), then write `writes`, or read all and compare with `reads`."""

    word: ClassVar[str] = "open-file"
    flags: int
    mode: int = 0
    reads: bytes | None = None
    writes: bytes | None = None

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.reads)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            return self._open(f"{root}/{self.path}")

    def _open(self, path: str) -> Value:
        fd = os.open(path, self.flags, self.mode)
        try:
            if self.writes is not None:
                written = os.write(fd, self.writes)
                if written != len(self.writes):
                    raise OSError(errnos.ENOSPC, f"short write of {written} bytes", path)
            if self.reads is None:
                return None
            size = os.fstat(fd).st_size
            data = os.pread(fd, size + 1, 0)
            # A file whose stat and content disagree must not look like either.
            return data if len(data) == size else f"size {size} but {len(data)} bytes"
        finally:
            os.close(fd)

    def letters(self) -> list[str]:
        access = {R: ["-r"], W: ["-w"], RW: ["-r", "-w"]}[self.flags & os.O_ACCMODE]
        flags = [
            letter
            for flag, letter in ((os.O_APPEND, "-a"), (DIRECTORY, "-d"), (CREAT, "-c"), (EXCL, "-e"), (TRUNC, "-t"))
            if self.flags & flag
        ]
        mode = ["-m", str(self.mode)] if self.mode else []
        reads = ["-R", _printable(self.reads)] if self.reads is not None else []
        writes = ["-W", _printable(self.writes)] if self.writes is not None else []
        return access + flags + mode + reads + writes


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory(Operation):
    """mkdir(2)."""

    word: ClassVar[str] = "mkdir"
    remounts: ClassVar[bool] = True
    rotates: ClassVar[bool] = True
    mode: int = 0o755

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.mkdir(f"{root}/{self.path}", self.mode)
        return None

    def arguments(self, root: str) -> list[str]:
        return [f"{root}/{self.path}", f"0{self.mode:o}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveDirectory(Operation):
    """rmdir(2)."""

    word: ClassVar[str] = "rmdir"

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.rmdir(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink(Operation):
    """unlink(2)."""

    word: ClassVar[str] = "unlink"

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.unlink(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename(TwoNames):
    """rename(2)."""

    word: ClassVar[str] = "rename"
    remounts: ClassVar[bool] = True
    rotates: ClassVar[bool] = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.rename(f"{root}/{self.path}", f"{root}/{self.to}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(TwoNames):
    """link(2): a symlink source is linked itself, never followed."""

    word: ClassVar[str] = "link"
    remounts: ClassVar[bool] = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.link(f"{root}/{self.path}", f"{root}/{self.to}", follow_symlinks=False)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLink(Operation):
    """readlink(2)."""

    word: ClassVar[str] = "readlink"
    reads: str | None = None

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.reads)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            return os.readlink(f"{root}/{self.path}")

    def letters(self) -> list[str]:
        return [] if self.reads is None else ["-R", self.reads]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate(Operation):
    """truncate(2) by path."""

    word: ClassVar[str] = "truncate"
    size: int

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.truncate(f"{root}/{self.path}", self.size)
        return None

    def arguments(self, root: str) -> list[str]:
        return [f"{root}/{self.path}", str(self.size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch(Operation):
    """utimensat(2) with both times now."""

    word: ClassVar[str] = "utimes"

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.utime(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMode(Operation):
    """chmod(2)."""

    word: ClassVar[str] = "chmod"
    mode: int

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.chmod(f"{root}/{self.path}", self.mode)
        return None

    def arguments(self, root: str) -> list[str]:
        return [f"{root}/{self.path}", f"0{self.mode:o}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Operation):
    """stat(2), following symlinks: the size in bytes."""

    word: ClassVar[str] = "size"
    size: int | None = None

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.size)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            return os.stat(f"{root}/{self.path}").st_size

    def letters(self) -> list[str]:
        return [] if self.size is None else ["-R", str(self.size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTree(Operation):
    """Delete a directory with everything in it, following what the directories list."""

    word: ClassVar[str] = "rmtree"

    def call(self, root: str, held: Held) -> Value:
        remove_tree(f"{root}/{self.path}".rstrip("/"))
        return None

    def reproducer(self, root: str) -> str:
        return f"- rmtree {shlex.quote(f'{root}/{self.path}')}"


def _printable(data: bytes) -> str:
    """Data as a word of a command line, which can hold no NUL."""
    return os.fsdecode(data).replace("\0", "\\0")


def remove_tree(path: str) -> None:
    """Remove the directory `path` and all below it; a symlink in it is removed, not followed."""
    with os.scandir(path) as entries:
        children = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for child, is_directory in children:
        if is_directory:
            remove_tree(child)
        else:
            os.unlink(child)
    os.rmdir(path)


# What scenarios are written with ------------------------------------------------------------------


def open_file(
    path: Name,
    flags: int,
    *,
    reads: bytes | None = None,
    writes: bytes | None = None,
    fails: int = 0,
    unprivileged: bool = False,
) -> OpenFile:
    """Open `path`; on success read or write through the descriptor."""
    return OpenFile(path=path, flags=flags, reads=reads, writes=writes, fails=fails, unprivileged=unprivileged)


def open_dir(path: Name, flags: int = R, *, fails: int = 0) -> OpenFile:
    """Open `path` with O_DIRECTORY."""
    return OpenFile(path=path, flags=flags | DIRECTORY, fails=fails)


def mkdir(path: Name, fails: int = 0, *, cycle: bool = True) -> MakeDirectory:
    return MakeDirectory(path=path, fails=fails, cycle=cycle)


def rmdir(path: Name, fails: int = 0) -> RemoveDirectory:
    return RemoveDirectory(path=path, fails=fails)


def unlink(path: Name, fails: int = 0) -> Unlink:
    return Unlink(path=path, fails=fails)


def rename(path: Name, to: Name, fails: int = 0, *, cycle: bool = True) -> Rename:
    return Rename(path=path, to=to, fails=fails, cycle=cycle)


def link(path: Name, to: Name, fails: int = 0, *, cycle: bool = True) -> Link:
    return Link(path=path, to=to, fails=fails, cycle=cycle)


def readlink(path: Name, reads: str | None = None, *, fails: int = 0) -> ReadLink:
    return ReadLink(path=path, reads=reads, fails=fails)


def truncate(path: Name, size: int, fails: int = 0, *, unprivileged: bool = False) -> Truncate:
    return Truncate(path=path, size=size, fails=fails, unprivileged=unprivileged)


def touch(path: Name, fails: int = 0, *, unprivileged: bool = False) -> Touch:
    return Touch(path=path, fails=fails, unprivileged=unprivileged)


def size(path: Name, size: int) -> Size:
    return Size(path=path, size=size)


def rmtree(path: Name) -> RemoveTree:
    return RemoveTree(path=path)
