# SPDX-License-Identifier: GPL-2.0-only
"""Operations that make objects of every kind, and renames with flags."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from union import namecalls
from union.names import Name
from union.operations.attributes import Spelled
from union.operations.base import Held, TwoNames, Value, acting_as
from union.operations.classical import ChangeMode

USUAL_UMASK = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Make(Spelled):
    """Make a new object: open(2) with O_CREAT and O_EXCL, mkdir(2), symlink(2) or mknod(2), under a umask.

    `type` is the S_IFMT bits; `target` is a symlink's, `rdev` a device's.
    """

    word: ClassVar[str] = "make"
    type: int
    mode: int = 0o644
    rdev: int = 0
    target: str = ""
    umask: int = USUAL_UMASK

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged), _umask(self.umask):
            self._make(f"{root}/{self.path}")
        return None

    def _make(self, path: str) -> None:
        if self.type == stat.S_IFREG:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.mode))
        elif self.type == stat.S_IFDIR:
            os.mkdir(path, self.mode)
        elif self.type == stat.S_IFLNK:
            os.symlink(self.target, path)
        else:
            os.mknod(path, self.type | self.mode, self.rdev)

    def details(self) -> list[str]:
        if self.type == stat.S_IFLNK:
            return ["symlink", self.target]
        words = {
            stat.S_IFREG: ["file"], stat.S_IFDIR: ["directory"], stat.S_IFIFO: ["fifo"], stat.S_IFSOCK: ["socket"],
        }.get(self.type, [f"{'char' if self.type == stat.S_IFCHR else 'block'}",
                          f"{os.major(self.rdev)}:{os.minor(self.rdev)}"])  # fmt: skip
        return [*words, f"0{self.mode:o}", f"umask=0{self.umask:o}"]


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameFlags(TwoNames, Spelled):
    """renameat2(2) with flags. `cycle` says whether a rotating run remounts after it."""

    word: ClassVar[str] = "renameat2"
    flags: int
    cycle: bool = True

    def call(self, root: str, held: Held) -> Value:
        with acting_as(self.unprivileged):
            namecalls.rename(f"{root}/{self.path}", f"{root}/{self.to}", self.flags)
        return None

    def details(self) -> list[str]:
        return [name for bit, name in RENAME_NAMES.items() if self.flags & bit]


RENAME_NAMES = {
    namecalls.RENAME_NOREPLACE: "NOREPLACE",
    namecalls.RENAME_EXCHANGE: "EXCHANGE",
    namecalls.RENAME_WHITEOUT: "WHITEOUT",
}


# What scenarios are written with ------------------------------------------------------------------


def make_file(
    path: Name, mode: int = 0o644, fails: int = 0, *, umask: int = USUAL_UMASK, unprivileged: bool = False
) -> Make:
    return Make(path=path, type=stat.S_IFREG, mode=mode, umask=umask, fails=fails, unprivileged=unprivileged)


def make_dir(
    path: Name, mode: int = 0o755, fails: int = 0, *, umask: int = USUAL_UMASK, unprivileged: bool = False
) -> Make:
    return Make(path=path, type=stat.S_IFDIR, mode=mode, umask=umask, fails=fails, unprivileged=unprivileged)


def symlink(target: str, path: Name, fails: int = 0, *, unprivileged: bool = False) -> Make:
    return Make(path=path, type=stat.S_IFLNK, mode=0o777, target=target, fails=fails, unprivileged=unprivileged)


def mknod(
    path: Name, type: int, mode: int = 0o644, rdev: int = 0, fails: int = 0, *, umask: int = USUAL_UMASK,
    unprivileged: bool = False,
) -> Make:  # fmt: skip
    return Make(path=path, type=type, mode=mode, rdev=rdev, umask=umask, fails=fails, unprivileged=unprivileged)


def exchange(path: Name, to: Name, fails: int = 0, *, cycle: bool = True) -> RenameFlags:
    return RenameFlags(path=path, to=to, flags=namecalls.RENAME_EXCHANGE, fails=fails, cycle=cycle)


def rename_noreplace(path: Name, to: Name, fails: int = 0, *, cycle: bool = True) -> RenameFlags:
    return RenameFlags(path=path, to=to, flags=namecalls.RENAME_NOREPLACE, fails=fails, cycle=cycle)


def rename_flags(path: Name, to: Name, flags: int, fails: int = 0) -> RenameFlags:
    return RenameFlags(path=path, to=to, flags=flags, fails=fails)


def chmod(path: Name, mode: int, fails: int = 0, *, unprivileged: bool = False) -> ChangeMode:
    return ChangeMode(path=path, mode=mode, fails=fails, unprivileged=unprivileged)
