# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios and groups: declarations, with no I/O.

A scenario is a sentence and the operations that tell it. A group is what the classical suite calls
a test file: its scenarios run in order, the k-th on numbered set 99 + k.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path

from datasets.layers import relocated
from datasets.reference import FIRST_SET, reference_top
from datasets.tree import Directory
from union.names import Names
from union.operations import Operation
from union.stand import Stand

Script = Callable[[Names], Sequence[Operation]]


@dataclass(frozen=True, slots=True)
class Need:
    """Something that not every kernel or filesystem has, found out by doing.

    `probe` gets the roots of the empty lower and upper filesystems, in which it may make what it removes
    again; it answers None, or why the need is not met. `lacking` are filesystems that do not have it as a lower
    and cannot be probed, because they are packed when their content is known.
    """

    words: str
    probe: Callable[[Path, Path], str | None]
    lacking: frozenset[str] = frozenset()


class When(Enum):
    """In which runs a group is part of the default list."""

    ALWAYS = "always"
    DIRECTORY_RENAMES = "directory renames on"
    NO_DIRECTORY_RENAMES = "directory renames off"
    WITHOUT_DETACH = "without --xino"  # long, and the same whatever becomes of the lower
    LONG = "only by name, or as `long`"  # takes longer than all the rest
    BY_NAME = "only by name"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One sentence and the operations that tell it."""

    label: str
    script: Script

    @property
    def origin(self) -> str:
        """`file.py:line` of the declaration."""
        return _origin(self.script)


@dataclass(frozen=True, slots=True)
class Trial:
    """One sentence about overlays that the trial mounts itself, see `union.stand`."""

    label: str
    work: Callable[[Stand], None]
    line: int = 0  # of the declaration, if `work` is shared by several
    file: str = ""  # likewise, if that is in another module

    @property
    def origin(self) -> str:
        """`file.py:line` of the declaration."""
        return _origin(self.work, self.line, self.file)


def _origin(function: Callable[..., object], line: int = 0, file: str = "") -> str:
    code = inspect.unwrap(function).__code__
    return _located(file or code.co_filename, line or code.co_firstlineno)


@cache  # told of each scenario, and a search has them by the ten thousand
def _located(file: str, line: int) -> str:
    return f"{Path(file).name}:{line}"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Scenarios under one name, run in order in one top directory of the union; or trials, each on its own.

    `lowers` is what that directory holds in each lower layer, the topmost layer first; empty for the
    numbered sets of the reference dataset. `upper` is what it holds in the upper layer already. `options` are mount
    options that its union needs, `needs` what else must be there. A lower that cannot be migrated as a whole has
    `detaches` False. What only a single overlay on these very layers does is `overlay_alone`: a plain filesystem does
    otherwise, and a nested overlay or another implementation may.
    """

    name: str
    sentence: str
    scenarios: tuple[Scenario, ...] = ()
    when: When = When.ALWAYS
    sequence: bool = False  # a scenario goes on where the one before it ended
    lowers: tuple[Directory, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    needs: tuple[Need, ...] = ()
    detaches: bool = True
    overlay_alone: bool = False
    trials: tuple[Trial, ...] = ()
    upper: Directory | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.sentence or bool(self.scenarios) == bool(self.trials):
            raise ValueError(f"group {self.name!r} needs a name, a sentence and scenarios or trials")
        if any(not label for label in self.labels):
            raise ValueError(f"group {self.name}: a scenario without a label")

    @property
    def labels(self) -> tuple[str, ...]:
        """The sentence of each scenario or trial, in order."""
        return (*(scenario.label for scenario in self.scenarios), *(trial.label for trial in self.trials))

    def operations(self, number: int, top: str | None = None) -> tuple[Operation, ...]:
        """The operations of scenario `number` (from 1) in the directory `top` (the group's name)."""
        return _script(self, number, top or self.name)[1]

    def trees(self, top: str) -> tuple[Directory, ...]:
        """What the directory `top` must hold in each lower layer, the topmost layer first."""
        return tuple(relocated(tree, self.name, top) for tree in self.lowers) or (reference_top(top, self.sets()),)

    def sets(self) -> int:
        """How many numbered sets its dataset must hold."""
        highest = (_script(self, number, self.name)[0].highest for number in range(1, len(self.scenarios) + 1))
        return max(highest) - FIRST_SET + 1

@lru_cache(maxsize=4096)  # a plan asks what it does, a dataset how much it needs, a run for the operations themselves
def _script(group: Group, number: int, top: str) -> tuple[Names, tuple[Operation, ...]]:
    names = Names(top, FIRST_SET - 1 + number)
    operations = tuple(group.scenarios[number - 1].script(names))
    if not operations:
        raise ValueError(f"{group.name}:{number} has no operations")
    return names, operations
