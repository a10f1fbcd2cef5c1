# SPDX-License-Identifier: GPL-2.0-only
"""Unions in processes of their own, on which scenarios are replayed one at a time, as somebody asks for them.

A process has a private mount namespace, so the one that asks keeps its own, and what was mounted goes with it,
however either ends. Trials share one: to fork for each would take longer than most of them do.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from command import native
from mount_union import Union, mount_union
from report.events import Checked, Event, Evidence, OperationStarted, Outcome, ScenarioEnded
from tests.kernel_facts import Facts, facts
from tests.union.choice import by_name
from union import playable, rounds, worlds
from union.arena import Arena
from union.configuration import Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.example import Played
from union.plan import NothingLeft, Share, Turn
from union.playable import Playable
from union.race import Race
from union.runner import Runner
from union.trial import run_trials
from union.workspace import enter_private_namespace

Key = tuple[str, int]
"""A group's name and the number of a scenario."""


class Ended(NamedTuple):
    """What came of a scenario: its outcome, why, and, unless it passed, the lines that repeat its operations."""

    outcome: str
    complaints: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


class Built(NamedTuple):
    """What came of building a union: why it cannot be here, or what is left out, what is wrong and what was seen."""

    missing: str
    skipped: Mapping[Key, str]
    complaints: Sequence[str]
    evidence: Mapping[str, str]


class Told(list[Event]):
    """A listener that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)


class Child:
    """A process with mounts of its own that does what it is asked to over a pipe, as `work` reads it.

    Whatever is wrong with it is raised as SetupError, and then it is gone. Of what it does little goes over the pipe:
    to pickle and unpickle the events of a scenario takes longer than to run it.
    """

    def __init__(self, work: Callable[[Connection], None]) -> None:
        self._pid, self._pipe = _forked(work)
        self.alive = True

    def ask(self, what: Key | Playable | worlds.Batch | Race | None) -> Any:
        """Send `what`; the answer of the process."""
        self._pipe.send(what)
        return self.answer()

    def answer(self) -> Any:
        """What the process says next."""
        try:
            return _received(self._pipe)
        except SetupError:
            self.end()
            raise

    def end(self) -> None:
        """See it end: it does when nobody asks any more."""
        self.alive = False
        self._pipe.close()
        os.waitpid(self._pid, 0)


class UnionServer:
    """The union of one share, built in a child process; the groups that need what is missing here are `skipped`.

    `complaints` is what is wrong with the union before anything was done to it, `evidence` what was seen meanwhile.
    Raises SetupError when the child cannot go on, also later.
    """

    def __init__(self, configuration: Configuration, share: Share) -> None:
        self._child = Child(lambda pipe: _serve(pipe, configuration, share))
        events: list[Event] = self._child.answer()
        self.skipped = {(e.group, e.number): "; ".join(e.complaints) for e in events if isinstance(e, ScenarioEnded)}
        self.complaints = complaints(events)
        self.evidence = {event.name: event.value for event in events if isinstance(event, Evidence)}
        if all((turn.group.name, number) in self.skipped for turn in share.turns for number in turn.numbers):
            self._child.end()

    def run(self, group: str, number: int) -> Ended:
        """Replay one scenario."""
        return Ended(*self._child.ask((group, number)))

    def finish(self) -> list[str]:
        """Look at the union once more, unmount it, and say what is wrong; nothing if there is none any more."""
        if not self._child.alive:
            return []
        found: list[str] = self._child.ask(None)
        self._child.end()
        return found

    def end(self) -> None:
        """Take it down without a look."""
        if self._child.alive:
            self._child.end()


class TrialServer:
    """A child process for trials, each of which mounts its own; a new one after one that died."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def run(self, group: str, number: int) -> Ended:
        """Run one trial. Raises SetupError when the child died of it."""
        if not (self._child and self._child.alive):
            self._child = Child(_serve_trials)
        return Ended(*self._child.ask((group, number)))

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child and self._child.alive:
            self._child.end()


