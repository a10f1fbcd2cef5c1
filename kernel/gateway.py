# SPDX-License-Identifier: GPL-2.0-only
"""A Python interpreter inside a guest, from outside an interpreter like any other: stdin, stdout, stderr, arguments.

    python -m kernel.gateway KERNEL [--obituaries=DIR] [--logs=DIR] [--cpus=N] -u -c CODE

boots KERNEL, a User-mode Linux binary or a bzImage, and runs this very interpreter there with the arguments from `-u`
on. So an execnet gateway `popen//python=python -m kernel.gateway KERNEL`, which is what a pytest-xdist worker is, lives
in a kernel of its own. It ends with the status of the interpreter, or with 70 as soon as the guest is lost: the kernel
panicked or reported a fault, a limit passed, its process was killed. Then the end of the console is in DIR under our
process id. The whole console is kept in the DIR of --logs. With --cpus the guest has so many CPUs, which run at the
same time; without it has one. The guest ends with us, at a SIGTERM too, and we end with
the process that started us.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kernel.choice import guest_of
from kernel.errors import SetupError, UsageError
from kernel.guest import Guest, GuestResult, Outcome

LOST = 70
WATCHED = "OVL_DETACH_WATCHED"
"""In the guest's environment: the file that takes `limit SECONDS`, see `init.py`."""

_PR_SET_PDEATHSIG = 1
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(words: Sequence[str]) -> int:
    """The program; returns its exit status."""
    try:
        kernel, *arguments = words
    except ValueError:
        options = "[--obituaries=DIR] [--logs=DIR] [--cpus=N]"
        print(f"usage: python -m kernel.gateway KERNEL {options} ARGUMENT...", file=sys.stderr)
        return UsageError.exit_code
    directory, logs = _taken(arguments, "--obituaries="), _taken(arguments, "--logs=")
    cpus = int(_taken(arguments, "--cpus=") or 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the guest, and clears up
    # Our input ends when our parent does, but an interpreter that hangs would not notice.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        guest = guest_of(Path(kernel), Path(logs) if logs else None, cpus=cpus, spread=cpus > 1)
        result = _run(guest, arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (SetupError, UsageError) as error:
        _complain(str(error), directory)
        return LOST
    if result.outcome is Outcome.EXITED and result.status is not None:
        return result.status
    _complain(f"{result.explain()}\nthe console ends with:\n{result.console_tail}", directory)
    return LOST


def _taken(arguments: list[str], option: str) -> str:
    """The value of the option if it comes next, taken off."""
    return arguments.pop(0).removeprefix(option) if arguments and arguments[0].startswith(option) else ""


def obituary(directory: Path, pid: int) -> str:
    """What became of the guest of process `pid`, with the tail of its console; empty if it is not known to be lost."""
    try:
        return Path(directory, str(pid)).read_text()
    except FileNotFoundError:
        return ""


def _complain(text: str, directory: str) -> None:
    print(f"guest: {text.partition(chr(10))[0]}", file=sys.stderr, flush=True)
    if directory:
        Path(directory, str(os.getpid())).write_text(text)


def _run(guest: Guest, arguments: Sequence[str]) -> GuestResult:
    more = {WATCHED: f"/dev/{guest.status}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": _SEARCH}
    return guest.run(
        [sys.executable, *arguments],
        cwd=Path.cwd(),
        env={**os.environ, **more},
        stdin=0,
        on_stdout=lambda data: _write(1, data),
        on_stderr=lambda data: _write(2, data),
        visible=[Path(path) for path in sys.path if os.path.isabs(path)],
        end_at_fault=True,
    )


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
