# SPDX-License-Identifier: GPL-2.0-only
"""The results of a run as a value, collected from its events: what every report is written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from report.events import (
    Aborted,
    Checked,
    Event,
    Evidence,
    Finished,
    Outcome,
    Refused,
    ScenarioEnded,
    ScenarioStarted,
    StageStarted,
)

CUT_OFF: tuple[str, ...] = ("it was interrupted, or its kernel or its guest was lost: more was to come",)
RUNS_HERE = "the run can be carried out here"
LOST: tuple[str, ...] = ("the run ended while this was under way",)


@dataclass(frozen=True, slots=True)
class Cut:
    """Why a run ended before its time, and whether that was a fault of the kernel."""

    reason: str
    fault: bool

    @property
    def outcome(self) -> Outcome:
        """Of what was under way."""
        return Outcome.FAILED if self.fault else Outcome.ERROR


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario, or one check of the contract (`number` 0): where it belongs and how it ended.

    `stage` is "" or the option that repeats that part of the run alone.
    """

    family: str
    group: str
    number: int
    label: str
    outcome: Outcome
    complaints: tuple[str, ...]
    seconds: float
    stage: str = ""
    origin: str = ""

    @property
    def selector(self) -> str:
        """What names it on the command line; a check is told by its clause."""
        return f"{self.group}:{self.number}" if self.number else self.group


@dataclass(slots=True)
class Results:
    """All cases in their order, the evidence of the run, and the command that repeats it."""

    command: str
    cases: list[Case] = field(default_factory=list)
    evidence: dict[str, list[str]] = field(default_factory=dict)

    def families(self) -> dict[str, list[Case]]:
        """The cases by family, and by stage if there are several."""
        found: dict[str, list[Case]] = {}
        for case in self.cases:
            moment = case.stage.rpartition("=")[2]
            found.setdefault(f"{case.family}.{moment}" if moment else case.family, []).append(case)
        return found

    def reproducer(self, case: Case) -> str:
        """The command line that repeats a case."""
        words = (self.command, case.stage, case.selector if case.number else "")
        return " ".join(word for word in words if word)


def collect(
    command: str, told: Iterable[Event], families: Mapping[str, str], cut: Cut | None = None
) -> Results:
    """The results of the events of a run, which `cut` ended before its time, if that is known.

    A run that did not come to its end, and what it was at then, are errors, but failures if its kernel is to blame.
    """
    results = Results(command)
    stage = ""
    running: ScenarioStarted | None = None
    for event in told:
        match event:
            case StageStarted(option):
                stage = option
            case ScenarioStarted():
                running = event
            case ScenarioEnded():
                origin = running.origin if running and running.number == event.number else ""
                running = None
                results.cases.append(_case(event, families, stage, origin))
            case Checked(clause, what, complaints):
                name = "kernel" if clause == "-" else clause
                results.cases.append(Case("checks", name, 0, what, event.outcome, complaints, 0.0, stage))
            case Evidence(name, value):
                values = results.evidence.setdefault(name, [])
                values += [] if value in values else [value]
            case Aborted(reason):
                cut = cut or Cut(reason, fault=False)
            case Refused(why):
                results.cases.append(Case("checks", "run", 0, RUNS_HERE, Outcome.SKIPPED, (why,), 0.0, stage))
                return results
            case Finished():
                if cut and cut.fault:
                    results.cases.append(_check("kernel", "the kernel reports no fault", cut, (), stage))
                return results
    cut = cut or Cut("", fault=False)
    if running:
        reasons = (cut.reason,) if cut.reason else LOST
        lost = ScenarioEnded(running.group, running.number, running.label, cut.outcome, reasons, 0.0)
        results.cases.append(_case(lost, families, stage, running.origin))
    results.cases.append(_check("run", "the run comes to its end", cut, CUT_OFF, stage))
    return results


def _check(name: str, what: str, cut: Cut, more: tuple[str, ...], stage: str) -> Case:
    complaints = (*filter(None, [cut.reason]), *more)
    return Case("checks", name, 0, what, cut.outcome, complaints, 0.0, stage)


def _case(ended: ScenarioEnded, families: Mapping[str, str], stage: str, origin: str) -> Case:
    family = families.get(ended.group, ended.group)
    return Case(
        family, ended.group, ended.number, ended.label, ended.outcome, ended.complaints, ended.seconds, stage, origin
    )
