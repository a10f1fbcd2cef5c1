# SPDX-License-Identifier: GPL-2.0-only
"""`./check` on the running kernel, apart from the rest of the machine; `python -m overlay_xfstests.apart ORDERS`.

Its processes have a namespace of their own, which ends with the first of them, so that nothing outlives a run. They see
their own mounts, with /tmp and the like fresh as in a guest: the scripts clear away files there that have their process
id for a name, and through /run they would ask systemd to put a process with that id into a scope, and to stop it.

Three processes: this one has the devices and waits; the first one in the namespace reaps what is orphaned; the third
prepares and follows `./check`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

from kernel.init import mount_all
from kernel.private import COVERED
from overlay_xfstests import devices, inside
from overlay_xfstests.orders import FAILED, Orders
from union import syscalls

GRACE: Final = 15
"""Seconds in which tests that are told to end may clear up after themselves."""
_PR_SET_PDEATHSIG: Final = 1


def main(words: Sequence[str]) -> int:
    """The program; returns its exit status, as `inside` does."""
    orders = Orders.read(words[0])
    signal.signal(signal.SIGTERM, _interrupt)
    _when_parent_dies(signal.SIGTERM)  # so that it is cleared up even when that is killed
    try:
        return inside.guarded(lambda: _with_devices(orders))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _with_devices(orders: Orders) -> int:
    with devices.made(orders.fs, orders.size) as (test, scratch):
        syscalls.unshare_processes()
        reader, writer = os.pipe()
        child = _forked(lambda: _first(orders, test, scratch, writer))
        os.close(writer)
        try:
            status = os.waitpid(child, 0)[1]
        except KeyboardInterrupt:
            _end(child)
            raise
        finally:
            with os.fdopen(reader) as pipe:
                mounted = {int(word) for word in pipe.read().split()}
            devices.free_those_on({devices.number(device) for device in (test, scratch)} | mounted)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def _end(child: int) -> None:
    """End the namespace: first with a chance to clear up, after GRACE without."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(child, signal.SIGTERM)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(GRACE)
    os.waitpid(child, 0)
    signal.alarm(0)


def _first(orders: Orders, test: str, scratch: str, tell: int) -> int:
    """The first process of the namespace: mounts, then reaps until `./check` is over. The kernel kills the rest."""
    _when_parent_dies(signal.SIGKILL)
    told: list[int] = []

    def tell_all(number: int, _: FrameType | None) -> None:
        told.append(number)
        os.kill(-1, signal.SIGTERM)

    signal.signal(signal.SIGTERM, tell_all)
    syscalls.unshare_mounts()
    covered = [os.fsencode(name) for name in COVERED if name not in orders.visible and os.path.isdir(name)]
    visible = [os.fsencode(name) for name in orders.visible]
    mount_all({"visible": visible, "covered": covered, "shared": [], "host": ""})
    syscalls.mount("proc", "/proc", "proc")
    os.write(tell, " ".join(str(os.stat(name).st_dev) for name in covered).encode())
    os.close(tell)
    child = _forked(lambda: _third(orders, test, scratch))
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    with suppress(ChildProcessError):
        while told:  # tests may still be clearing up
            os.wait()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _third(orders: Orders, test: str, scratch: str) -> int:
    # ./check gets one itself, and its last words are wanted. Not ignored, which it would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    return inside.run_check(orders, test, scratch)


def _forked(work: Callable[[], int]) -> int:
    """A child that does `work` and exits with what it returns."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            status = inside.guarded(work)
        finally:
            os._exit(status)
    return child


def _when_parent_dies(number: signal.Signals) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
