# SPDX-License-Identifier: GPL-2.0-only
"""Where `./check` can be run: in a guest, a new one for each call, or on the running kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from command.bootstrap import CHECKOUT
from kernel.guest import Guest, Outcome
from kernel.private import kept
from overlay_xfstests.apart import GRACE
from overlay_xfstests.inside import SEARCH
from overlay_xfstests.orders import FAILED, HUNG, Orders
from union.errors import SetupError

Sink = Callable[[bytes], object]
PACKAGES = CHECKOUT / "xfstests-overlay"


@dataclass(frozen=True)
class Ending:
    """How a call ended: with `./check`'s exit status, or `lost`, one line that says why.

    `last_words` are what we and the kernel said at the end, as far as that can be known, `log` the file that has all of
    what the kernel said.
    """

    status: int
    lost: str = ""
    last_words: str = ""
    log: Path | None = None


class Site(Protocol):
    """Somewhere to run `./check`."""

    def run(self, orders: Orders, out: Sink) -> Ending:
        """Run it to its end, its output going to `out`. Raises SetupError when it cannot be prepared.

        Whatever else, Ctrl-C too, ends it and is passed on; nothing of it is left then.
        """


def ending(status: int, where: str, said: str, limit: int) -> Ending:
    """What the exit status of `inside` means; `said` is what was on stderr. Raises SetupError."""
    if status == FAILED:
        raise SetupError(f"{where}: {said.strip().rpartition(chr(10))[2] or 'it could not be prepared'}")
    if status == HUNG:
        return Ending(status, f"it took longer than {limit} s")
    return Ending(status, f"./check ended with status {status}" if status > 1 else "", said)


class InGuest:
    """In guests of one kernel; `guest` makes one."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def run(self, orders: Orders, out: Sink) -> Ending:
        """See Site."""
        orders = replace(orders, limits=f"/dev/{self._guest.status}")
        said = bytearray()
        result = self._guest.run(
            [sys.executable, "-B", "-m", "overlay_xfstests.inside", orders.text()],
            cwd=PACKAGES,
            env={"PATH": SEARCH, "LC_ALL": "C.UTF-8", "PYTHONPATH": f"{CHECKOUT}:{PACKAGES}"},
            on_stdout=out,
            on_stderr=said.extend,
            shared=[(Path(orders.results), orders.results)],
            visible=[Path(orders.checkout), *seen()],
            end_at_fault=True,
        )
        if result.outcome is Outcome.NOT_BOOTED:
            self._guest.release()  # a better complaint if it is no kernel at all
            raise SetupError(f"guest: {result.explain()}")
        if result.outcome is not Outcome.EXITED or result.status is None:
            return Ending(1, result.verdict(), result.console_tail, result.console_log)
        final = ending(result.status, "guest", said.decode(errors="replace"), orders.limit)
        last_words = "\n".join(filter(None, (final.last_words, result.console_tail)))
        return replace(final, last_words=last_words, log=result.console_log)


class Here:
    """On the running kernel, apart from the rest of the machine (see `apart`)."""

    def run(self, orders: Orders, out: Sink) -> Ending:
        """See Site."""
        wanted = [Path(orders.checkout), Path(orders.results), *seen()]
        orders = replace(orders, visible=tuple(kept(wanted)))
        environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{PACKAGES}"}
        words = [sys.executable, "-m", "overlay_xfstests.apart", orders.text()]
        with tempfile.TemporaryFile() as err, subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, start_new_session=True
        ) as process:
            assert process.stdout is not None
            try:
                while data := os.read(process.stdout.fileno(), 1 << 16):
                    out(data)
                status = process.wait()
            except BaseException:
                _end(process)
                raise
            err.seek(0)
            said = err.read().decode(errors="replace")
        if status < 0:
            raise SetupError(f"the run was ended by signal {-status}")
        return ending(status, "here", said, orders.limit)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have all end that belongs to the run, first with a chance to clear up."""
    process.terminate()
    try:
        process.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def seen() -> Sequence[Path]:
    """Directories without which neither we nor the suite run."""
    return [CHECKOUT, Path(sys.prefix), Path(sys.base_prefix), *(Path(p) for p in sys.path if os.path.isabs(p))]
