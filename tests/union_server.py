# SPDX-License-Identifier: GPL-2.0-only
"""A union in a process of its own, on which scenarios are replayed one at a time, as somebody asks for them.

The process has a private mount namespace, so the one that asks keeps its own, and what was mounted goes with it,
however either ends.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from command.native import MOUNTPOINT
from mount_union import mount_union
from report.events import Checked, Event, Outcome, ScenarioEnded
from union.configuration import Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.plan import NothingLeft, Share
from union.runner import Runner
from union.scenario import Group
from union.trial import run_trials
from union.workspace import enter_private_namespace

Key = tuple[str, int]
"""A group's name and the number of a scenario."""


class Told(list[Event]):
    """A listener that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)


class UnionServer:
    """The union of one share, built in a child process; the groups that need what is missing here are `skipped`.

    Raises SetupError when the child cannot go on, also later.
    """

    def __init__(self, configuration: Configuration, share: Share) -> None:
        self.ran: set[Key] = set()
        self._pid, self._pipe = _forked(lambda pipe: _serve(pipe, configuration, share))
        self._alive = True
        events = self._answer()
        self.skipped = {(e.group, e.number): "; ".join(e.complaints) for e in events if isinstance(e, ScenarioEnded)}
        self.complaints = complaints(events)
        """What is wrong with the union before anything was done to it."""
        if all((turn.group.name, number) in self.skipped for turn in share.turns for number in turn.numbers):
            self._reap()

    def run(self, group: Group, number: int) -> list[Event]:
        """Replay one scenario; all that it told."""
        self.ran.add((group.name, number))
        self._pipe.send((group.name, number))
        return self._answer()

    def finish(self) -> list[str]:
        """Look at the union once more, unmount it, and say what is wrong; nothing if there is none any more."""
        if not self._alive:
            return []
        self._pipe.send(None)
        events = self._answer()
        self._reap()
        return complaints(events)

    def _answer(self) -> list[Event]:
        try:
            return _received(self._pipe)
        except SetupError:
            self._reap()
            raise

    def _reap(self) -> None:
        self._alive = False
        self._pipe.close()
        os.waitpid(self._pid, 0)


def run_trial(group: Group, number: int) -> list[Event]:
    """Run one trial in a child process; all that it told."""

    def work(pipe: Connection) -> None:
        events = Told()
        run_trials(group, (number,), "", events)
        pipe.send(list(events))

    pid, pipe = _forked(work)
    try:
        return _received(pipe)
    finally:
        pipe.close()
        os.waitpid(pid, 0)


def complaints(events: Sequence[Event]) -> list[str]:
    """What the checks among the events found wrong."""
    failed = [event for event in events if isinstance(event, Checked) and event.outcome is Outcome.FAILED]
    return [f"{event.clause}: {event.what}: {line}" for event in failed for line in event.complaints]


def _received(pipe: Connection) -> list[Event]:
    try:
        answer: list[Event] | str = pipe.recv()
    except EOFError:
        raise SetupError("the process of the union died") from None
    if isinstance(answer, str):
        raise SetupError(answer)
    return answer


def _forked(work: Callable[[Connection], None]) -> tuple[int, Connection]:
    """Do `work` in a child with mounts of its own; whatever it raises is sent as text."""
    ours, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        ours.close()
        gc.disable()
        enter_private_namespace()
        os.umask(0o022)
        os.setgroups([])
        work(theirs)
    except EOFError:  # nobody asks any more
        pass
    except HarnessError as error:
        theirs.send(str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the parent as our fault
        theirs.send(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _serve(pipe: Connection, configuration: Configuration, share: Share) -> None:
    events = Told()

    def send() -> None:
        pipe.send(list(events))
        events.clear()

    with _skipping(share, events), mount_union(configuration, share, MOUNTPOINT, events) as union:
        send()
        runner = Runner(union.judge, union.log, events, slashes=configuration.slashes)
        turns = {turn.group.name: turn for turn in union.turns}
        while (wanted := pipe.recv()) is not None:
            name, number = wanted
            runner.run_turn(replace(turns[name], numbers=(number,)), "")
            send()
        if not runner.lost:
            union.finish(runner.spoiled)
    send()


@contextmanager
def _skipping(share: Share, events: Told) -> Iterator[None]:
    """What cannot be built for want of something on this kernel is told as skipped."""
    try:
        yield
    except NothingLeft:
        pass  # each was told
    except (Unsupported, UsageError) as lacking:
        if isinstance(lacking, UsageError) and not share.options:  # not a contradiction with the share's options
            raise
        for turn in share.turns:
            turn.skip([str(lacking)], events)