class ExampleServer:
    """A child process for examples, with an arena; a new one after one that died."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def play(self, example: Playable) -> Played:
        """Play one. Raises SetupError when that cannot be done, or the child died of it."""
        played: Played = self._living().ask(example)
        return played

    def search(self, batch: worlds.Batch) -> list[worlds.Wrong]:
        """Play all sequences of a batch; raises likewise."""
        found: list[worlds.Wrong] = self._living().ask(batch)
        return found

    def race(self, race: Race) -> rounds.Raced:
        """Play a race; raises likewise."""
        raced: rounds.Raced = self._living().ask(race)
        return raced

    def _living(self) -> Child:
        if not (self._child and self._child.alive):
            self._child = Child(_serve_examples)
        return self._child

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child and self._child.alive:
            self._child.end()


class Here:
    """Unions on the kernel that this process runs on, by scope. What goes wrong with one is raised as SetupError."""

    def __init__(self) -> None:
        self._unions: dict[str, UnionServer] = {}
        self._trials = TrialServer()
        self._examples = ExampleServer()
        self._reasons: dict[Configuration, list[str]] = {}

    def build(
        self, scope: str, configuration: Configuration, wanted: Mapping[str, Sequence[int]], rotating: bool
    ) -> Built:
        """A union of this kind for the `wanted` scenarios by group; `rotating` ones are remounted after each group."""
        if reasons := self._unsuitable(configuration):
            return Built("; ".join(reasons), {}, [], {})
        turns = [Turn(name, by_name(name), tuple(numbers)) for name, numbers in wanted.items()]
        server = UnionServer(configuration, Share(tuple(turns), turns[0].group.options, rotating))
        self._unions[scope] = server
        return Built("", server.skipped, server.complaints, server.evidence)

    def run(self, scope: str, group: str, number: int) -> Ended:
        """Replay one scenario on the union of the scope."""
        return self._unions[scope].run(group, number)

    def trial(self, group: str, number: int) -> Ended:
        """Run one trial."""
        return self._trials.run(group, number)

    def play(self, example: Playable) -> Played:
        """Play an example or a history."""
        return self._examples.play(example)

    def search(self, batch: worlds.Batch) -> list[worlds.Wrong]:
        """Play all sequences of a batch."""
        return self._examples.search(batch)

    def race(self, race: Race) -> rounds.Raced:
        """Play a race."""
        return self._examples.race(race)

    def finish(self, scope: str) -> list[str]:
        """Look at the union of the scope once more and take it down; what is wrong with it."""
        return self._unions.pop(scope).finish()

    def facts(self) -> Facts:
        """The state of the kernel."""
        return facts()

    def close(self) -> None:
        """End what is left."""
        while self._unions:
            self._unions.popitem()[1].end()
        self._trials.close()
        self._examples.close()

    def _unsuitable(self, configuration: Configuration) -> list[str]:
        """Why the kernel cannot have unions of this kind, asked once: it forks."""
        if configuration not in self._reasons:
            self._reasons[configuration] = native.unsuitable(configuration)
        return self._reasons[configuration]


def complaints(events: Sequence[Event]) -> list[str]:
    """What the checks among the events found wrong."""
    failed = [event for event in events if isinstance(event, Checked) and event.outcome is Outcome.FAILED]
    return [f"{event.clause}: {event.what}: {line}" for event in failed for line in event.complaints]


def _ended(events: Sequence[Event]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    [end] = [event for event in events if isinstance(event, ScenarioEnded)]
    if wrong := complaints(events):
        return (Outcome.FAILED.name, (*wrong, *end.complaints), ())
    if end.outcome is Outcome.PASSED:
        return (end.outcome.name, (), ())
    steps = tuple(event.reproducer for event in events if isinstance(event, OperationStarted))
    return (end.outcome.name, end.complaints, steps)


def _received(pipe: Connection) -> Any:
    try:
        answer: Any = pipe.recv()
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


def _serve_trials(pipe: Connection) -> None:
    while True:
        name, number = pipe.recv()
        events = Told()
        run_trials(by_name(name), (number,), "", events)
        pipe.send(_ended(events))


def _serve_examples(pipe: Connection) -> None:
    with ExitStack() as stack:
        arena = Arena(stack)
        while True:
            asked: Playable | worlds.Batch | Race = pipe.recv()
            match asked:
                case worlds.Batch():
                    pipe.send(worlds.play(asked, arena))
                case Race():
                    pipe.send(rounds.play(asked, arena))
                case _:
                    pipe.send(playable.play(asked, arena))


def _serve(pipe: Connection, configuration: Configuration, share: Share) -> None:
    events = Told()
    with _skipping(share, events), mount_union(configuration, share, native.MOUNTPOINT, events) as union:
        pipe.send(list(events))
        within = native.remounts_within(share)
        runner = native.runner_of(union, share, events)
        turns = {turn.group.name: turn for turn in union.turns}
        last = ""
        while (wanted := pipe.recv()) is not None:
            events.clear()
            name, number = wanted
            if share.rotating and not within and last not in ("", name):
                _remount(union, runner, turns[last].top, events)
            last = name
            runner.run_turn(replace(turns[name], numbers=(number,)), "")
            pipe.send(_ended(events))
        events.clear()
        if not runner.lost:
            union.finish(runner.spoiled)
        pipe.send(complaints(events))
        return
    pipe.send(list(events))


def _remount(union: Union, runner: Runner, top: str, events: Told) -> None:
    """Between two groups on a rotating union; what is wrong then is a complaint of the scenario that follows."""
    if not runner.lost:
        complaints = native.remounted(union, runner, top)
        events(Checked("-", "after a remount each group is as the model says", tuple(complaints)))


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
