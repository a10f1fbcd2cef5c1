# SPDX-License-Identifier: GPL-2.0-only
"""A bzImage, by the header of the Linux/x86 boot protocol: whether a file is one, and its release."""

from __future__ import annotations

from pathlib import Path

from kernel.errors import UsageError

_MAGIC = slice(0x202, 0x206)
_VERSION = slice(0x20E, 0x210)  # where the version's text is, counted from behind the boot sector
_BOOT_SECTOR = 0x200
_SETUP = 1 << 16  # bytes, more than the part in front of the kernel proper has


def is_bzimage(path: Path) -> bool:
    """Whether the file `path` begins like a bzImage; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC.stop)[_MAGIC] == b"HdrS"
    except OSError:
        return False


def release(path: Path) -> str:
    """What `uname -r` says in a guest of the bzImage `path`; `UsageError` when it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(_SETUP)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if head[_MAGIC] != b"HdrS":
        raise UsageError(f"{path}: not a bzImage")
    start = _BOOT_SECTOR + int.from_bytes(head[_VERSION], "little")
    words = head[start : start + 256].partition(b"\0")[0].split()
    if start == _BOOT_SECTOR or not words:
        raise UsageError(f"{path}: a bzImage that does not say its release")
    return words[0].decode(errors="replace")
