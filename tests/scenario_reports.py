# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin: `--results=DIR` writes the reports that `./run --results` writes, about the scenarios of the run.

Of each union asked for: in DIR, or in a directory of its name if there are several. What pytest calls a failure at
teardown is a check of the union as a whole. DIR also has a directory per worker: what its kernel is, can do and has
said (`kernel.json`, `kernel.log`), and in a guest the console.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from command import results
from report.events import Checked, Event, Evidence, Finished, Outcome, ScenarioEnded, ScenarioStarted, StageStarted
from report.record import Recorder
from tests.kernel_facts import Facts
from tests.scopes import Stage, scenario_of
from tests.union.choice import by_name
from union.errors import HarnessError

_WHOLE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
ALONE = "main"
"""The directory of pytest itself where there are no workers."""


def directory_of(config: pytest.Config) -> Path | None:
    """Where this worker keeps what it has to keep, made if need be; None without `--results`."""
    base: Path | None = config.getoption("--results")
    if base is None:
        return None
    worker: str = getattr(config, "workerinput", {}).get("workerid", ALONE)
    own = base.absolute() / worker
    own.mkdir(parents=True, exist_ok=True)
    return own


def keep_facts(directory: Path, facts: Facts, options: Mapping[str, int]) -> None:
    """Write the state of a kernel; `options` are those that were in effect, with how many unions had them."""
    plain = {**asdict(facts), "options in effect": dict(options)}
    log = plain.pop("log")
    (directory / "kernel.json").write_text(json.dumps(plain, indent=2) + "\n")
    (directory / "kernel.log").write_text(log)


class Reports:
    """Collects what is reported of scenarios; pytest calls it where tests are handed out."""

    def __init__(self, directory: Path, stages: Mapping[str, Stage], kernel: str, label: str) -> None:
        """`stages` by name; `kernel` is the word that `--kernel` takes, `label` what ids have. Raises UsageError."""
        self._label = label
        several = len({stage.run for stage in stages.values()}) > 1
        self._stages = stages
        self._unions: dict[tuple[str, ...], _Union] = {}
        for stage in stages.values():
            place = directory / stage.union if several else directory
            command = " ".join(("./run", *stage.run, f"--kernel={kernel}"))
            if stage.run not in self._unions:
                self._unions[stage.run] = _Union(place, command, Recorder(results.begun(place)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tell the events that the report stands for."""
        # By its id, as a worker that crashed left nothing but that.
        if stage := self._stage(report.nodeid):
            for event in _events(report, dict(report.user_properties)):
                self._unions[stage.run].tell(stage.option, event)

    def _stage(self, nodeid: str) -> Stage | None:
        return next((one for one in self._stages.values() if nodeid.endswith(f"[{one.name}-{self._label}]")), None)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the reports."""
        whole = exitstatus in _WHOLE and not (session.shouldfail or session.shouldstop)
        for union in self._unions.values():
            if whole:
                union.record(Finished())
            try:
                results.write(union.directory, union.command)
            except HarnessError as error:
                raise pytest.UsageError(str(error)) from error


@dataclass
class _Union:
    directory: Path
    command: str
    record: Recorder
    option: str = ""
    evidence: frozenset[tuple[str, str]] = frozenset()

    def tell(self, option: str, event: Event) -> None:
        """Record an event of the stage that `option` repeats."""
        if isinstance(event, Evidence):
            if (event.name, event.value) in self.evidence:
                return
            self.evidence |= {(event.name, event.value)}
        if option != self.option:
            self.option = option
            self.record(StageStarted(option))
        self.record(event)


def _events(report: Any, properties: Mapping[str, str]) -> Iterator[Event]:
    if report.when == "teardown":
        if report.failed:
            yield Checked("-", "the union is as it must be at the end", tuple(_lines(report)))
        return
    outcome = _outcome(report)
    if outcome is None:
        return
    group, label = scenario_of(report.nodeid)
    path, line, _ = report.location
    number = by_name(group).labels.index(label) + 1
    for name in ("kernel", "layers", "options in effect", "fence"):
        if name in properties:
            yield Evidence(name, properties[name])
    yield ScenarioStarted(group, number, label, f"{Path(path).name}:{line + 1}")
    yield ScenarioEnded(group, number, label, outcome, tuple(_lines(report)), report.duration)


def _outcome(report: Any) -> Outcome | None:
    """What came of the scenario, None if this report does not tell."""
    if hasattr(report, "wasxfail") and report.skipped:
        return Outcome.EXPECTED
    if report.skipped:
        return Outcome.SKIPPED
    if report.failed:
        return Outcome.ERROR if report.when == "setup" else Outcome.FAILED
    return Outcome.PASSED if report.when == "call" else None


def _lines(report: Any) -> list[str]:
    """The complaints, without the line that repeats the scenario: reports have their own."""
    if hasattr(report, "wasxfail"):
        return [f"expected: {report.wasxfail.removeprefix('reason: ')}"]
    if isinstance(report.longrepr, tuple):
        return [report.longrepr[2].removeprefix("Skipped: ")]
    return [line for line in str(report.longrepr or "").splitlines() if not line.startswith("reproduce: ")]
