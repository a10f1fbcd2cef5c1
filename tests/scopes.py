# SPDX-License-Identifier: GPL-2.0-only
"""Which unions scenarios run on when they are tests: what `--union` names, and who shares one.

A union per worker with all groups on it would be built by each of them. So the groups that can share one are dealt
out: as many unions as there are workers, each with a part of the groups. The part follows from the declarations
and the number of workers alone, as the controller, which hands scopes out, knows nothing but ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from command.options import parse
from tests.union import GROUPS
from union.configuration import Configuration, Option
from union.errors import UsageError
from union.plan import Turn
from union.scenario import Group

WORTH_A_UNION = 100
"""So many scenarios that share a union are rather dealt out to several, each of which takes a second or so to build."""

_ROTATING = "-rotating"
_ID = re.compile(r".*?::(?P<group>[^:]+)::(?P<label>.*)\[(?P<configuration>[^][]+)\]")


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the runs that `union` stands for: a configuration whose unions scenarios run on.

    `words` are those of `./run` that repeat it, `run` are those of all stages together, `among` the configurations of
    these, `option` what is said for this one alone. A `rotating` union is mounted anew after each group, its upper
    layer turned into a lower one.
    """

    union: str
    name: str
    configuration: Configuration
    run: tuple[str, ...]
    option: str
    among: tuple[Configuration, ...]
    last: bool
    rotating: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The words of `./run` that repeat it."""
        return (*self.run, self.option) if self.option else self.run

    def command(self, kernel: str) -> str:
        """The command line of a run of it."""
        return " ".join(("./run", *self.words, f"--kernel={kernel}"))


def stages(union: str, more: Sequence[str] = ()) -> list[Stage]:
    """What `union` stands for: the words of a command line, as in `ov-xino-verify`; `more` are further ones.

    A detach run is two, `ov-xino-before` and `ov-xino-detached`, one with rotations too: `ov=3-rotating` and `ov=3`.
    Raises UsageError.
    """
    words = (*(f"--{word}" for word in union.split("-")), *more)
    options = parse(words, {})
    if options.action != "run":
        raise UsageError(f"--union={union}: it takes a kind of union and its features, like ov or ov-xino-verify")
    parts = options.configuration.stages()
    if len(parts) > 1:
        before, after = parts
        return [
            Stage(union, f"{union}-before", before, words, "--operations=before", parts, False),
            Stage(union, f"{union}-detached", after, words, "--operations=after", parts, True),
        ]
    [one] = parts
    rotates = one.rotations is not None and not (one.detach or one.plain)
    rotating = [Stage(union, f"{union}{_ROTATING}", one, words, "", parts, False, True)] if rotates else []
    return [*rotating, Stage(union, union, one, words, "", parts, True)]


def scenario_of(nodeid: str) -> tuple[str, str]:
    """The group and the label of the scenario with this id; ValueError if it is none."""
    if found := _ID.fullmatch(nodeid):
        return found["group"], found["label"]
    raise ValueError(f"{nodeid}: the id of no scenario")


def scope_of(nodeid: str, workers: int) -> str:
    """What must run on one worker, one after the other: the scope of the scenario with this id, else the id itself."""
    found = _ID.fullmatch(nodeid)
    parts = _parts(workers)
    if not found or found["group"] not in parts:
        return nodeid
    if f"{_ROTATING}-" in found["configuration"] and found["group"] in _remounted():
        return f"{found['configuration']} {found['group']}"
    return f"{found['configuration']} {parts[found['group']]}"


@cache
def _remounted() -> frozenset[str]:
    """The groups during whose scenarios a rotating union is remounted: each has one of its own."""
    groups = [group for group in GROUPS if not group.trials]
    turns = [Turn(group.name, group, tuple(range(1, len(group.labels) + 1))) for group in groups]
    return frozenset(turn.group.name for turn in turns if turn.remounts)


@cache
def _parts(workers: int) -> dict[str, str]:
    """Per group the name of its part."""
    sharing: dict[tuple[int, tuple[Option, ...]], list[Group]] = {}
    for group in GROUPS:
        if not group.trials:
            sharing.setdefault((len(group.lowers) or 1, group.options), []).append(group)
    names = {group.name: f"trials {group.name}" for group in GROUPS if group.trials}
    for index, groups in enumerate(sharing.values()):
        worth = sum(len(group.labels) for group in groups) >= WORTH_A_UNION
        loads = [0] * (workers if worth else 1)
        for group in groups:
            least = loads.index(min(loads))
            loads[least] += len(group.labels)
            names[group.name] = f"union {index}.{least}"
    return names
