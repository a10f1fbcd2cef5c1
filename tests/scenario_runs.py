# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios one at a time: the unions that they share, built when the first is asked for, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from report.events import Outcome
from tests.guest_unions import GuestLost, InGuest
from tests.kernel_facts import Facts
from tests.scopes import Stage
from tests.union_server import Built, Ended, Here, Key
from union.errors import SetupError
from union.scenario import Group


class Failed(Exception):
    """The kernel did not do what it must; each argument is a line."""


class Erred(Exception):
    """The fault is ours, or what is needed is missing and was required; each argument is a line."""


@dataclass
class _Shared:
    """What is known of a union: who wants it, what came of building it, and which scenarios ran on it."""

    stage: Stage
    wanted: dict[str, list[int]] = field(default_factory=dict)
    built: Built | None = None
    ran: set[Key] = field(default_factory=set)
    broken: str = ""


class Unions:
    """The unions of a worker by scope, at a place that `start` begins; with `require` what is missing is an error."""

    def __init__(self, start: Callable[[], Here | InGuest], require: bool) -> None:
        self._start = start
        self._require = require
        self._place: Here | InGuest | None = None
        self._shared: dict[str, _Shared] = {}
        self._options: Counter[str] = Counter()

    def add(self, scope: str, stage: Stage, group: Group, number: int) -> None:
        """Say that a scenario is going to be asked for."""
        shared = self._shared.setdefault(scope, _Shared(stage))
        shared.wanted.setdefault(group.name, []).append(number)

    def begin(self) -> None:
        """Begin the place, so that it is ready when the first scenario is asked for."""
        self._place = self._place or self._start()

    def facts(self) -> tuple[Facts, Mapping[str, int]] | None:
        """The state of the kernel, and the options that were in effect on how many unions; None without a kernel."""
        try:
            return (self._place.facts(), self._options) if self._place else None
        except GuestLost:
            self._lose()
            return None

    def evidence(self, scope: str) -> Mapping[str, str]:
        """What was seen when the union was built."""
        built = self._shared[scope].built
        return built.evidence if built else {}

    def prepare(self, scope: str) -> None:
        """Have the union built; skips if the kernel cannot, raises Failed or Erred if that went wrong."""
        shared = self._shared[scope]
        if not (shared.built or shared.broken):
            self._build(scope, shared)
        if shared.broken:
            raise Erred(shared.broken)
        assert shared.built
        if shared.built.missing:
            self._miss(shared.built.missing)
        if shared.built.complaints:
            raise Erred("the union is not what it must be:", *shared.built.complaints)

    def run(self, scope: str, group: Group, number: int) -> None:
        """Run a scenario. Raises Failed or Erred, or skips."""
        shared = self._shared[scope]
        self.begin()
        assert self._place
        try:
            if group.trials:
                self._judge(self._place.trial(group.name, number), missing=True)
                return
            assert shared.built
            if why := shared.built.skipped.get((group.name, number)):
                self._miss(why)
            self._before(scope, shared, group, number)
            self._judge(self._replay(scope, shared, group, number))
        except SetupError as error:
            shared.broken = str(error)
            raise Erred(str(error)) from error
        except GuestLost as lost:
            self._lose()
            raise Failed("the guest was lost in this scenario:", str(lost)) from lost

    def finish(self, scope: str) -> None:
        """Look at the union once more and take it down; raises Failed or Erred."""
        shared = self._shared[scope]
        if not (self._place and shared.built) or shared.built.missing or shared.broken:
            return
        shared.built = None
        try:
            found = self._place.finish(scope)
        except SetupError as error:
            raise Erred(str(error)) from error
        except GuestLost as lost:
            self._lose()
            raise Failed("the guest was lost when the union was taken down:", str(lost)) from lost
        if found:
            raise Failed("the union is not what it must be at the end:", *found)

    def close(self) -> None:
        """End the place."""
        place, self._place = self._place, None
        if place:
            place.close()

    def _lose(self) -> None:
        """Forget what was in a guest that is gone; the next scenario gets a fresh one."""
        self.close()
        for shared in self._shared.values():
            if not (shared.built and shared.built.missing):
                shared.built = None
                shared.ran.clear()

    def _build(self, scope: str, shared: _Shared) -> None:
        self.begin()
        assert self._place
        wanted = {name: sorted(numbers) for name, numbers in shared.wanted.items()}
        try:
            shared.built = self._place.build(scope, shared.stage.configuration, wanted, shared.stage.rotating)
            self._options.update([value for value in [shared.built.evidence.get("options in effect")] if value])
        except SetupError as error:
            shared.broken = str(error)
        except GuestLost as lost:
            self._lose()
            shared.broken = "the guest was lost when this union was built"  # once is enough
            raise Failed(f"{shared.broken}:", str(lost)) from lost

    def _before(self, scope: str, shared: _Shared, group: Group, number: int) -> None:
        """A scenario of a sequence goes on where the one before it ended: those that nobody asked for run first."""
        for earlier in range(1, number) if group.sequence else ():
            if (group.name, earlier) in shared.ran:
                continue
            if earlier in shared.wanted[group.name]:  # on another union, or its guest was lost
                pytest.skip(f"the scenario it goes on from, {group.name}:{earlier}, did not run on this union")
            self._replay(scope, shared, group, earlier)

    def _replay(self, scope: str, shared: _Shared, group: Group, number: int) -> Ended:
        assert self._place
        shared.ran.add((group.name, number))
        return self._place.run(scope, group.name, number)

    def _judge(self, ended: Ended, missing: bool = False) -> None:
        match Outcome[ended.outcome]:
            case Outcome.FAILED:
                raise Failed(*ended.complaints, *(f"  {step}" for step in ended.steps))
            case Outcome.ERROR:
                raise Erred(*ended.complaints, *(f"  {step}" for step in ended.steps))
            case Outcome.SKIPPED:
                why = "; ".join(ended.complaints)
                if missing:
                    self._miss(why)
                pytest.skip(why)

    def _miss(self, why: str) -> None:
        if self._require:
            raise Erred(f"missing, and required: {why}")
        pytest.skip(why)
