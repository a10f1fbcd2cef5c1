# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios one at a time: the unions that they share, built when the first is asked for, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from command import native
from report.events import Outcome
from tests.scopes import Stage
from tests.union_server import Ended, Key, TrialServer, UnionServer
from union.configuration import Configuration
from union.errors import SetupError
from union.plan import Share, Turn
from union.scenario import Group


class Failed(Exception):
    """The kernel did not do what it must; each argument is a line."""


class Erred(Exception):
    """The fault is ours, or what is needed is missing and was required; each argument is a line."""


@dataclass
class _Shared:
    """What is known of a union: who wants it, and the union if it could be built."""

    stage: Stage
    wanted: dict[str, tuple[Group, list[int]]] = field(default_factory=dict)
    server: UnionServer | None = None
    broken: str = ""
    missing: str = ""


class Unions:
    """The unions of a worker by scope; with `require` what is missing here is an error and no reason to skip."""

    def __init__(self, require: bool) -> None:
        self._require = require
        self._shared: dict[str, _Shared] = {}
        self._trials = TrialServer()
        self._reasons: dict[Configuration, list[str]] = {}

    def add(self, scope: str, stage: Stage, group: Group, number: int) -> None:
        """Say that a scenario is going to be asked for."""
        shared = self._shared.setdefault(scope, _Shared(stage))
        shared.wanted.setdefault(group.name, (group, []))[1].append(number)

    def prepare(self, scope: str) -> None:
        """Have the union built; skips if the kernel cannot, raises Erred if that went wrong."""
        shared = self._shared[scope]
        if not (shared.server or shared.broken or shared.missing):
            self._build(shared)
        if shared.missing:
            self._miss(shared.missing)
        if shared.broken:
            raise Erred(shared.broken)
        if shared.server and shared.server.complaints:
            raise Erred("the union is not what it must be:", *shared.server.complaints)

    def run(self, scope: str, group: Group, number: int) -> None:
        """Run a scenario. Raises Failed or Erred, or skips."""
        shared = self._shared[scope]
        try:
            if group.trials:
                self._judge(self._trials.run(group, number), missing=True)
                return
            assert shared.server
            if why := shared.server.skipped.get((group.name, number)):
                self._miss(why)
            self._before(shared.server, group, number, shared.wanted[group.name][1])
            self._judge(shared.server.run(group, number))
        except SetupError as error:
            shared.broken = str(error)
            raise Erred(str(error)) from error

    def finish(self, scope: str) -> None:
        """Look at the union once more and take it down; raises Failed or Erred."""
        shared = self._shared[scope]
        server, shared.server = shared.server, None
        try:
            found = server.finish() if server else []
        except SetupError as error:
            raise Erred(str(error)) from error
        if found:
            raise Failed("the union is not what it must be at the end:", *found)

    def _build(self, shared: _Shared) -> None:
        configuration = shared.stage.configuration
        try:
            shared.missing = "; ".join(self._unsuitable(configuration))
            if shared.missing:
                return
            turns = [Turn(name, group, tuple(sorted(wanted))) for name, (group, wanted) in shared.wanted.items()]
            shared.server = UnionServer(configuration, Share(tuple(turns), turns[0].group.options))
        except SetupError as error:
            shared.broken = str(error)

    def _unsuitable(self, configuration: Configuration) -> list[str]:
        """Why the kernel cannot have unions of this kind, asked once: it forks."""
        if configuration not in self._reasons:
            self._reasons[configuration] = native.unsuitable(configuration)
        return self._reasons[configuration]

    def _before(self, server: UnionServer, group: Group, number: int, wanted: list[int]) -> None:
        """A scenario of a sequence goes on where the one before it ended: those that nobody asked for run first."""
        for earlier in range(1, number) if group.sequence else ():
            key: Key = (group.name, earlier)
            if key in server.ran:
                continue
            if earlier in wanted:  # on another union, or its guest was lost
                pytest.skip(f"the scenario it goes on from, {group.name}:{earlier}, did not run on this union")
            server.run(group, earlier)

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
