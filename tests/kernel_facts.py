# SPDX-License-Identifier: GPL-2.0-only
"""The state of a kernel that tests ran on, as it is kept with their results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from command import native
from union import syscalls
from union.kernellog import TAINTED
from union.overlay import accepts
from union.workspace import enter_private_namespace

OPTIONS = (
    *(("xino", value) for value in ("nofollow", "on")),
    *((name, "on") for name in ("index", "metacopy", "nfs_export", "redirect_dir", "verity")),
    *((name, "") for name in ("userxattr", "volatile")),
)
FILESYSTEMS = ("overlay", "tmpfs", "xfs", "ext4", "btrfs", "erofs", "squashfs", "fuse")
PARAMETERS = Path("/sys/module/overlay/parameters")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel is, what it can do and what it has said.

    `options` are mount options of overlayfs, each with why it is refused or an empty text. Without the right to mount
    nothing is known of filesystems and options.
    """

    release: str
    taint: str
    command_line: str
    filesystems: tuple[str, ...]
    options: dict[str, str]
    parameters: dict[str, str]
    log: str


def facts() -> Facts:
    """Those of the running kernel; what cannot be read is empty."""
    parameters = sorted(PARAMETERS.iterdir()) if PARAMETERS.is_dir() else []
    probed = native.in_child(_probe) if os.geteuid() == 0 else []
    answers = dict(line.split("\t") for line in probed)
    return Facts(
        release=os.uname().release,
        taint=_read(TAINTED),
        command_line=_read(Path("/proc/cmdline")),
        filesystems=tuple(name for name in FILESYSTEMS if name in answers),
        options={name: why for name, why in answers.items() if name not in FILESYSTEMS},
        parameters={path.name: _read(path) for path in parameters},
        log=_log(),
    )


def _probe() -> list[str]:
    """The filesystems that there are and all options, each with why it is refused: found out by doing."""
    enter_private_namespace()
    known = [f"{name}\t" for name in FILESYSTEMS if syscalls.knows_filesystem(name)]
    return known + [f"{'='.join(filter(None, option))}\t{accepts(option) or ''}" for option in OPTIONS]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _log() -> str:
    """All records that the kernel still has."""
    records: list[str] = []
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        while True:
            try:
                record = os.read(fd, 8192)
            except BrokenPipeError:  # overwritten before it was read
                continue
            except BlockingIOError:
                return "".join(records)
            prefix, _, text = record.decode(errors="replace").partition(";")
            records.append(f"[{int(prefix.split(',')[2]) / 1e6:12.6f}] {text.partition(chr(10))[0]}\n")
    finally:
        os.close(fd)
