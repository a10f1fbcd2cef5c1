# SPDX-License-Identifier: GPL-2.0-only
"""What `systemd-run --scope` is to xfstests, without systemd: `scope.py [--OPTION [VALUE]]... COMMAND...`.

Runs the command, ends with its status, and whatever it has left running is killed before. xfstests does not look after
processes that a test leaves behind (overlay/058 does, for one): with systemd it stops the scope that the test ran in,
without they keep its filesystems busy, and all tests after it fail. Standard library only, and little of it: it
is started once per test.
"""

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
FLAGS, WITH_VALUE = ("--quiet", "--scope"), ("--unit",)


def command(words: list[str]) -> list[str]:
    """What comes after systemd-run's options, of those that xfstests gives; ValueError for another."""
    rest = list(words)
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        if option in WITH_VALUE:
            rest.pop(0)
        elif option not in FLAGS:
            raise ValueError(option)
    return rest


def children() -> list[int]:
    """Our children now, also those that we have adopted."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
            except OSError:
                pass  # it has ended
    return found


def run(words: list[str]) -> int:
    """Run the command; its exit status, 128 and the number if a signal ended it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; a test must not inherit that
        signal.signal(ignored, signal.SIG_DFL)
    first = os.spawnvp(os.P_NOWAIT, words[0], words)
    while True:
        pid, status = os.wait()
        if pid == first:
            break
    while left := children():  # what is killed leaves us its own children
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(command(sys.argv[1:])))
