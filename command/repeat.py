# SPDX-License-Identifier: GPL-2.0-only
"""`./run --repeat=N ...`: the same run N times, and what did not give the same verdict each time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from command import bootstrap
from command.options import TIME_LIMIT, Options
from command.results import EVENTS
from report.events import Outcome
from report.record import read
from report.results import Case, collect
from tests.union import FAMILIES
from union.errors import SetupError

Tally = dict[tuple[str, str, str], Counter[Outcome]]
"""Per case (its stage, its name on the command line, its label) how often it ended how."""


def run(options: Options) -> int:
    """Carry the run out `options.repeat` times, a line each; returns the worst of their exit codes."""
    tally: Tally = {}
    worst = 0
    for number in range(1, options.repeat + 1):
        code, cases, last = _once(options)
        worst = max(worst, code)
        for case in cases:
            tally.setdefault((case.stage, case.selector, case.label), Counter())[case.outcome] += 1
        print(f"run {number} of {options.repeat}: {last}", flush=True)
    unsteady = list(_unsteady(tally, options.repeat))
    print("\n" + ("\n".join(unsteady) if unsteady else f"{len(tally)} verdicts, each the same in all runs"))
    return worst


def _once(options: Options) -> tuple[int, list[Case], str]:
    """One run: its exit code, its cases and the last line it printed."""
    with tempfile.TemporaryDirectory(prefix="repeated.") as directory:
        command = [sys.executable, str(bootstrap.CHECKOUT / "run"), *options.words, *options.choice.words]
        command += [f"--kernel={options.kernel}", f"--results={directory}"]
        command += [f"--time-limit={options.time_limit}"] if options.time_limit != TIME_LIMIT else []
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not (Path(directory) / EVENTS).exists():
            raise SetupError(f"a run ended without results: {done.stderr.strip() or done.returncode}")
        cases = collect(options.command(), read(Path(directory) / EVENTS), FAMILIES).cases
    said = done.stdout.rstrip("\n").rpartition("\n")[2]
    return done.returncode, cases, said if done.returncode in (0, 1) else f"{said} (exit {done.returncode})"


def _unsteady(tally: Tally, runs: int) -> Iterator[str]:
    """A line for each case that failed, or whose outcome was not the same in all runs, with its rate."""
    for (stage, selector, label), outcomes in tally.items():
        bad = outcomes[Outcome.FAILED] + outcomes[Outcome.ERROR]
        if bad or len(outcomes) > 1 or outcomes.total() != runs:
            words = ", ".join(f"{outcome.value} {count}" for outcome, count in outcomes.items())
            name = " ".join(filter(None, (stage, selector)))
            yield f"failure rate {bad}/{runs}: {name}: {label} ({words})"
