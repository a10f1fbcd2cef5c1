# SPDX-License-Identifier: GPL-2.0-only
"""The transcript on stdout: banner, TEST lines, one reproducer line per operation, summary (parity 1.5)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from report.events import (
    Checked,
    Event,
    Evidence,
    GroupStarted,
    Noted,
    OperationEnded,
    OperationStarted,
    Outcome,
    ScenarioEnded,
    ScenarioStarted,
    StageStarted,
)

SLOWEST = 5


class Writer(Protocol):
    """The part of a text stream that a transcript needs."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Terminal:
    """Writes the transcript as events arrive and, at the end, the summary."""

    def __init__(
        self,
        command: str,
        *,
        verbose: bool = False,
        out: Writer | None = None,
        families: Mapping[str, str] | None = None,
    ) -> None:
        """`command` is what reproduces the run without its group names, e.g. `./run --ov --xino`.

        If `verbose`, what each operation gave is shown too. `families` gives the family of a group; a group
        without one counts for itself.
        """
        self._families = families or {}
        self.command = command
        self.verbose = verbose
        self.out: Writer = out or sys.stdout
        self.counts: Counter[Outcome] = Counter()
        self._evidence: list[Evidence] = []
        self._ended: list[ScenarioEnded] = []
        self._stage = ""
        self._options: list[str] = []  # per ended scenario, what its stage adds to the command
        self._checks: list[Checked] = []

    def __call__(self, event: Event) -> None:
        match event:
            case Noted(text):
                self._line(text)
            case StageStarted(option):
                self._stage = option
            case GroupStarted(name, how):
                self._line(f"***\n*** {how} {name}\n***")
            case ScenarioStarted(_, _, label, origin):
                self._line(f"TEST {origin}: {label}")
                self.out.flush()  # a crash is blamed on the last line that got out
            case OperationStarted(reproducer):
                self._line(f" {reproducer}")
            case OperationEnded(given):
                if self.verbose:
                    self._line(f"   -> {given}")
            case ScenarioEnded():
                self._scenario_ended(event)
            case Checked():
                self._checked(event)
            case Evidence():
                self._evidence.append(event)

    def summary(self) -> None:
        """The evidence, the slowest scenarios, the failures, and alone on the last line the counts."""
        if self._evidence:
            self._line("\n" + _columns(list(self._evidence_rows())))
        if self._checks:
            self._line("\n" + _columns([("clause", "outcome", "check"), *self._check_rows()], headed=True))
        if self._ended:
            header = ("family", *(outcome.value for outcome in self._columns()), "seconds")
            self._line("\n" + _columns([header, *self._group_rows()], headed=True))
            slowest = sorted(self._ended, key=lambda ended: -ended.seconds)[:SLOWEST]
            self._line("\nslowest: " + ", ".join(f"{ended.selector} {ended.seconds:.2f} s" for ended in slowest))
        for failed, option in zip(self._ended, self._options, strict=True):
            if failed.outcome not in (Outcome.FAILED, Outcome.ERROR):
                continue
            self._line(f"\n{failed.outcome.name} {failed.selector}: {failed.label}")
            for complaint in failed.complaints:
                self._line(f"    {complaint}")
            self._line(f"    reproduce: {' '.join(filter(None, (self.command, option, failed.selector)))}")
        self._line("\n" + self.counts_line())
        self.out.flush()

    def counts_line(self) -> str:
        """`N passed, N failed, N skipped`, with `N errors` between them only if there are any."""
        errors = self.counts[Outcome.ERROR]
        parts = [f"{self.counts[Outcome.PASSED]} passed", f"{self.counts[Outcome.FAILED]} failed"]
        if errors:
            parts.append(f"{errors} errors")
        expected = self.counts[Outcome.EXPECTED]
        parts += [f"{expected} expected to fail"] if expected else []
        return ", ".join([*parts, f"{self.counts[Outcome.SKIPPED]} skipped"])

    def _columns(self) -> list[Outcome]:
        """What the table of families counts."""
        return [outcome for outcome in Outcome if outcome is not Outcome.EXPECTED or self.counts[outcome]]

    def _evidence_rows(self) -> Iterator[tuple[str, str]]:
        """One row per name; where the unions of the run differ, a line for each value in their order."""
        values: dict[str, list[str]] = {}
        for row in self._evidence:
            if row.value not in values.setdefault(row.name, []):
                values[row.name].append(row.value)
        for name, several in values.items():
            yield from zip((name, *[""] * (len(several) - 1)), several, strict=True)

    def _check_rows(self) -> Iterator[tuple[str, str, str]]:
        """One row per check, with the number of unions it was made on if there were several."""
        alike: dict[tuple[str, str], list[Checked]] = {}
        for check in self._checks:
            alike.setdefault((check.clause, check.what), []).append(check)
        for (clause, what), checks in alike.items():
            bad = [check for check in checks if check.outcome is not Outcome.PASSED]
            outcome = (bad or checks)[0].outcome.value
            times = f" ({len(checks)} times)" if len(checks) > 1 else ""
            yield clause, outcome, f"{what}{times}"

    def _group_rows(self) -> list[tuple[str, ...]]:
        """One row per family, one for all and, if there were several, for each stage; one per group that failed."""
        families: dict[str, list[ScenarioEnded]] = {}
        failing: dict[str, list[ScenarioEnded]] = {}
        bad = {ended.group for ended in self._ended if ended.outcome in (Outcome.FAILED, Outcome.ERROR)}
        for ended in self._ended:
            families.setdefault(self._families.get(ended.group, ended.group), []).append(ended)
            if ended.group in bad:
                failing.setdefault(f"  group {ended.group}", []).append(ended)
        stages: dict[str, list[ScenarioEnded]] = {}
        for ended, option in zip(self._ended, self._options, strict=True):
            stages.setdefault(f"  all of {option}", []).append(ended)
        rows = [*families.items(), ("all", self._ended), *(stages.items() if len(stages) > 1 else ()), *failing.items()]
        return [_row(name, ended, self._columns()) for name, ended in rows]

    def _scenario_ended(self, event: ScenarioEnded) -> None:
        self.counts[event.outcome] += 1
        self._ended.append(event)
        self._options.append(self._stage)
        # What is skipped for want of something never began: no TEST line names it.
        name = f"{event.selector}: " if event.outcome is Outcome.SKIPPED else ""
        for complaint in event.complaints:
            self._line(f"{event.outcome.name}: {name}{complaint}")

    def _checked(self, event: Checked) -> None:
        self._checks.append(event)
        if event.outcome is Outcome.FAILED:
            self.counts[Outcome.FAILED] += 1
            for complaint in event.complaints[:20]:
                self._line(f"FAILED: {event.clause}: {complaint}")
            if len(event.complaints) > 20:
                self._line(f"FAILED: {event.clause}: … and {len(event.complaints) - 20} more")

    def _line(self, text: str) -> None:
        self.out.write(f"{text}\n")
        if self.verbose:
            self.out.flush()  # then to the operation


def _row(name: str, ended: list[ScenarioEnded], columns: list[Outcome]) -> tuple[str, ...]:
    counts = Counter(one.outcome for one in ended)
    seconds = sum(one.seconds for one in ended)
    return (name, *(str(counts[outcome]) for outcome in columns), f"{seconds:.2f}")


def _columns(rows: list[tuple[str, ...]], *, headed: bool = False) -> str:
    """A plain table. Not tabulate's: to load that takes a tenth of a second in a guest, at every run."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if headed:
        rows = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
