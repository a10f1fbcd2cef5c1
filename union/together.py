# SPDX-License-Identifier: GPL-2.0-only
"""Processes that do their steps at the same time, and a watch over them that tells what one that hangs is at."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import mmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final, NamedTuple

from union.children import end_with_parent, ended
from union.errors import SetupError

LAST_WILL = 5.0  # seconds until a process that was killed is gone
_WORDS: Final = 1024  # bytes that tell what a process is at


class Refused(Exception):
    """The kernel did not do the step, as it may, and nothing has changed."""


class Step(NamedTuple):
    """What is done next: how it is told, and what does it and complains. An OSError out of it is a complaint too, and
    Refused is none.
    """

    words: str
    call: Callable[[], Iterable[str]]


Job = Callable[[], Iterator[Step]]
"""What a process does. It ends with the first step that complains."""


class Verdict(NamedTuple):
    """What a process found wrong, the steps it had done, the last one included, the numbers of those that were refused,
    and whether the process is `left`: it hung, and could not be ended.
    """

    complaints: tuple[str, ...]
    steps: tuple[str, ...] = ()
    refused: frozenset[int] = frozenset()
    left: bool = False


def together(jobs: Sequence[Job], patience: float) -> list[Verdict]:
    """Do all jobs at once, each in a process that is forked from this one; all begin when the last is there.

    One that is not done after `patience` seconds hangs and is killed. Raises SetupError for an error of a job that is
    no OSError.
    """
    start, go = os.pipe()
    processes: list[_Process] = []
    try:
        for job in jobs:
            processes.append(_Process(job, start, go))
    finally:
        os.close(start)
        os.close(go)
    waiting = {process.pipe: process for process in processes}
    deadline = time.monotonic() + patience
    while waiting and (ready := wait(list(waiting), max(0.0, deadline - time.monotonic()))):
        for pipe in ready:
            assert isinstance(pipe, Connection)
            waiting.pop(pipe).hear()
    for process in waiting.values():
        process.stop(patience)
    verdicts = [process.end() for process in processes]
    faults = [process.fault for process in processes if process.fault]
    if faults:
        raise SetupError(faults[0])
    return verdicts


class _Process:
    """One of them, from our side."""

    def __init__(self, job: Job, start: int, go: int) -> None:
        self.pipe, theirs = Pipe(duplex=False)
        self.fault = ""
        self._verdict = Verdict(())
        self._words = mmap(-1, _WORDS)  # shared
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(go)
                _act(job, start, theirs, self._words)
            finally:
                os._exit(1)
        theirs.close()

    def hear(self) -> None:
        """Take its verdict."""
        try:
            said: Verdict | str = self.pipe.recv()
        except EOFError:
            self._verdict = Verdict((f"the process ended while it was at {self._at()}",))
            return
        if isinstance(said, str):
            self.fault = said
        else:
            self._verdict = said

    def stop(self, patience: float) -> None:
        """It hangs: say where, and kill it."""
        where = kernel_stack(self.pid)
        self._verdict = Verdict((f"hangs: after {patience:g} s it is still at {self._at()}{where}",))
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Verdict:
        """See the process end."""
        self.pipe.close()
        self._words.close()
        if ended(self.pid, LAST_WILL):
            return self._verdict
        return self._verdict._replace(
            complaints=self._verdict.complaints or (f"the process does not end{kernel_stack(self.pid)}",), left=True
        )

    def _at(self) -> str:
        return self._words[:].rstrip(b"\0").decode(errors="replace") or "its beginning"


def _act(job: Job, start: int, answer: Connection, words: mmap) -> None:
    """In the process: wait for the others, then do the job."""
    end_with_parent()
    os.read(start, 1)  # its end comes when all are there
    done: list[str] = []
    refused: set[int] = set()
    complaints: tuple[str, ...] = ()
    try:
        for step in job():
            done.append(step.words)
            words[:] = f"step {len(done)}: {step.words}".encode()[:_WORDS].ljust(_WORDS, b"\0")
            try:
                complaints = tuple(step.call())
            except Refused:
                refused.add(len(done))
                done[-1] += " (refused)"
            except OSError as error:
                complaints = (str(error),)
            if complaints:
                break
        numbered = tuple(f"step {len(done)}: {line}" for line in complaints)
        answer.send(Verdict(numbered, tuple(done), frozenset(refused)))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the other side as our fault
        answer.send(f"{type(error).__name__}: {error}, after {len(done)} steps, the last of which was {done[-1:]}")


def kernel_stack(pid: int) -> str:
    """The state of the process, and where it is in the kernel, which not every kernel tells."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    try:
        calls = [line.rpartition(" ")[2] for line in Path(f"/proc/{pid}/stack").read_text().splitlines()]
    except OSError:
        calls = []
    return f", in state {state}{' at ' * bool(calls)}{' < '.join(calls)}"
