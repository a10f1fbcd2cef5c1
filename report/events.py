# SPDX-License-Identifier: GPL-2.0-only
"""What a run tells its listeners, in the order it happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """How a scenario or a check ended; an error is ours, a failure is the kernel's, known beforehand if expected."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    EXPECTED = "expected"


@dataclass(frozen=True, slots=True)
class Noted:
    """A line for people: what the run does, and under which settings."""

    text: str


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A part of the run that `option` repeats alone, "" if there is but one."""

    option: str


@dataclass(frozen=True, slots=True)
class GroupStarted:
    name: str
    how: str


@dataclass(frozen=True, slots=True)
class ScenarioStarted:
    group: str
    number: int
    label: str
    origin: str


@dataclass(frozen=True, slots=True)
class OperationStarted:
    """Sent before the operation is performed, with the line that repeats it."""

    reproducer: str


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """What the operation gave, in words."""

    given: str


@dataclass(frozen=True, slots=True)
class ScenarioEnded:
    group: str
    number: int
    label: str
    outcome: Outcome
    complaints: tuple[str, ...]
    seconds: float

    @property
    def selector(self) -> str:
        """What names it on the command line."""
        return f"{self.group}:{self.number}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A must of the contract, looked at once in the run: nothing is counted when it holds."""

    clause: str
    what: str
    complaints: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        return Outcome.FAILED if self.complaints else Outcome.PASSED


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row of the summary: what was in effect or was seen."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """The run goes no further, by a fault of ours."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The run came to its end: all that was chosen has been told."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The run cannot be carried out here, and nothing was done."""

    why: str


Started = StageStarted | GroupStarted | ScenarioStarted | OperationStarted
Event = Noted | Started | OperationEnded | ScenarioEnded | Checked | Evidence | Aborted | Finished | Refused


class Listener(Protocol):
    """Whoever wants to know."""

    def __call__(self, event: Event) -> None: ...
