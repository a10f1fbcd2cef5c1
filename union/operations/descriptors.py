# SPDX-License-Identifier: GPL-2.0-only
"""What goes through descriptors that a scenario holds: reading, writing, changing, syncing, locking."""

from __future__ import annotations

import errno as errnos
import fcntl
import mmap
import os
import shlex
import signal
import stat
import struct
from dataclasses import dataclass, fields
from typing import ClassVar, Final, Literal

from union import filecalls, syscalls
from union.names import Name
from union.operations.base import Held, Operation, R, Result, Value, acting_as

STATUS_FLAGS: Final = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT  # those that fcntl can change
LONGEST_WORD: Final = 60  # of a value in a reproducer line
BLOCK: Final = 4096  # what direct I/O is aligned to


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Operation):
    """Base: an operation that goes on from what its scenario holds, or that no command line can say alone.

    `path` is the name at which its effect is looked at. `returns` is what must come out; where overlayfs is
    documented or known to differ for an object that was not copied up when it was opened, `on_lower` is what
    it gives then, and the model knows which of the two.
    """

    returns: Value = None
    on_lower: Value = None

    def expected(self) -> Result:
        return Result(self.fails, self.returns if not self.fails and self.on_lower is None else None)

    def reproducer(self, root: str) -> str:
        words = ["-", self.word, *(f"{root}/{name}" for name in self.names())]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("path", "to", "fails", "returns", "on_lower") and value != field.default:
                words.append(f"{field.name}={_shown(value)}")
        if self.fails:
            words += ["-E", errnos.errorcode[self.fails]]
        return shlex.join(words)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_WORD else f"{text[:LONGEST_WORD]}..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Step):
    """`what` where it is the errno that depends on the lower: the value is its name, or `success`."""

    word: ClassVar[str] = "attempt"
    what: Operation

    def call(self, root: str, held: Held) -> Value:
        return outcome(self.what.perform(root, held))

    def names(self) -> tuple[Name, ...]:
        return self.what.names()

    def reproducer(self, root: str) -> str:
        return self.what.reproducer(root)


