# SPDX-License-Identifier: GPL-2.0-only
"""Kernels with a bug put in on purpose: what the suite finds of each, and whether that will do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tabulate import tabulate

from bench import findings
from bench.findings import Finding
from bench.seeded import Bug
from kernel.paths import new_log
from union.errors import SetupError

CHECKOUT = Path(__file__).resolve().parent.parent
PROPERTIES = tuple(
    f"tests/random/test_{name}.py"
    for name in ("examples", "worlds", "passes", "half_way", "interruption", "state_machine")
)
"""What is drawn, and boiled down when it fails."""
MOST = 5  # operations of what a bug is boiled down to
NONE = "(none)"  # the kernel without a bug: nothing may be found there
LIMIT = 1800  # seconds for all scenarios, or all random tests, on one kernel


@dataclass(frozen=True)
class Replay:
    """The exit status of `./run --play` of an example, on the kernel with the bug and on the one without."""

    with_bug: int
    without: int

    def __str__(self) -> str:
        return "yes" if self.proves else f"no: exit {self.with_bug}, {self.without} on the reference"

    @property
    def proves(self) -> bool:
        """Whether the example shows the bug and nothing else."""
        return (self.with_bug, self.without) == (1, 0)


@dataclass(frozen=True)
class Row:
    """What was found on one kernel: by scenarios, whose names are told, and by random tests; the first is replayed.

    None are the scenarios that did not run; an `error` is what kept us from finding out the rest.
    """

    bug: str
    clauses: str
    scenarios: tuple[str, ...] | None
    found: tuple[Finding, ...]
    replay: Replay | None = None
    error: str = ""

    def wrong(self) -> list[str]:
        """What the suite should have done better."""
        if self.error:
            return [f"{self.bug}: {self.error}"]
        if self.bug == NONE:
            return [f"{self.bug}: {what} fails without a bug" for what in (*(self.scenarios or ()), *self._tests())]
        if not self.found:
            what = "no random test" if self.scenarios else "nothing"
            return [f"{self.bug}: caught by {what}"]
        complaints = []
        if (operations := self.found[0].operations) > MOST:
            complaints.append(f"{self.bug}: boiled down to {operations} operations, more than {MOST}")
        if not (self.replay and self.replay.proves):
            complaints.append(f"{self.bug}: its example does not show the bug: {self.replay or 'not replayed'}")
        return complaints

    def _tests(self) -> list[str]:
        return [one.test for one in self.found]

    def cells(self) -> list[str]:
        """As in the table."""
        scenarios = f"{len(self.scenarios)}: {self.scenarios[0]}" if self.scenarios else "-"
        scenarios = "not run" if self.scenarios is None else scenarios
        if not self.found:
            return [self.bug, self.clauses, scenarios, "-", "-", "-", "-"]
        first = self.found[0]
        return [
            self.bug,
            self.clauses,
            scenarios,
            first.test,
            str(first.examples),
            str(first.operations),
            str(self.replay or "-"),
        ]


HEADERS = ("bug", "clauses", "scenarios that fail", "random test", "examples", "operations", "reproduces")


def table(rows: Sequence[Row]) -> str:
    """One line per kernel."""
    aligned = ("left", "left", "left", "left", "right", "right", "left")
    return tabulate([row.cells() for row in rows], headers=HEADERS, disable_numparse=True, colalign=aligned)


def _run(words: Sequence[str], good: Sequence[int], environment: dict[str, str] | None = None) -> int:
    """Run a command to its end; its exit status. SetupError with the log's name for one that says nothing."""
    log = new_log(f"sensitivity-{threading.get_native_id()}")
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=CHECKOUT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(words)}: takes longer than {LIMIT} s; output: {log}") from error
    if done.returncode not in good:
        raise SetupError(f"{' '.join(words)}: exit {done.returncode}; output: {log}")
    return done.returncode


def scenarios(kernel: Path) -> tuple[str, ...]:
    """Run all of the detach run; the names of those that did not pass."""
    with tempfile.TemporaryDirectory(prefix="sensitivity.") as results:
        words = ["run", "--ov", "--xino", f"--kernel={kernel}", f"--results={results}"]
        failed = _run(words, (0, 1)) == 1
        lines = Path(results, "result.txt").read_text().splitlines()
    names = tuple(line.rpartition(" ")[0] for line in lines if line.endswith((" fail", " unknown")))
    if failed != bool(names):
        raise SetupError(f"{' '.join(words)}: exit status and results disagree")
    return names


def random_tests(
    kernel: Path, seed: int, *, every: bool, where: Sequence[str] = PROPERTIES
) -> tuple[Finding, ...]:
    """Run the random tests up to the first that fails, or every one; those that failed."""
    with tempfile.TemporaryDirectory(prefix="sensitivity.") as scratch:
        file = Path(scratch, "findings")
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "bench.findings"]
        words += [*where, f"--kernel={kernel}", f"--hypothesis-seed={seed}", f"--findings={file}"]
        environment = {"OVL_DETACH_PROFILE": "quick", "HYPOTHESIS_STORAGE_DIRECTORY": scratch, "TMPDIR": scratch}
        failed = _run([*words, *([] if every else ["-x"])], (0, 1), environment) == 1
        found = tuple(findings.read(file))
    if failed != bool(found):
        raise SetupError(f"{' '.join(words)}: a test failed that played nothing wrong")
    return found


def replayed(example: str, kernel: Path, reference: Path) -> Replay:
    """Play an example by itself on both kernels."""
    with tempfile.TemporaryDirectory(prefix="sensitivity.") as scratch:
        file = Path(scratch, "example")
        file.write_text(example)
        first, second = (_run(["run", "--play", str(file), f"--kernel={one}"], range(5)) for one in (kernel, reference))
    return Replay(first, second)


def tried(
    bug: Bug | None, kernel: Path, reference: Path, seed: int, *, every: bool = False, random_only: bool = False
) -> Row:
    """Run everything on `kernel`, which has the bug; without one it is the reference itself."""
    row = Row(bug.name if bug else NONE, bug.clauses if bug else "-", None, ())
    try:
        if not random_only:
            row = replace(row, scenarios=scenarios(kernel))
        row = replace(row, found=random_tests(kernel, seed, every=every))
        if row.found and row.found[0].example:
            row = replace(row, replay=replayed(row.found[0].example, kernel, reference))
    except SetupError as error:
        row = replace(row, error=str(error))
    return row
