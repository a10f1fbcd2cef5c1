# SPDX-License-Identifier: GPL-2.0-only
"""Where `./check` runs: its devices, users and environment, and its output; `python -m overlay_xfstests.inside ORDERS`.

In a guest everything around is ours, so this is all there is; on the running kernel `apart` puts a wall around it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from overlay_xfstests import devices, scope, users
from overlay_xfstests.orders import FAILED, HUNG, Orders
from overlay_xfstests.transcript import Transcript
from union import syscalls
from union.errors import HarnessError

WORK: Final = Path("/tmp/ovl-xfstests")
SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBUGFS: Final = Path("/sys/kernel/debug")


def main(words: Sequence[str]) -> int:
    """The program in a guest; returns its exit status: that of `./check`, or HUNG or FAILED."""
    orders = Orders.read(words[0])
    _begin(orders)
    return guarded(lambda: _with_devices(orders))


def guarded(work: Callable[[], int]) -> int:
    """The status that `work` returns, or FAILED if it raises; then the last line on stderr is for the user."""
    try:
        return work()
    except HarnessError as error:
        print(error, file=sys.stderr, flush=True)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}" if error.filename else error, file=sys.stderr, flush=True)
    except Exception:  # noqa: BLE001 - a fault of ours must not look like a failed test (exit 1)
        traceback.print_exc()
    return FAILED


def _with_devices(orders: Orders) -> int:
    with devices.made(orders.fs, orders.size) as (test, scratch):
        if not any(DEBUGFS.iterdir()):
            syscalls.mount("debugfs", DEBUGFS, "debugfs")  # where a kernel forgets what it has warned of once
        return run_check(orders, test, scratch)


def run_check(orders: Orders, test: str, scratch: str) -> int:
    """Run `./check` on the two devices, to its end or that of a test's time; returns the status.

    Its mounts, and whatever its tests leave, are for the caller to get rid of.
    """
    environment = _environment(orders, test, scratch)
    command = ["./check", "-overlay", "-R", "xunit", *orders.tests]
    with subprocess.Popen(command, cwd=orders.checkout, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # fmt: skip
        if not _follow(process, orders):
            process.kill()
            return HUNG
    status = process.returncode
    return status if status >= 0 else 128 - status


def _environment(orders: Orders, test: str, scratch: str) -> dict[str, str]:
    """What `./check` finds in its environment, nothing else; makes the files and directories that it names."""
    for name in ("test", "scratch", "bin"):
        (WORK / name).mkdir(parents=True)
    users.provide(WORK)
    (WORK / "config").touch()  # /dev/null will not do: what is no plain file is searched for elsewhere
    # Wrapper tests call the suite by `env python3`, which may lack what this one has.
    _program("python3", f'exec {orders.python} "$@"')
    _program("systemd-run", f'exec {orders.python} -I -S -B {scope.__file__} "$@"')
    _program("systemd-escape", 'echo "$1"')
    _program("systemctl", 'case $1 in reset-failed|stop) ;; *) exit 1 ;; esac')
    options = {"OVERLAY_MOUNT_OPTIONS": orders.mount_options} if orders.mount_options else {}
    return {
        "PATH": f"{WORK}/bin:{SEARCH}",
        "HOME": "/root",
        "LC_ALL": "C",
        "HOST_OPTIONS": str(WORK / "config"),
        "FSTYP": orders.fs,
        "TEST_DEV": test,
        "TEST_DIR": str(WORK / "test"),
        "TEST_FS_MOUNT_OPTS": "-o rw",  # of the base; were it empty, it would be those of the overlays
        "SCRATCH_DEV": scratch,
        "SCRATCH_MNT": str(WORK / "scratch"),
        "RESULT_BASE": orders.results,
        "UNIONMOUNT_TESTSUITE": orders.suite,
        **options,
    }


def _program(name: str, text: str) -> None:
    path = WORK / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _follow(process: subprocess.Popen[bytes], orders: Orders) -> bool:
    """Pass the output on until the process has ended; False if a test takes longer than it may."""
    assert process.stdout is not None
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    transcript = Transcript(orders.tests)
    poll = select.poll()
    # Not until the end of the output alone, which something that a test left behind may hold open.
    for fd in (output, ended):
        poll.register(fd, select.POLLIN)
    deadline = _begin(orders)
    try:
        while ready := dict(poll.poll(max(0, 1000 * (deadline - time.monotonic())))):
            if output not in ready:
                return True
            data = os.read(output, 1 << 16)
            if not data:
                poll.unregister(output)
                continue
            if transcript.add(data):
                deadline = _begin(orders)
            while data:
                data = data[os.write(1, data) :]
        return False
    finally:
        os.close(ended)


def _begin(orders: Orders) -> float:
    """A test begins: tell the host, which ends a guest that hangs, and say when it must be over."""
    if orders.limits:
        terminal = os.open(orders.limits, os.O_WRONLY | os.O_NOCTTY)
        # The host's limit is for a guest that cannot keep its own.
        os.write(terminal, f"\nlimit {orders.limit + 10}\n".encode())
        os.close(terminal)
    return time.monotonic() + orders.limit


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
