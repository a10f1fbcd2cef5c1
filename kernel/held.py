# SPDX-License-Identifier: GPL-2.0-only
"""The host's processes of a guest, held together by `keeper.py` from their start to the last one's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from kernel.errors import SetupError
from kernel.watch import POWER_OFF_LIMIT

_KEEPER = Path(__file__).resolve().parent / "keeper.py"


class Held:
    """Context: `argv` runs under a keeper, on the host CPUs `cpus`; on exit it and all that it started are gone.

    `pipes` are our ends of its channels and are closed on exit. `far` are the descriptors that it inherits, closed here
    as soon as it has them; what it prints goes to `console`, one of them. `lock` it inherits too. `memory_dir` is where
    it may put files. Raises `SetupError` when the keeper cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        pipes: dict[str, int],
        far: Iterable[int],
        *,
        console: int,
        lock: int,
        memory_dir: str,
        cpus: tuple[int, ...],
    ) -> None:
        self.pipes = pipes
        inherited = set(far)
        keeper = [sys.executable, "-I", "-S", "-B", str(_KEEPER)]
        try:
            self.keeper = subprocess.Popen(
                [*keeper, str(os.getpid()), ",".join(map(str, cpus)), memory_dir, *argv],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # The keeper holds the lock of the private directory too: it is ours until both of us are gone.
                pass_fds=[*inherited, lock],
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            close_all(pipes)
            raise SetupError(f"cannot start a guest: {error}") from error
        finally:
            for fd in inherited:
                os.close(fd)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        try:
            self.keeper.wait(POWER_OFF_LIMIT)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            self.keeper.wait()
        close_all(self.pipes)

    def kill(self) -> None:
        """Ask the keeper to end every process of the guest; harmless when they are gone."""
        self.keeper.send_signal(signal.SIGTERM)


def close_all(pipes: dict[str, int]) -> None:
    """Close and forget every descriptor of `pipes`."""
    while pipes:
        os.close(pipes.popitem()[1])