def outcome(result: Result) -> str:
    """A result as a word: `success`, or the errno's name."""
    return errnos.errorcode[result.errno] if result.errno else "success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Step):
    """open(2), and the descriptor is kept as `held`."""

    word: ClassVar[str] = "hold"
    held: str
    flags: int = R
    mode: int = 0o644

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            fd = os.open(f"{root}/{self.path}", self.flags, self.mode)
        held.keep(self.held, fd, lambda: os.close(fd))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAt(Step):
    """openat(2) of the last name of `path`, relative to the directory held as `directory`."""

    word: ClassVar[str] = "hold-at"
    held: str
    directory: str
    flags: int = R
    mode: int = 0o644

    def call(self, root: str, held: Held) -> Value:
        fd = os.open(os.path.basename(self.path), self.flags, self.mode, dir_fd=held.get(self.directory))
        held.keep(self.held, fd, lambda: os.close(fd))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeAt(Step):
    """mkdirat(2) of the last name of `path`, relative to the directory held as `directory`."""

    word: ClassVar[str] = "mkdir-at"
    directory: str

    def call(self, root: str, held: Held) -> Value:
        os.mkdir(os.path.basename(self.path), 0o755, dir_fd=held.get(self.directory))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAt(Step):
    """unlinkat(2) of the last name of `path`, with AT_REMOVEDIR if `removes_directory`."""

    word: ClassVar[str] = "unlink-at"
    directory: str
    removes_directory: bool = False

    def call(self, root: str, held: Held) -> Value:
        call = os.rmdir if self.removes_directory else os.unlink
        call(os.path.basename(self.path), dir_fd=held.get(self.directory))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen(Step):
    """open(2) of a held object by its descriptor's name in /proc, with other flags."""

    word: ClassVar[str] = "reopen"
    source: str
    held: str
    flags: int = R

    def call(self, root: str, held: Held) -> Value:
        fd = os.open(f"/proc/self/fd/{held.get(self.source)}", self.flags)
        held.keep(self.held, fd, lambda: os.close(fd))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldTemporary(Step):
    """open(2) of the directory `path` with O_TMPFILE: a file without a name, kept as `held`."""

    word: ClassVar[str] = "hold-temporary"
    held: str
    exclusive: bool = False
    mode: int = 0o640

    def call(self, root: str, held: Held) -> Value:
        flags = os.O_TMPFILE | os.O_RDWR | (os.O_EXCL if self.exclusive else 0)
        with acting_as(self.unprivileged):
            fd = os.open(f"{root}/{self.path}", flags, self.mode)
        held.keep(self.held, fd, lambda: os.close(fd))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHeld(Step):
    """linkat(2): the held file gets the name `path`, through its descriptor or through /proc."""

    word: ClassVar[str] = "link-held"
    held: str
    through_proc: bool = False

    def call(self, root: str, held: Held) -> Value:
        fd, path = held.get(self.held), f"{root}/{self.path}"
        if self.through_proc:
            filecalls.link_followed(f"/proc/self/fd/{fd}", path)
        else:
            filecalls.link_descriptor(fd, path)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Step):
    """close(2) of a descriptor, munmap(2) of a mapping, the end of whatever else is held."""

    word: ClassVar[str] = "close"
    held: str

    def call(self, root: str, held: Held) -> Value:
        held.drop(self.held)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadHeld(Step):
    """pread(2) at `at`, or read(2) from the descriptor's position if that is None; all if `length` is."""

    word: ClassVar[str] = "read-held"
    held: str
    at: int | None = 0
    length: int | None = None

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        length = os.fstat(fd).st_size + 1 if self.length is None else self.length
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            return os.read(fd, length) if self.at is None else os.pread(fd, length, self.at)
        # A mapping is a buffer that is aligned.
        with mmap.mmap(-1, max(BLOCK, -(-length // BLOCK) * BLOCK)) as buffer:
            count = os.readv(fd, [buffer]) if self.at is None else os.preadv(fd, [buffer], self.at)
            return buffer[: min(count, length)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteHeld(Step):
    """pwrite(2) at `at`, or write(2) at the descriptor's position if that is None."""

    word: ClassVar[str] = "write-held"
    held: str
    data: bytes
    at: int | None = 0

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        with mmap.mmap(-1, max(len(self.data), 1)) as buffer:
            buffer[: len(self.data)] = self.data
            with memoryview(buffer)[: len(self.data)] as part:
                count = os.write(fd, part) if self.at is None else os.pwrite(fd, part, self.at)
        if count != len(self.data):
            raise OSError(errnos.ENOSPC, f"short write of {count} bytes")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek(Step):
    """lseek(2); the value is the new position."""

    word: ClassVar[str] = "seek"
    held: str
    at: int = 0
    whence: int = os.SEEK_SET

    def call(self, root: str, held: Held) -> Value:
        return os.lseek(held.get(self.held), self.at, self.whence)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListHeld(Step):
    """getdents(2) from the start of a held directory: its names in order, `.` and `..` left out."""

    word: ClassVar[str] = "list-held"
    held: str

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        os.lseek(fd, 0, os.SEEK_SET)
        names = sorted(entry.name for entry in syscalls.getdents(fd))
        return " ".join(name for name in names if name not in (".", ".."))


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtHeld(Step):
    """fstat(2): `TYPE MODE, SIZE bytes, LINKS links` of a file, only the first two of other objects."""

    word: ClassVar[str] = "look-at-held"
    held: str

    def call(self, root: str, held: Held) -> Value:
        status = os.fstat(held.get(self.held))
        what = described(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            return what
        return f"{what}, {status.st_size} bytes, {status.st_nlink} links"


def described(mode: int) -> str:
    """A mode as `TYPE MODE`."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    return f"{kinds.get(stat.S_IFMT(mode), 'special')} {stat.S_IMODE(mode):04o}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SameHeld(Step):
    """Whether fstat(2) of the descriptor and lstat(2) of `path` are of one object: `same` or `another`."""

    word: ClassVar[str] = "same-held"
    held: str

    def call(self, root: str, held: Held) -> Value:
        ours, named = os.fstat(held.get(self.held)), os.lstat(f"{root}/{self.path}")
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
            return "another"
        return "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeModeHeld(Step):
    """fchmod(2)."""

    word: ClassVar[str] = "chmod-held"
    held: str
    mode: int

    def call(self, root: str, held: Held) -> Value:
        os.fchmod(held.get(self.held), self.mode)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOwnerHeld(Step):
    """fchown(2)."""

    word: ClassVar[str] = "chown-held"
    held: str
    uid: int
    gid: int

    def call(self, root: str, held: Held) -> Value:
        os.fchown(held.get(self.held), self.uid, self.gid)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateHeld(Step):
    """ftruncate(2)."""

    word: ClassVar[str] = "truncate-held"
    held: str
    size: int

    def call(self, root: str, held: Held) -> Value:
        os.ftruncate(held.get(self.held), self.size)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStatusFlags(Step):
    """fcntl(2) F_SETFL with these of the flags that can be changed; the value is what F_GETFL then says."""

    word: ClassVar[str] = "set-flags"
    held: str
    flags: int

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        fcntl.fcntl(fd, fcntl.F_SETFL, self.flags)
        return fcntl.fcntl(fd, fcntl.F_GETFL) & STATUS_FLAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncHeld(Step):
    """fsync(2), fdatasync(2) or syncfs(2)."""

    word: ClassVar[str] = "sync-held"
    held: str
    how: Literal["fsync", "fdatasync", "syncfs"] = "fsync"

    def call(self, root: str, held: Held) -> Value:
        calls = {"fsync": os.fsync, "fdatasync": os.fdatasync, "syncfs": filecalls.syncfs}
        calls[self.how](held.get(self.held))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advise(Step):
    """posix_fadvise(2) on the whole file, or readahead(2) of it if `advice` is None."""

    word: ClassVar[str] = "advise"
    held: str
    advice: int | None = None

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        if self.advice is None:
            filecalls.readahead(fd, 0, os.fstat(fd).st_size)
        else:
            os.posix_fadvise(fd, 0, 0, self.advice)
        return None


LockKind = Literal["flock", "ofd", "lease"]
Lockable = Literal["shared", "exclusive", "none"]
_FLOCK: Final = {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX, "none": fcntl.LOCK_UN}
_FCNTL: Final = {"shared": fcntl.F_RDLCK, "exclusive": fcntl.F_WRLCK, "none": fcntl.F_UNLCK}
_OFD_SETLK: Final = 37
_SETSIG: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHeld(Step):
    """flock(2), an open file description lock, or a lease; it never waits."""

    word: ClassVar[str] = "lock-held"
    held: str
    kind: LockKind
    lock: Lockable

    def call(self, root: str, held: Held) -> Value:
        fd = held.get(self.held)
        if self.kind == "flock":
            fcntl.flock(fd, _FLOCK[self.lock] | fcntl.LOCK_NB)
        elif self.kind == "ofd":  # struct flock: type, whence, start, length (0: to the end), pid
            fcntl.fcntl(fd, _OFD_SETLK, struct.pack("hhxxxxqqixxxx", _FCNTL[self.lock], os.SEEK_SET, 0, 0, 0))
        else:
            fcntl.fcntl(fd, _SETSIG, signal.SIGURG)  # what tells of a break: ignored, unlike SIGIO
            fcntl.fcntl(fd, fcntl.F_SETLEASE, _FCNTL[self.lock])
        return None


# What scenarios are written with --------------------------------------------------------------------

FD: Final = "fd"  # the descriptor of a scenario that needs one


def hold(path: Name, flags: int = R, held: str = FD, *, fails: int = 0) -> Hold:
    return Hold(path=path, held=held, flags=flags, fails=fails)


def hold_at(directory: str, path: Name, flags: int = R, held: str = FD, *, fails: int = 0) -> HoldAt:
    return HoldAt(path=path, directory=directory, held=held, flags=flags, fails=fails)


def reads(path: Name, content: bytes, held: str = FD, *, at: int | None = 0, length: int | None = None) -> ReadHeld:
    """The descriptor reads `content`."""
    return ReadHeld(path=path, held=held, returns=content, at=at, length=length)


def writes(path: Name, data: bytes, held: str = FD, *, at: int | None = 0, fails: int = 0) -> WriteHeld:
    return WriteHeld(path=path, held=held, data=data, at=at, fails=fails)


def held_lists(path: Name, *names: str, held: str = FD) -> ListHeld:
    """The held directory lists these names."""
    return ListHeld(path=path, held=held, returns=" ".join(sorted(names)))


def held_looks(path: Name, what: str, held: str = FD, *, on_lower: str | None = None) -> LookAtHeld:
    return LookAtHeld(path=path, held=held, returns=what, on_lower=on_lower)


def is_same(path: Name, held: str = FD) -> SameHeld:
    """The descriptor and `path` are of one object."""
    return SameHeld(path=path, held=held, returns="same")


def is_another(path: Name, held: str = FD) -> SameHeld:
    return SameHeld(path=path, held=held, returns="another")


def sync(path: Name, how: Literal["fsync", "fdatasync", "syncfs"] = "fsync", held: str = FD) -> SyncHeld:
    return SyncHeld(path=path, how=how, held=held)


def close(path: Name, held: str = FD) -> Close:
    return Close(path=path, held=held)
