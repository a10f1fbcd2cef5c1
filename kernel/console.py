# SPDX-License-Identifier: GPL-2.0-only
"""A guest's console: kept in a file, its tail in memory, a panic or fault noticed as it passes."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from types import TracebackType

from kernel.errors import SetupError

TAIL_LINES = 25
_PANIC = re.compile(r"Kernel panic - not syncing.*")
# The first line of a report of the kernel about itself. WARNING is none of these: the kernel goes on unharmed
# and the witness reads warnings from the kernel log.
_OOPS = re.compile(
    r"^(?:\[[^]]*\] ?)?"
    r"((?:kernel BUG at|BUG: |Oops\b|Internal error: |general protection fault|Unable to handle kernel ).*)"
)
_RESTART = "reboot: Restarting system"
_INIT = re.compile(r"^guest init: (.*)")
_STUCK = re.compile(r"^KVM internal error|^KVM: entry failed")  # QEMU then waits for a debugger
_HINTS = {
    "Unable to mount root fs": "the kernel must have virtio-pci and virtio-fs built in, not as modules",
    "ptrace set fp regs failed": "the kernel does not know this CPU's registers (AMX); Linux 6.13 or our own does",
}


class Console:
    """Feed it with `add`; read `panic`, `oops`, `hint` (a line each or None), `restarting`, `stuck` and
    `tail()`.

    Closes its file on exit.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.panic: str | None = None
        self.oops: str | None = None
        self.hint: str | None = None
        self.restarting = False
        self.stuck = False
        try:
            self._file = log.open("wb", buffering=0)
        except OSError as error:
            raise SetupError(f"cannot create {log}: {error.strerror}") from error
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, data: bytes) -> None:
        """Take the next bytes, cut anywhere; bytes that are no text do no harm. SetupError if they cannot be kept."""
        self._keep(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        # A console without line ends must not grow for ever.
        if len(self._partial) > 65536:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._line(line)

    def _keep(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise SetupError(f"cannot write {self.log}: {error.strerror}") from error

    def finish(self) -> None:
        """The console is closed: what is left without a line end is a line too."""
        if self._partial:
            self._line(self._partial)
            self._partial = b""

    def tail(self) -> str:
        """The last lines, without the partial one."""
        return "\n".join(self._lines)

    def last(self) -> str:
        """The last line that is not empty."""
        return next((line for line in reversed(self._lines) if line.strip()), "")

    def _line(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\r")
        self._lines.append(line)
        if self.panic is None and (found := _PANIC.search(line)):
            self.panic = found[0]
        self.restarting = self.restarting or _RESTART in line
        self.stuck = self.stuck or bool(_STUCK.search(line))
        if self.oops is None and (found := _OOPS.match(line)):
            self.oops = found[1]
        if self.hint is None:
            if found := _INIT.match(line):
                self.hint = found[1]
            self.hint = next((text for sign, text in _HINTS.items() if sign in line), self.hint)
