# SPDX-License-Identifier: GPL-2.0-only
"""Runs scenarios: each operation is predicted by the model, performed on the union, then judged.

Three things must agree: what the scenario says, what the model predicts and what the kernel gives.
If the first two differ the harness is wrong (an error); if the kernel differs from them it failed.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable

from report.events import (
    GroupStarted,
    Listener,
    OperationEnded,
    OperationStarted,
    Outcome,
    ScenarioEnded,
    ScenarioStarted,
)
from union import syscalls
from union.judge import Judge
from union.kernellog import KernelLog
from union.operations import ANYTHING, Held, Operation, Result
from union.overlay import MountRefused
from union.plan import Turn
from union.scenario import Group

After = Callable[[Operation], list[str]]


Heard = Callable[[], list[str]]


def nothing(_: Operation) -> list[str]:
    """Nothing happens after an operation."""
    return []


def silent() -> list[str]:
    """Nobody listens to the lower."""
    return []


class Disagreement(Exception):
    """The scenario ends here: the union is not what the model says any more."""

    def __init__(self, outcome: Outcome, complaints: list[str]) -> None:
        super().__init__("; ".join(complaints))
        self.outcome = outcome
        self.complaints = complaints


class Runner:
    """Replays groups of scenarios on one union."""

    def __init__(
        self,
        judge: Judge,
        log: KernelLog | None,
        tell: Listener,
        *,
        after: After = nothing,
        slashes: bool = False,
        stated: bool = True,
        lists: bool = True,
        quiet: bool = False,
        heard: Heard = silent,
        cold: bool = False,
    ) -> None:
        """The `log` is looked at after each scenario, if there is one. A `quiet` one tells of no operation and looks at
        no clock: who runs operations by the ten thousand can do without.

        `after` is called when an operation succeeded and nothing is held, and may complain; `heard` after each
        operation: it complains about what has reached the lower meanwhile. With `cold` caches are dropped before each
        scenario.

        With `slashes` each path under test gets a terminal slash. What the scenario states is about paths
        without it, so the model alone predicts then (parity 5.4);
        likewise if what must come out is not `stated` at all. With `lists` the directories of all names touched are
        listed at the end of a scenario, which may turn them opaque.
        """
        self.after = after
        self.heard = heard
        self._cold = cold
        self.lost = ""  # why there is no union any more
        self.slashes = slashes
        self.stated = stated and not slashes
        self.lists = lists
        self.judge = judge
        self.log = log
        self._quiet = quiet
        self._now: Callable[[], float] = float if quiet else time.monotonic
        self.tell = tell
        self.spoiled: set[str] = set()  # top directories where a scenario did not end as the model says

    def run_turn(self, turn: Turn, how: str) -> None:
        """Run the scenarios of one group in its directory; goes on after a failure."""
        self.tell(GroupStarted(turn.group.name, how))
        for number in turn.numbers:
            self._run_scenario(turn.group, number, turn.top)

    def _run_scenario(self, group: Group, number: int, top: str) -> None:
        scenario = group.scenarios[number - 1]
        self.tell(ScenarioStarted(group.name, number, scenario.label, scenario.origin))
        started = self._now()
        outcome, complaints = Outcome.PASSED, []
        if self.lost:
            outcome, complaints = Outcome.SKIPPED, [self.lost]
        elif group.sequence and top in self.spoiled:
            outcome, complaints = Outcome.SKIPPED, ["the scenario it goes on from did not pass"]
        else:
            try:
                if self._cold:
                    syscalls.drop_caches()
                self._replay(group.operations(number, top))
            except Disagreement as disagreement:
                outcome, complaints = disagreement.outcome, disagreement.complaints
                if outcome is not Outcome.SKIPPED:
                    self.spoiled.add(top)
            except MountRefused as refused:
                outcome, complaints = Outcome.FAILED, [f"cannot be mounted again: {refused}"]
                self.lost = "the union could not be mounted again"
        trouble = self.log.trouble() if self.log else ()
        if trouble:
            outcome = Outcome.FAILED if outcome is Outcome.PASSED else outcome
            complaints = [*complaints, *(f"kernel log: {line}" for line in trouble)]
        seconds = self._now() - started
        self.tell(ScenarioEnded(group.name, number, scenario.label, outcome, tuple(complaints), seconds))

    def _replay(self, operations: Iterable[Operation]) -> None:
        touched: set[str] = set()
        held = Held()
        try:
            for stated in operations:
                operation = stated.slashed() if self.slashes else stated
                if not self._quiet:
                    self.tell(OperationStarted(operation.reproducer(self.judge.witness.root)))
                touched.update(self._parents(operation) if self.lists else ())
                self._step(operation, held)
        finally:
            held.release()
            self.judge.model.release()
        complaints = [line for path in sorted(touched) for line in self.judge.listing(path)] + self.heard()
        if complaints:
            raise Disagreement(Outcome.FAILED, complaints)

    def _step(self, operation: Operation, held: Held) -> None:
        wanted = operation.expected()
        self.judge.begin()
        at_the_border = self.judge.crosses_border(operation)
        given = self._perform(operation, held) if at_the_border else None
        if given is not None and given.errno == errno.EXDEV != wanted.errno:
            complaints = self.judge.names(operation.names())
            refused = f"{operation.path}: refused with EXDEV before the detach, as D19 allows"
            raise Disagreement(Outcome.FAILED if complaints else Outcome.SKIPPED, complaints or [refused])
        predicted = self.judge.model.apply(operation)
        if self.stated and not _agree(wanted, predicted):
            raise Disagreement(
                Outcome.ERROR, [f"{operation.path}: the scenario says {wanted} but the model predicts {predicted}"]
            )
        if given is None:
            given = self._perform(operation, held)
        if not self.judge.agrees(operation, predicted, given):
            ours = given.errno == errno.ENOSPC and self._full()
            why = ": the filesystem of the upper layer is full" if ours else ""
            outcome = Outcome.ERROR if ours else Outcome.FAILED
            raise Disagreement(outcome, [f"{operation.path}: {given} instead of {predicted}{why}"])
        complaints = [*self.judge.names(operation.names()), *self.heard()]
        if not (complaints or given.errno or held):
            complaints = self.after(operation)
        if complaints:
            raise Disagreement(Outcome.FAILED, complaints)

    def _perform(self, operation: Operation, held: Held) -> Result:
        given = operation.perform(self.judge.witness.root, held)
        if not self._quiet:
            self.tell(OperationEnded(str(given)))
        return given

    def _full(self) -> bool:
        """Whether the union can take no more: that is no fault of the kernel's."""
        space = os.statvfs(self.judge.witness.root)
        return not (space.f_bavail and space.f_ffree)

    def _parents(self, operation: Operation) -> set[str]:
        """The directories whose listing the operation may change."""
        return {os.path.dirname(name.rstrip("/")) for name in operation.names()} - {""}


def _agree(wanted: Result, predicted: Result) -> bool:
    """A value that the scenario leaves open (None) agrees with any, and so does ANYTHING on either side."""
    free = ANYTHING in (wanted.value, predicted.value)
    return wanted.errno == predicted.errno and (free or wanted.value in (None, predicted.value))
