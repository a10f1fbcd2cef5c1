# SPDX-License-Identifier: GPL-2.0-only
"""Plays a race: rounds in which all actors run at once, and between them a look at the whole union (D14, D15)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from datasets.layers import METACOPY, REDIRECT
from mount_union import Union, mount_union
from report.events import Checked, Event
from union import syscalls
from union.actors import STEPS, Scene, operations
from union.arena import Arena
from union.detach import detach
from union.errors import SetupError
from union.example import TOP
from union.judge import Judge, Look
from union.plan import Share, Turn
from union.race import SHARED, Actor, Race
from union.rules.common import copy_up
from union.together import Verdict, together
from union.witness import is_opaque

PATIENCE = 60.0
"""Seconds that a round may take: an actor that is not done then hangs."""


class _Hang(Exception):
    """An actor hung and could not be ended: what it holds of the union cannot be taken down."""


@dataclass(frozen=True, slots=True)
class Raced:
    """What came of a race: complaints, with what owners and those who complain did; how many steps were done in all and
    how many moves refused (D19), how many of the directories that all share were opaque after each round, and on how
    many CPUs.
    """

    complaints: tuple[str, ...]
    steps: tuple[str, ...]
    done: int
    refused: int
    opaque: tuple[int, ...]
    cpus: int
    hung: bool = False


def play(race: Race, arena: Arena) -> Raced:
    """Play it. Raises HarnessError for what is our own fault, or when the kernel refuses."""
    played = _Played(race)
    try:
        played.run(arena)
    except (_Hang, SetupError):
        if not played.hung:  # else the union could not be taken down
            raise
    return played.raced()


class _Played:
    def __init__(self, race: Race) -> None:
        self._race = race
        self._complaints: list[str] = []
        self._steps: list[str] = []
        self._done = self._refused = 0
        self._opaque: list[int] = []
        self.hung = False

    def raced(self) -> Raced:
        """What came of it so far."""
        cpus = os.cpu_count() or 1
        told = tuple(self._complaints), tuple(self._steps) if self._complaints else ()
        return Raced(*told, self._done, self._refused, tuple(self._opaque), cpus, self.hung)

    def __call__(self, event: Event) -> None:
        """Listens to what is checked of the union as a whole."""
        if isinstance(event, Checked):
            self._complaints += [f"{event.clause}: {event.what}: {line}" for line in event.complaints]

    def run(self, arena: Arena) -> None:
        """All rounds and the detach, up to what is wrong."""
        race, example = self._race, self._race.example()
        before = example.configuration()
        share = Share((Turn(TOP, example.group(), (1,)),), example.options)
        with mount_union(before, share, arena.mountpoint, self, arena.lay) as union:
            for turn in range(race.rounds):
                self._round(union, turn)
                if self._complaints:
                    return
            if example.detaches:
                after = replace(before, migrate="dfs", fence="shutdown", moment="after")
                detach(after, union.overlay, union.judge, union.cycler, self)
                union.configuration = after
                if not self._complaints:
                    self._round(union, race.rounds)
            if not self._complaints:
                union.finish(())

    def _round(self, union: Union, turn: int) -> None:
        """Let all actors run, then look at everything while it is quiet."""
        union.judge.restless = True
        union.judge.begin()
        for actor, verdict in self._together(union.judge, turn):
            if actor.kind == "owner" and not self._complaints:
                drawn = operations(self._race, turn, actor, union.judge.model)
                for number, operation in enumerate(drawn, start=1):
                    if number not in verdict.refused:
                        union.judge.model.apply(operation)
        if not self._complaints:
            learn(union.judge)
            self._quiet(turn, "with warm caches", union.judge.tree(look=Look.LISTED))
            syscalls.drop_caches()
            self._quiet(turn, "with cold caches", union.judge.tree())
        if self._race.xino == "nofollow":
            self._quiet(turn, "in the upper layer", list(hidden(str(union.overlay.stack.upperdir))))
        self._quiet(turn, "kernel log", union.log.trouble())
        self._opaque.append(sum(union.judge.witness.upper(path).opaque for path in SHARED))
        union.judge.restless = False

    def _quiet(self, turn: int, what: str, complaints: Sequence[str]) -> None:
        self._complaints += [f"after round {turn}, {what}: {line}" for line in complaints]

    def _together(self, judge: Judge, turn: int) -> list[tuple[Actor, Verdict]]:
        """All actors at once."""
        actors = self._race.actors()
        with _descriptors(judge.witness.root) as descriptors:
            scene = Scene(judge, descriptors)
            jobs = [partial(STEPS[actor.kind], self._race, turn, actor, scene) for actor in actors]
            verdicts = together(jobs, PATIENCE)
        self.hung = any(verdict.left for verdict in verdicts)
        told = list(zip(actors, verdicts, strict=True))
        for actor, verdict in told:
            who = f"round {turn}, {actor.kind} {actor.name}"
            self._complaints += [f"{who}: {line}" for line in verdict.complaints]
            self._done += len(verdict.steps)
            self._refused += len(verdict.refused)
            if verdict.complaints or actor.kind == "owner":
                self._steps += [f"{who}: {line}" for line in verdict.steps]
        if self.hung:
            raise _Hang
        return told


@contextmanager
def _descriptors(root: str) -> Iterator[list[int]]:
    with ExitStack() as stack:
        found = []
        for path in SHARED:
            fd = os.open(f"{root}/{path}", os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            found.append(fd)
        yield found


def hidden(upper: str) -> Iterator[str]:
    """What still needs the lower layers, by a redirect or for its data, in opaque directories (D4, D6)."""
    for top, directories, files in os.walk(upper):
        if not is_opaque(top):
            continue
        for name in directories:
            marks = os.listxattr(f"{top}/{name}", follow_symlinks=False)  # os.walk takes symlinks for directories too
            if REDIRECT in marks and not is_opaque(f"{top}/{name}"):
                yield f"{os.path.relpath(top, upper)}/{name}: still merged, and its directory is opaque"
        for name in files:
            if METACOPY in os.listxattr(f"{top}/{name}", follow_symlinks=False):
                yield f"{os.path.relpath(top, upper)}/{name}: has no data, and its directory is opaque"


def learn(judge: Judge) -> None:
    """Tell the model which objects others copied up, by a look at the upper layer."""
    for path, place in list(judge.model.places()):
        if not place.in_upper and judge.witness.upper(path).mode:
            copy_up(place)
