# SPDX-License-Identifier: GPL-2.0-only
"""A migration in a process of its own, beside whatever else goes on in the union; it tells how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Final

from union import migrate
from union.children import end_with_parent, ended
from union.errors import SetupError
from union.lazy.crew import LAST_WILL, kill_group
from union.migrate import Care
from union.upper import OpaqueState, opaque_state

_STEPS: Final = 100  # how often it tells, on the way from nothing to all
_ROUNDS: Final = 10  # a directory that is changed while it is listed stays merged, and is listed again


class Background:
    """Migrates the union whose root is `union` and whose upper layer is `upper`, with some `objects` in it."""

    def __init__(self, union: Path, upper: Path, objects: int) -> None:
        """Start it."""
        self._objects = objects
        self._pipe, theirs = Pipe(duplex=False)
        self.migration: OpaqueState | None = None  # what upper says once it is done
        self.told: list[tuple[float, float]] = []  # when (time.monotonic()) what share was copied up
        self.pid = os.fork()
        if not self.pid:
            try:
                end_with_parent()
                self._pipe.close()
                theirs.send(self._migrate(union, upper, theirs.send))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the other side
                theirs.send(f"{type(error).__name__}: {error}")
            finally:
                os._exit(0)
        theirs.close()
        self._gone = False

    def _migrate(self, union: Path, upper: Path, tell: Callable[[object], object]) -> OpaqueState:
        done = told = 0

        def advance(count: int) -> None:
            nonlocal done, told
            done += count
            if done * _STEPS // self._objects > told:
                told = done * _STEPS // self._objects
                tell((time.monotonic(), min(1.0, done / self._objects)))

        now, before = opaque_state(upper, data=True), None
        root = os.open(union, os.O_PATH | os.O_DIRECTORY)
        for _ in range(_ROUNDS):
            if not now.needy or now == before:
                break
            migrate.migrated(root, Care(done=now.done, gently=True, advance=advance))
            now, before = opaque_state(upper, data=True), now
        return now

    def until(self, share: float, patience: float) -> bool:
        """Return when so much is copied up (more than 1: when it is over), or when `patience` seconds have passed:
        False. Raises SetupError when it has failed by a fault of ours.
        """
        deadline = time.monotonic() + patience
        while not (self.migration or (share <= 1 and self.told and self.told[-1][1] >= share)):
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                return False
            try:
                said = self._pipe.recv()
            except EOFError as error:
                raise SetupError("the migrator ended without a word") from error
            if isinstance(said, str):
                raise SetupError(f"the migrator failed: {said}")
            if isinstance(said, OpaqueState):
                self.migration = said
            else:
                self.told.append(said)
        return True

    def end(self) -> None:
        """Kill it if it is not done."""
        if not self._gone:
            kill_group(self.pid)
            self._gone = ended(self.pid, LAST_WILL)
            self._pipe.close()
