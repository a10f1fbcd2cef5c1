# SPDX-License-Identifier: GPL-2.0-only
"""Trials: scenarios about overlays that they mount themselves, run one after the other on a stand each."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from report.events import GroupStarted, Listener, OperationStarted, Outcome, ScenarioEnded, ScenarioStarted
from union.errors import SetupError
from union.kernellog import KernelLog
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.workspace import scratch_directory


def run_trials(group: Group, numbers: Sequence[int], how: str, tell: Listener) -> None:
    """Run the trials of one group; each is told like a scenario. Must run in a private mount namespace."""
    tell(GroupStarted(group.name, how))
    for number in numbers:
        trial = group.trials[number - 1]
        tell(ScenarioStarted(group.name, number, trial.label, trial.origin))
        started = time.monotonic()
        outcome, complaints = _run(trial, tell)
        seconds = time.monotonic() - started
        tell(ScenarioEnded(group.name, number, trial.label, outcome, tuple(complaints), seconds))


def _run(trial: Trial, tell: Listener) -> tuple[Outcome, list[str]]:
    told = 0
    stand: Stand | None = None

    def tell_steps() -> None:
        nonlocal told
        for step in stand.steps[told:] if stand else ():
            tell(OperationStarted(step))
        told = len(stand.steps) if stand else 0

    with KernelLog() as log:
        try:
            with ExitStack() as stack:
                stand = Stand(stack, _place(stack))
                trial.work(stand)
        except Missing as missing:
            outcome, complaints = Outcome.SKIPPED, [str(missing)]
        except SetupError as error:
            outcome, complaints = Outcome.ERROR, [str(error)]
        except OSError as error:
            outcome, complaints = Outcome.FAILED, [*(stand.complaints if stand else ()), _where(error, trial)]
        else:
            outcome, complaints = (Outcome.FAILED if stand.complaints else Outcome.PASSED), stand.complaints
        tell_steps()
        expected = stand.warnings if stand and outcome is Outcome.PASSED else ()
        if trouble := log.trouble(expected):
            outcome = Outcome.FAILED if outcome is Outcome.PASSED else outcome
            complaints = [*complaints, *(f"kernel log: {line}" for line in trouble)]
    return outcome, complaints


def _place(stack: ExitStack) -> Path:
    place = scratch_directory(stack) / "t"
    place.mkdir()
    return place


def _where(error: OSError, trial: Trial) -> str:
    """The line of the trial that did not expect the error."""
    file = trial.work.__code__.co_filename
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    at = f" at {Path(file).name}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    return f"{error}{at}"
