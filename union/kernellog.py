# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own complaints: log lines that mean trouble, and the taint flags."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

TROUBLE = re.compile(
    r"WARNING: |BUG: |Oops|general protection fault|Kernel panic|still in use|"
    r"possible (recursive|circular) locking|INFO: task .* blocked|UBSAN|KASAN|"
    r"VFS: Busy inodes",
)
FALL_BACK = re.compile(r"overlayfs: .*fall(ing|s) back")
CMDLINE = Path("/proc/cmdline")
GUEST = "/init.pyc "  # on the command line of every guest of ours, see `kernel.init`
TAINTED = Path("/proc/sys/kernel/tainted")
HARMLESS = 1 << 16  # left to distributions; Debian's kernels set it when permission events of fanotify are used


def in_guest() -> bool:
    """Whether this kernel is a guest of ours, in which everything that is mounted, logged or set is ours alone."""
    return GUEST in CMDLINE.read_text()


class KernelLog:
    """Reads what the kernel logged since the last look, without missing or repeating a line."""

    def __init__(self) -> None:
        """Start at the end of the log; raises OSError when /dev/kmsg cannot be read.

        In a guest all mounts are ours, so a mount that does without something is trouble there. Elsewhere the log
        does not tell whose mount that was.
        """
        self._all_ours = in_guest()
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._taint_fd = os.open(TAINTED, os.O_RDONLY | os.O_CLOEXEC)
        self._taint = self._read_taint()
        self.seen = 0  # how much trouble there was so far

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        os.close(self._taint_fd)

    def new_lines(self) -> list[str]:
        """The messages logged since the last call, without their prefix."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._fd, 8192)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return lines
                if error.errno == errno.EPIPE:  # overwritten before we read it: go on with the oldest left
                    lines.append("WARNING: kernel log records were lost before they could be read")
                    continue
                raise
            text = record.decode(errors="replace").partition(";")[2]
            lines.append(text.split("\n", 1)[0])

    def trouble(self, expected: Sequence[str] = ()) -> list[str]:
        """Lines since the last call that mean a kernel bug, and a change of the taint flags.

        A line with one of the `expected` words in it is none; but if no line has them, that is trouble.
        """
        lines = self.new_lines()
        found = [line for line in lines if self._means_trouble(line) and not any(words in line for words in expected)]
        found += [f"nothing about {words!r}" for words in expected if not any(words in line for line in lines)]
        taint = self._read_taint()
        if taint != self._taint:
            found.append(f"taint changed from {self._taint} to {taint}")
            self._taint = taint
        self.seen += len(found)
        return found

    def _means_trouble(self, line: str) -> bool:
        return bool(TROUBLE.search(line) or (self._all_ours and FALL_BACK.search(line)))

    def _read_taint(self) -> int:
        return int(os.pread(self._taint_fd, 64, 0)) & ~HARMLESS
