# SPDX-License-Identifier: GPL-2.0-only
"""The workers of a workload as processes in a union, and what is known of each from outside, also when it hangs."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from union.children import end_with_parent, ended
from union.errors import SetupError
from union.lazy.image import Image
from union.lazy.workload import Changes, Verdict, Worker, judge

_WORDS: Final = 1024  # bytes that tell what a worker is at
_REST: Final = 4  # times as long as a step took a worker rests after it,
_LONGEST_REST: Final = 1.0  # but not for more seconds
LAST_WILL: Final = 10.0  # seconds until a process that was killed, or told to end, is gone


class Result(NamedTuple):
    """A step that was taken: when it began (time.monotonic()), for how many seconds, and what came of it."""

    worker: int
    began: float
    seconds: float
    kind: str
    words: str
    verdict: Verdict
    detail: str

    @property
    def ended(self) -> float:
        """When it was over."""
        return self.began + self.seconds

    def __str__(self) -> str:
        return f"worker {self.worker}, {self.words}: {self.detail}"


class Account(NamedTuple):
    """All that the workers have to say in the end; `read` are the files of the image that they have read, `silent` the
    workers that came to another end.
    """

    results: list[Result]
    changes: Changes
    read: set[str]
    silent: list[int]


class Crew:
    """Some workers, each a process with the union as its root."""

    def __init__(self, root: Path, image: Image, logs: Path, *, count: int, seed: int, pause: float) -> None:
        """Start them. Between two steps each waits for `pause` seconds, and for long if the step took long, so that a
        slow machine does something else besides; `logs` is an empty directory for accounts.
        """
        self._stopping, self._stop = os.pipe()
        self._logs = [logs / f"worker-{number}" for number in range(count)]
        self._members: list[_Member] = []
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for number in range(count):
            worker = Worker(image, number, count, seed)
            worker.input = nowhere
            others = [self._stop, *(member.ticks for member in self._members)]
            self._members.append(_Member(worker, root, self._logs[number], self._stopping, pause, others))
        os.close(nowhere)
        os.close(self._stopping)

    def step_on(self, patience: float) -> list[str]:
        """Return when each has ended what it is at now, and the step after it; those who have not after `patience`
        seconds are told.
        """
        deadline = time.monotonic() + patience
        for member in self._members:
            member.drain()
        waiting = {member.ticks: (member, 2) for member in self._members}
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(waiting), [], [], left)
            for fd in ready:
                member, steps = waiting.pop(fd)
                got = member.drain()
                if got and steps > got:
                    waiting[fd] = (member, steps - got)
        return [member.hangs() for member, _ in waiting.values()]

    def stuck(self, seconds: float) -> list[str]:
        """Those that have been at one step for so many seconds."""
        return [member.hangs() for member in self._members if member.busy() > seconds]

    def stop(self) -> list[str]:
        """Let each end its step and give account; those that do not are killed and told."""
        os.close(self._stop)
        deadline = time.monotonic() + LAST_WILL
        hung = []
        for member in self._members:
            if not member.ended(deadline - time.monotonic()):
                hung.append(member.hangs())
                member.kill()
        return hung

    def kill(self) -> None:
        """End all of them, come what may."""
        for member in self._members:
            member.kill()

    def account(self) -> Account:
        """Of those that have stopped. Raises SetupError when one has ended by a fault of ours."""
        results: list[Result] = []
        changes, read, silent = Changes(), set[str](), []
        for number, path in enumerate(self._logs):
            silent.append(number)
            for line in path.read_text().splitlines():
                said = json.loads(line)
                if isinstance(said, list):
                    results.append(Result(number, *said))
                elif "fault" in said:
                    raise SetupError(f"worker {number}: {said['fault']}")
                else:
                    changes.add(Changes(**said["changes"]))
                    read |= set(said["read"])
                    silent.remove(number)
        return Account(sorted(results, key=lambda result: result.began), changes, read, silent)


class _Member:
    """One of them, from our side."""

    def __init__(
        self, worker: Worker, root: Path, log: Path, stopping: int, pause: float, others: Sequence[int]
    ) -> None:
        self._began = memoryview(mmap.mmap(-1, 8)).cast("d")  # when it began what it is at; 0 between two steps
        self._words = mmap.mmap(-1, _WORDS)
        self.ticks, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # a byte for each step
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.pid = os.fork()
        if not self.pid:
            try:
                for number in (*others, self.ticks):
                    os.close(number)
                self._act(worker, root, fd, theirs, stopping, pause)
            finally:
                os._exit(1)
        os.close(fd)
        os.close(theirs)
        self._gone = False

    def _act(self, worker: Worker, root: Path, log: int, ticks: int, stopping: int, pause: float) -> None:
        """In the process."""
        end_with_parent()
        os.setpgid(0, 0)  # to be killed with the programs that it runs
        try:
            os.chroot(root)
            os.chdir("/")
            for step in worker.steps():
                began = time.monotonic()
                self._words[:] = step.words.encode(errors="replace")[:_WORDS].ljust(_WORDS, b"\0")
                self._began[0] = began
                verdict, detail = judge(step)
                self._began[0] = 0
                seconds = time.monotonic() - began
                line = [began, seconds, step.kind, step.words, verdict, detail]
                os.write(log, json.dumps(line).encode() + b"\n")
                _tick(ticks)
                if select.select([stopping], [], [], max(pause, min(_REST * seconds, _LONGEST_REST)))[0]:
                    break
            account = {"changes": asdict(worker.changes), "read": sorted(worker.read)}
            os.write(log, json.dumps(account).encode() + b"\n")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the other side as our fault
            os.write(log, json.dumps({"fault": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(0)

    def drain(self) -> int:
        """How many steps it has ended since the last time; 0 if it will end no more."""
        try:
            return len(os.read(self.ticks, 1 << 16))
        except BlockingIOError:
            return 0

    def busy(self) -> float:
        """For how many seconds it has been at one step."""
        began = self._began[0]
        return time.monotonic() - began if began else 0

    def hangs(self) -> str:
        """What it is at."""
        words = self._words[:].rstrip(b"\0").decode(errors="replace") or "its beginning"
        return f"worker of pid {self.pid} has been at {words} for {self.busy():.1f} s"

    def ended(self, patience: float) -> bool:
        """Wait for its end, for so many seconds."""
        self._gone = self._gone or ended(self.pid, patience)
        return self._gone

    def kill(self) -> None:
        """End it, with the programs that it runs."""
        if not self._gone:
            kill_group(self.pid)
            self.ended(LAST_WILL)


def _tick(fd: int) -> None:
    with suppress(BlockingIOError):  # nobody counts them now
        os.write(fd, b".")


def kill_group(pid: int) -> None:
    """SIGKILL for our child and, if it leads a process group, for all in that."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
