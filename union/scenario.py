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
from pathlib import Path

from datasets.reference import FIRST_SET
from union.names import Names
from union.operations import Operation

Script = Callable[[Names], Sequence[Operation]]


class When(Enum):
    """In which runs a group is part of the default list."""

    ALWAYS = "always"
    DIRECTORY_RENAMES = "directory renames on"
    NO_DIRECTORY_RENAMES = "directory renames off"
    BY_NAME = "only by name"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One sentence and the operations that tell it."""

    label: str
    script: Script

    @property
    def origin(self) -> str:
        """`file.py:line` of the declaration."""
        code = inspect.unwrap(self.script).__code__
        return f"{Path(code.co_filename).name}:{code.co_firstlineno}"


@dataclass(frozen=True, slots=True)
class Group:
    """Scenarios under one name, run in order in one top directory of the union."""

    name: str
    sentence: str
    scenarios: tuple[Scenario, ...]
    when: When = When.ALWAYS
    sequence: bool = False  # a scenario goes on where the one before it ended

    def __post_init__(self) -> None:
        if not self.name or not self.scenarios or not self.sentence:
            raise ValueError(f"group {self.name!r} needs a name, a sentence and scenarios")
        if any(not scenario.label for scenario in self.scenarios):
            raise ValueError(f"group {self.name}: a scenario without a label")

    def operations(self, number: int, top: str | None = None) -> Sequence[Operation]:
        """The operations of scenario `number` (from 1) in the directory `top` (the group's name)."""
        return self._script(number, top or self.name)[1]

    def sets(self) -> int:
        """How many numbered sets its dataset must hold."""
        highest = (self._script(number, self.name)[0].highest for number in range(1, len(self.scenarios) + 1))
        return max(highest) - FIRST_SET + 1

    def _script(self, number: int, top: str) -> tuple[Names, Sequence[Operation]]:
        names = Names(top, FIRST_SET - 1 + number)
        operations = self.scenarios[number - 1].script(names)
        if not operations:
            raise ValueError(f"{self.name}:{number} has no operations")
        return names, operations
