# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is, whatever runs it: start a command on a kernel of its own, stream its output, say how it ended."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Sink = Callable[[bytes], object]
"""Takes the next piece of output as it arrives; any bytes, cut anywhere."""


class Outcome(enum.Enum):
    """How a guest ended; the value is how it reads in a sentence."""

    EXITED = "the command ended"
    PANIC = "the kernel panicked"
    OOPS = "the kernel reported a fault"
    HANG = "the time limit passed"
    LOST = "the guest went away without a status"
    NOT_BOOTED = "the guest did not boot"


@dataclass(frozen=True)
class GuestResult:
    """One run of one guest.

    `status` is the command's exit status, 128 + N when signal N ended it, None when the guest did not get as far
    as saying it (an OOPS may have one). `console_tail` is the console's last lines, `console_log` the file that has
    all of it. Times are in seconds from the start of the guest: `booted` when the command was about to start,
    `seconds` when everything was over. `cpus` is the number of CPUs that the guest had, None when it did not boot.
    """

    outcome: Outcome
    status: int | None
    console_tail: str
    console_log: Path
    booted: float | None
    seconds: float
    reason: str = ""
    cpus: int | None = None

    def verdict(self) -> str:
        """One line: the outcome and what the console says about it."""
        return f"{self.outcome.value}: {self.reason}" if self.reason else self.outcome.value

    def explain(self) -> str:
        """One line: the outcome, what the console says about it, and where the whole console is."""
        if self.outcome is Outcome.EXITED:
            return f"{self.verdict()} with status {self.status}"
        return f"{self.verdict()}; console: {self.console_log}"


class Guest(Protocol):
    """A way to run commands on a kernel that is not the running one."""

    status: str
    """The guest's name of the terminal on which a command may set a limit (see `init.py`)."""

    def release(self) -> str:
        """The kernel's release (`6.12.117`); `UsageError` when this is no kernel we can run."""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
        time_limit: float | None = None,
        boot_limit: float = 30,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        shared: Sequence[tuple[Path, str]] = (),
        visible: Sequence[Path] = (),
        stdin: int | None = None,
        end_at_fault: bool = False,
    ) -> GuestResult:
        """Boot, run `argv` as root of the guest, power off.

        The host's root file system is the guest's, read-only; `/tmp`, `/run`, `/var/tmp`, `/dev/shm` are fresh
        and empty but for the directories of `visible`, `cwd` and this interpreter, which stay readable there.
        `shared` are pairs (host directory, guest directory) that the guest can write to. `env` is the command's whole
        environment, by default ours. `time_limit` (seconds, from the command's start) and `boot_limit` end the
        guest. Output goes to the sinks, from the calling thread, or nowhere; stdout and stderr are terminals
        where the kind of guest has them.
        The command's stdin is a pipe with what comes from the descriptor `stdin`, else empty. With `end_at_fault`
        a kernel that reports a fault is ended, and nothing of stdout is passed on from there. An exception
        out of a sink, or Ctrl-C, ends the guest before it is passed on.
        """
