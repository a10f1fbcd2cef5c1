# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: how they end with us, or we with them, and daemons that serve us."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_FIRST: Final = 3  # the standard streams lead nowhere in it


def end_with_parent() -> None:
    """Be killed when the process that forked us ends; to be asked for again after a change of the user."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def ended(pid: int, patience: float) -> bool:
    """Whether our child ends within so many seconds; it is reaped then."""
    fd = os.pidfd_open(pid)
    try:
        if not select.select([fd], [], [], max(0.0, patience))[0]:
            return False
        os.waitpid(pid, 0)
        return True
    finally:
        os.close(fd)


def daemon(work: Callable[[], None], needed: Sequence[int] = ()) -> int:
    """Do the work in a daemon that has the descriptors `needed`; its pid. It ends with exit code 0, or 1 for a fault.

    What was open here would be kept busy by it. A signal of the terminal is meant for us, and then we end it.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        end_with_parent()
        if os.getppid() not in (parent, 0):  # it ended before we asked; 0 is one outside of our process namespace
            os._exit(1)
        # What the parent had and lost closes its descriptors when it is collected: here these are closed already, and
        # their numbers may be those of our own.
        gc.freeze()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(needed)
        work()
        os._exit(0)
    finally:
        os._exit(1)


def end(pid: int) -> None:
    """Kill it, unless it has ended, and reap it, unless it was reaped."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _close_all_but(needed: Sequence[int]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(_FIRST):
        os.dup2(nowhere, number)
    first = _FIRST
    for number in sorted(needed):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
