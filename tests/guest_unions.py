# SPDX-License-Identifier: GPL-2.0-only
"""Unions in a guest that belongs to a worker of pytest: here the side of the worker, and `main` in the guest.

pytest itself stays on the host, where it is fast and where a debugger can be. The worker knows which scenario the
guest was lost in; it goes on in a fresh one.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel.gateway import WATCHED, obituary
from tests.kernel_facts import Facts
from tests.union_server import Built, Ended, Here
from union.configuration import Configuration
from union.errors import SetupError
from union.example import Played
from union.playable import Playable
from union.race import Race
from union.rounds import Raced
from union.worlds import Batch, Wrong

CHECKOUT = Path(__file__).resolve().parents[1]
_END_LIMIT = 15.0  # seconds that a guest gets to power off


class GuestLost(Exception):
    """The guest is gone, and all unions with it; the argument says why and how its console ended."""


class InGuest:
    """Unions in a guest with the kernel `binary`, by scope; see `Here`. It boots while we go on.

    A request that takes more than `limit` seconds ends the guest. Consoles are kept in `logs`, if given. Of several
    `cpus` all run at the same time. Each request may raise GuestLost.
    """

    def __init__(self, binary: Path, limit: int, logs: Path | None = None, *, cpus: int = 1) -> None:
        self._limit = limit
        self._directory = tempfile.TemporaryDirectory(prefix="ovl-detach-guest-")
        self._stderr = Path(self._directory.name, "stderr")
        kept = [*([f"--logs={logs}"] if logs else []), f"--cpus={cpus}"]
        command = ["-m", "kernel.gateway", str(binary), f"--obituaries={self._directory.name}", *kept]
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *command, "-u", "-m", "tests.guest_unions"],
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def build(
        self, scope: str, configuration: Configuration, wanted: Mapping[str, Sequence[int]], rotating: bool
    ) -> Built:
        """See `Here.build`."""
        return Built(*self._ask("build", scope, configuration, wanted, rotating))

    def run(self, scope: str, group: str, number: int) -> Ended:
        """See `Here.run`."""
        return Ended(*self._ask("run", scope, group, number))

    def trial(self, group: str, number: int) -> Ended:
        """See `Here.trial`."""
        return Ended(*self._ask("trial", group, number))

    def play(self, example: Playable) -> Played:
        """See `Here.play`."""
        played: Played = self._ask("play", example)
        return played

    def search(self, batch: Batch) -> list[Wrong]:
        """See `Here.search`."""
        found: list[Wrong] = self._ask("search", batch)
        return found

    def race(self, race: Race) -> Raced:
        """See `Here.race`."""
        raced: Raced = self._ask("race", race)
        return raced

    def finish(self, scope: str) -> list[str]:
        """See `Here.finish`."""
        found: list[str] = self._ask("finish", scope)
        return found

    def facts(self) -> Facts:
        """See `Here.facts`."""
        found: Facts = self._ask("facts")
        return found

    def close(self) -> None:
        """End the guest, as it is: what is mounted in it ends with it, and to power it off would take a second."""
        assert self._process.stdin and self._process.stdout
        self._process.terminate()
        self._process.stdin.close()
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the guest ends with it
            self._process.wait()
        self._process.stdout.close()
        self._directory.cleanup()

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        try:
            _send(self._process.stdin.fileno(), (self._limit, *request))
            fine, answer = _receive(self._process.stdout.fileno())
        except (EOFError, BrokenPipeError):
            raise GuestLost(self._last_words()) from None
        if not fine:
            raise SetupError(answer)
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        said = self._stderr.read_text(errors="replace")
        why = obituary(Path(self._directory.name), self._process.pid)
        return why or f"what served the unions in the guest ended with status {status}\n{said}"


def _send(fd: int, value: Any) -> None:
    data = pickle.dumps(value)
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(fd, data) :]


def _receive(fd: int) -> Any:
    return pickle.loads(_exactly(fd, int.from_bytes(_exactly(fd, 4), "little")))


def _exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def main() -> None:
    """In the guest: serve until nobody asks any more."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what anything prints must not get among the answers
    # Not through a file object: it would seek.
    watch = os.open(os.environ[WATCHED], os.O_WRONLY | os.O_NOCTTY)
    here = Here()
    while True:
        try:
            limit, what, *arguments = _receive(0)
        except EOFError:
            here.close()
            return
        os.write(watch, b"limit %d\n" % limit)
        try:
            answer = True, getattr(here, what)(*arguments)
        except SetupError as error:
            answer = False, str(error)
        os.write(watch, b"limit 0\n")
        _send(answers, answer)


if __name__ == "__main__":
    main()
