# SPDX-License-Identifier: GPL-2.0-only
"""The operations: each a small dataclass that knows its system call and its reproducer line.

An operation carries what the scenario expects (`fails`, and the value where there is one). It is
performed on the union here and predicted by `union.model`; neither knows of the other.
"""

from __future__ import annotations

import errno as errnos
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from union.names import Name

UNPRIVILEGED = 1  # uid and gid of the unprivileged actor, "bin" in the classical suite

# Access modes as scenarios write them.
R = os.O_RDONLY
W = os.O_WRONLY
RW = os.O_RDWR
WA = os.O_WRONLY | os.O_APPEND
RWA = os.O_RDWR | os.O_APPEND
# Modifiers.
CREAT = os.O_CREAT
EXCL = os.O_EXCL
TRUNC = os.O_TRUNC
DIRECTORY = os.O_DIRECTORY

Value = bytes | str | int | None


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation gave: an errno number (0 is success) and a value where it has one."""

    errno: int
    value: Value = None

    def __str__(self) -> str:
        if self.errno:
            return errnos.errorcode.get(self.errno, str(self.errno))
        return "success" if self.value is None else f"success with {self.value!r}"


@contextmanager
def acting_as(unprivileged: bool) -> Iterator[None]:
    """Run the block with effective uid and gid 1; the supplementary groups stay as they are."""
    if not unprivileged:
        yield
        return
    os.setegid(UNPRIVILEGED)
    try:
        os.seteuid(UNPRIVILEGED)
        try:
            yield
        finally:
            os.seteuid(0)
    finally:
        os.setegid(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC):
    """Base: one operation on one path (relative to the union's root)."""

    word: ClassVar[str]
    path: Name
    fails: int = 0
    unprivileged: bool = False

    def names(self) -> tuple[Name, ...]:
        """The names it touches."""
        return (self.path,)

    def expected(self) -> Result:
        """What the scenario says must come out; a value of None is not compared."""
        return Result(self.fails)

    @abstractmethod
    def call(self, root: str) -> Value:
        """Issue the system call below `root`; raises OSError."""

    def perform(self, root: str) -> Result:
        """Issue the operation on the union mounted at `root` and say what it gave."""
        try:
            return Result(0, self.call(root))
        except OSError as error:
            if error.errno is None:
                raise
            return Result(error.errno)

    def letters(self) -> list[str]:
        """The option letters and data of the reproducer line, before -B and -E."""
        return []

    def arguments(self, root: str) -> list[str]:
        """The paths and numbers of the reproducer line."""
        return [f"{root}/{name}" for name in self.names()]

    def reproducer(self, root: str) -> str:
        """The command line that repeats this operation alone (parity 1.5)."""
        words = ["./run", f"--{self.word}", *self.arguments(root), *self.letters()]
        if self.unprivileged:
            words.append("-B")
        if self.fails:
            words += ["-E", errnos.errorcode[self.fails]]
        return shlex.join(words)


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

    def call(self, root: str) -> Value:
        path = f"{root}/{self.path}"
        with acting_as(self.unprivileged):
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
    mode: int = 0o755

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.mkdir(f"{root}/{self.path}", self.mode)
        return None

    def arguments(self, root: str) -> list[str]:
        return [f"{root}/{self.path}", f"0{self.mode:o}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveDirectory(Operation):
    """rmdir(2)."""

    word: ClassVar[str] = "rmdir"

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.rmdir(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink(Operation):
    """unlink(2)."""

    word: ClassVar[str] = "unlink"

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.unlink(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename(Operation):
    """rename(2). `cycle` says whether a rotating run remounts after it."""

    word: ClassVar[str] = "rename"
    to: Name
    cycle: bool = True

    def names(self) -> tuple[Name, ...]:
        return (self.path, self.to)

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.rename(f"{root}/{self.path}", f"{root}/{self.to}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Operation):
    """link(2): a symlink source is linked itself, never followed."""

    word: ClassVar[str] = "link"
    to: Name

    def names(self) -> tuple[Name, ...]:
        return (self.path, self.to)

    def call(self, root: str) -> Value:
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

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            return os.readlink(f"{root}/{self.path}")

    def letters(self) -> list[str]:
        return [] if self.reads is None else ["-R", self.reads]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate(Operation):
    """truncate(2) by path."""

    word: ClassVar[str] = "truncate"
    size: int

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.truncate(f"{root}/{self.path}", self.size)
        return None

    def arguments(self, root: str) -> list[str]:
        return [f"{root}/{self.path}", str(self.size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch(Operation):
    """utimensat(2) with both times now."""

    word: ClassVar[str] = "utimes"

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            os.utime(f"{root}/{self.path}")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMode(Operation):
    """chmod(2)."""

    word: ClassVar[str] = "chmod"
    mode: int

    def call(self, root: str) -> Value:
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

    def call(self, root: str) -> Value:
        with acting_as(self.unprivileged):
            return os.stat(f"{root}/{self.path}").st_size

    def letters(self) -> list[str]:
        return [] if self.size is None else ["-R", str(self.size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTree(Operation):
    """Delete a directory with everything in it, following what the directories list."""

    word: ClassVar[str] = "rmtree"

    def call(self, root: str) -> Value:
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


def slashed(operation: Operation) -> Operation:
    """The same operation with a terminal slash on each path under test (`--ts=1`)."""
    if isinstance(operation, Rename | Link):
        return replace(operation, path=operation.path.slashed(), to=operation.to.slashed())
    return replace(operation, path=operation.path.slashed())


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


def mkdir(path: Name, fails: int = 0) -> MakeDirectory:
    return MakeDirectory(path=path, fails=fails)


def rmdir(path: Name, fails: int = 0) -> RemoveDirectory:
    return RemoveDirectory(path=path, fails=fails)


def unlink(path: Name, fails: int = 0) -> Unlink:
    return Unlink(path=path, fails=fails)


def rename(path: Name, to: Name, fails: int = 0, *, cycle: bool = True) -> Rename:
    return Rename(path=path, to=to, fails=fails, cycle=cycle)


def link(path: Name, to: Name, fails: int = 0) -> Link:
    return Link(path=path, to=to, fails=fails)


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


