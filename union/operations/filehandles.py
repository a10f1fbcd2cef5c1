# SPDX-License-Identifier: GPL-2.0-only
"""File handles, what an NFS server gives to its clients: encoded, and decoded when all caches are cold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, Final

from union import filecalls, syscalls
from union.filecalls import FileHandle
from union.operations.base import Held, R, Value
from union.operations.descriptors import Step

CONNECTABLE_MARK: Final = 0x10000  # in the type of a handle that AT_HANDLE_CONNECTABLE gave


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode(Step):
    """name_to_handle_at(2), kept as `handle`. `unsupported` is what a union that exports nothing answers."""

    word: ClassVar[str] = "encode"
    handle: str
    flags: int = 0
    unsupported: int = 0

    def call(self, root: str, held: Held) -> Value:
        handle = filecalls.name_to_handle(f"{root}/{self.path}", self.flags)
        held.keep(self.handle, handle, lambda: None)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SameHandle(Step):
    """Whether the object at `path` has the handle kept as `handle`: `same` or `another`."""

    word: ClassVar[str] = "same-handle"
    handle: str
    flags: int = 0

    def call(self, root: str, held: Held) -> Value:
        now = filecalls.name_to_handle(f"{root}/{self.path}", self.flags)
        return "same" if now == held.get(self.handle) else "another"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode(Step):
    """open_by_handle_at(2): the object is kept as `held`.

    `marked` forges the mark of a connectable handle, which asks for the way from the root to the object.
    `nameless` says that no name of it is in the caches, so that what copies it up can only put it into the index.
    """

    word: ClassVar[str] = "decode"
    handle: str
    held: str
    flags: int = R
    marked: bool = False
    nameless: bool = False

    def call(self, root: str, held: Held) -> Value:
        handle: FileHandle = held.get(self.handle)
        if self.marked:
            handle = FileHandle(handle.type | CONNECTABLE_MARK, handle.data)
        mount_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = filecalls.open_by_handle(mount_fd, handle, self.flags)
        finally:
            os.close(mount_fd)
        held.keep(self.held, fd, lambda: os.close(fd))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereHeld(Step):
    """The path of a held object, as /proc shows it, relative to the union's root."""

    word: ClassVar[str] = "where-held"
    held: str

    def call(self, root: str, held: Held) -> Value:
        where = os.readlink(f"/proc/self/fd/{held.get(self.held)}")
        return where.removeprefix(f"{os.path.realpath(root)}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetNames(Step):
    """Drop the dentries and inodes that nobody uses; pages stay."""

    word: ClassVar[str] = "forget-names"

    def call(self, root: str, held: Held) -> Value:
        for _ in range(2):  # what was used a moment ago is only marked as old the first time
            syscalls.drop_caches(pages=False)
        return None
