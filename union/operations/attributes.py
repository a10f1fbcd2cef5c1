# SPDX-License-Identifier: GPL-2.0-only
"""Operations on owner, times, xattrs, ACLs and flags."""

from __future__ import annotations

import errno as errnos
import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from datasets.acl import XFS_NAMES
from union import namecalls
from union.names import Name
from union.operations.base import Held, Operation, Result, Value, acting_as, shell_line

KEEP = -1  # chown leaves the id as it is


class Spelled(Operation):
    """Base: an operation that the single-probe command line has no word for."""

    __slots__ = ()

    def details(self) -> list[str]:
        """The words behind the path."""
        return []

    def reproducer(self, root: str) -> str:
        words = [self.word, *(f"{root}/{name}" for name in self.names()), *self.details()]
        if self.unprivileged:
            words.append("-B")
        if self.fails:
            words += ["-E", errnos.errorcode[self.fails]]
        return f"- {shell_line(words)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOwner(Spelled):
    """chown(2), or lchown(2) if the symlink itself is meant; KEEP leaves an id as it is."""

    word: ClassVar[str] = "chown"
    uid: int
    gid: int
    follow: bool = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.chown(f"{root}/{self.path}", self.uid, self.gid, follow_symlinks=self.follow)
        return None

    def details(self) -> list[str]:
        return [f"{self.uid}:{self.gid}", *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimes(Spelled):
    """utimensat(2) with given times in nanoseconds; None leaves a time as it is."""

    word: ClassVar[str] = "set-times"
    atime: int | None
    mtime: int | None
    follow: bool = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            namecalls.set_times(f"{root}/{self.path}", self.atime, self.mtime, follow=self.follow)
        return None

    def details(self) -> list[str]:
        return [str(self.atime), str(self.mtime), *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks(Spelled):
    """statx(2): type letter, mode, owner, and links, size or device number where these are the same on
    every filesystem; with `flags` also whether it is immutable or append-only, which erofs says of all it has.
    """

    word: ClassVar[str] = "statx"
    shows: str | None = None
    follow: bool = False
    flags: bool = False

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.shows)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            seen = namecalls.statx(f"{root}/{self.path}", follow=self.follow)
        attributes = seen.attributes if self.flags else 0
        return looks(
            seen.mode, seen.uid, seen.gid, seen.nlink, seen.size, seen.rdev,
            immutable=bool(attributes & namecalls.STATX_ATTR_IMMUTABLE),
            append=bool(attributes & namecalls.STATX_ATTR_APPEND),
        )  # fmt: skip

    def details(self) -> list[str]:
        return [] if self.shows is None else ["-R", self.shows]


LETTERS = {
    stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c", stat.S_IFBLK: "b",
}  # fmt: skip


def looks(
    mode: int, uid: int, gid: int, nlink: int, size: int, rdev: tuple[int, int], *, immutable: bool, append: bool
) -> str:
    """What Looks tells, in words: `f 0644 1:1 x1 12` for a file of one link and 12 bytes."""
    letter = LETTERS[stat.S_IFMT(mode)]
    words = [letter, f"{stat.S_IMODE(mode):04o}", f"{uid}:{gid}"]
    if letter != "d":  # an overlay's directories have any link count
        words.append(f"x{nlink}")
    if letter in "fl":
        words.append(str(size))
    if letter in "cb":
        words.append(f"{rdev[0]}:{rdev[1]}")
    return " ".join([*words, *["immutable"] * immutable, *["append"] * append])


@dataclass(frozen=True, slots=True, kw_only=True)
class SetXattr(Spelled):
    """setxattr(2), or lsetxattr(2) if the symlink itself is meant."""

    word: ClassVar[str] = "setxattr"
    key: str
    value: bytes
    how: int = 0  # XATTR_CREATE or XATTR_REPLACE
    follow: bool = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.setxattr(f"{root}/{self.path}", self.key, self.value, self.how, follow_symlinks=self.follow)
        return None

    def details(self) -> list[str]:
        how = {0: [], os.XATTR_CREATE: ["--create"], os.XATTR_REPLACE: ["--replace"]}[self.how]
        value = self.value.hex() if len(self.value) < 100 else f"{len(self.value)}-bytes"
        return [self.key, f"0x{value}", *how, *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveXattr(Spelled):
    """removexattr(2), or lremovexattr(2)."""

    word: ClassVar[str] = "removexattr"
    key: str
    follow: bool = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            os.removexattr(f"{root}/{self.path}", self.key, follow_symlinks=self.follow)
        return None

    def details(self) -> list[str]:
        return [self.key, *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class GetXattr(Spelled):
    """getxattr(2), or lgetxattr(2)."""

    word: ClassVar[str] = "getxattr"
    key: str
    reads: bytes | None = None
    follow: bool = True

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.reads)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            return os.getxattr(f"{root}/{self.path}", self.key, follow_symlinks=self.follow)

    def details(self) -> list[str]:
        reads = [] if self.reads is None else ["-R", f"0x{self.reads.hex()}"]
        return [self.key, *reads, *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListXattrs(Spelled):
    """listxattr(2), or llistxattr(2): the names in alphabetical order, each once, with blanks between."""

    word: ClassVar[str] = "listxattr"
    reads: str | None = None
    follow: bool = True

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.reads)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            keys = os.listxattr(f"{root}/{self.path}", follow_symlinks=self.follow)
        return " ".join(sorted(key for key in keys if key not in XFS_NAMES))

    def details(self) -> list[str]:
        reads = [] if self.reads is None else ["-R", self.reads]
        return [*reads, *([] if self.follow else ["-h"])]


@dataclass(frozen=True, slots=True, kw_only=True)
class GetFlags(Spelled):
    """FS_IOC_GETFLAGS: of the flags, those that an overlay keeps."""

    word: ClassVar[str] = "lsattr"
    flags: int | None = None

    def expected(self) -> Result:
        return Result(self.fails, None if self.fails else self.flags)

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            return namecalls.get_flags(f"{root}/{self.path}") & namecalls.KEPT_FLAGS

    def details(self) -> list[str]:
        return [] if self.flags is None else ["-R", f"{self.flags:#x}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFlags(Spelled):
    """chattr(1): FS_IOC_SETFLAGS, with the flags that an overlay does not keep left as they are."""

    word: ClassVar[str] = "chattr"
    flags: int

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            path = f"{root}/{self.path}"
            others = namecalls.get_flags(path) & ~namecalls.KEPT_FLAGS
            namecalls.set_flags(path, others | self.flags)
        return None

    def details(self) -> list[str]:
        return [f"{self.flags:#x}"]


# What scenarios are written with ------------------------------------------------------------------


def chown(path: Name, uid: int, gid: int, fails: int = 0, *, unprivileged: bool = False) -> ChangeOwner:
    return ChangeOwner(path=path, uid=uid, gid=gid, fails=fails, unprivileged=unprivileged)


def lchown(path: Name, uid: int, gid: int, fails: int = 0, *, unprivileged: bool = False) -> ChangeOwner:
    return ChangeOwner(path=path, uid=uid, gid=gid, follow=False, fails=fails, unprivileged=unprivileged)


def set_times(
    path: Name, atime: int | None, mtime: int | None, fails: int = 0, *, follow: bool = True, unprivileged: bool = False
) -> SetTimes:
    return SetTimes(path=path, atime=atime, mtime=mtime, follow=follow, fails=fails, unprivileged=unprivileged)


def shows(path: Name, words: str, *, follow: bool = False, flags: bool = False) -> Looks:
    """The object looks like this: `f 0644 1:1 x1 12` (see `looks`), with `flags` perhaps immutable or append."""
    return Looks(path=path, shows=words, follow=follow, flags=flags)


def setxattr(
    path: Name, key: str, value: bytes, fails: int = 0, *, how: int = 0, follow: bool = True, unprivileged: bool = False
) -> SetXattr:
    return SetXattr(path=path, key=key, value=value, how=how, follow=follow, fails=fails, unprivileged=unprivileged)


def removexattr(
    path: Name, key: str, fails: int = 0, *, follow: bool = True, unprivileged: bool = False
) -> RemoveXattr:
    return RemoveXattr(path=path, key=key, follow=follow, fails=fails, unprivileged=unprivileged)


def getxattr(
    path: Name, key: str, reads: bytes | None = None, *, fails: int = 0, follow: bool = True, unprivileged: bool = False
) -> GetXattr:
    return GetXattr(path=path, key=key, reads=reads, follow=follow, fails=fails, unprivileged=unprivileged)


def listxattr(path: Name, *keys: str, follow: bool = True, unprivileged: bool = False) -> ListXattrs:
    """The object has these xattrs and no others."""
    return ListXattrs(path=path, reads=" ".join(sorted(keys)), follow=follow, unprivileged=unprivileged)


def lsattr(path: Name, flags: int | None = None, fails: int = 0) -> GetFlags:
    return GetFlags(path=path, flags=flags, fails=fails)


def chattr(path: Name, flags: int, fails: int = 0, *, unprivileged: bool = False) -> SetFlags:
    return SetFlags(path=path, flags=flags, fails=fails, unprivileged=unprivileged)
