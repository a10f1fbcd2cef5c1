# SPDX-License-Identifier: GPL-2.0-only
"""Files in memory: mmap(2) shared and private, and running a program."""

from __future__ import annotations

import mmap
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from union.operations.base import Held, Value
from union.operations.descriptors import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(Step):
    """mmap(2) of `length` bytes of a held file from its start, kept as `mapping`."""

    word: ClassVar[str] = "map"
    held: str
    mapping: str
    length: int
    shared: bool = True
    writable: bool = False

    def call(self, root: str, held: Held) -> Value:
        flags = mmap.MAP_SHARED if self.shared else mmap.MAP_PRIVATE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if self.writable else 0)
        mapping = mmap.mmap(held.get(self.held), self.length, flags, access)
        held.keep(self.mapping, mapping, mapping.close)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMapping(Step):
    """What the mapped memory holds."""

    word: ClassVar[str] = "read-mapping"
    mapping: str

    def call(self, root: str, held: Held) -> Value:
        mapping: mmap.mmap = held.get(self.mapping)
        return mapping[:]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteMapping(Step):
    """Store `data` in the mapped memory."""

    word: ClassVar[str] = "write-mapping"
    mapping: str
    data: bytes
    at: int = 0

    def call(self, root: str, held: Held) -> Value:
        held.get(self.mapping)[self.at : self.at + len(self.data)] = self.data
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMapping(Step):
    """msync(2) of the whole mapping."""

    word: ClassVar[str] = "sync-mapping"
    mapping: str

    def call(self, root: str, held: Held) -> Value:
        held.get(self.mapping).flush()
        return None


EXIT_STATUS: Final = 7


def _elf(machine: int, code: bytes) -> bytes:
    """A static program of one segment, read-only and executable."""
    base, header = 0x400000, 64 + 56
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian
    file_header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = header + len(code)
    return ident + file_header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


# read(0, below the stack pointer, 1), then exit(EXIT_STATUS)
_X86_64 = bytes.fromhex("31c0 31ff 488d7424f8 ba01000000 0f05 b83c000000 bf07000000 0f05")
_ARM64 = struct.pack(
    "<8I", 0xD28007E8, 0xD2800000, 0xD10043E1, 0xD2800022, 0xD4000001, 0xD2800BA8, 0xD28000E0, 0xD4000001
)
PROGRAM: Final = _elf(183, _ARM64) if platform.machine() == "aarch64" else _elf(62, _X86_64)
"""A program that waits until its standard input has something or ends, and then exits with EXIT_STATUS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Step):
    """execve(2) of the file: it runs, waiting, until `held` is closed."""

    word: ClassVar[str] = "exec"
    held: str

    def call(self, root: str, held: Held) -> Value:
        child, stop = started(f"{root}/{self.path}")
        held.keep(self.held, child, stop)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToEnd(Step):
    """execve(2) of the file; the value is its exit status."""

    word: ClassVar[str] = "run-to-end"

    def call(self, root: str, held: Held) -> Value:
        return started(f"{root}/{self.path}")[1]()


def started(path: str) -> tuple[int, Callable[[], int]]:
    """Start PROGRAM from `path`: its process id, and what ends it and answers its exit status."""
    reader, writer = os.pipe()
    try:
        child = os.posix_spawn(path, [path], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
    except OSError:
        os.close(writer)
        raise
    finally:
        os.close(reader)

    def stop() -> int:
        os.close(writer)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return child, stop
