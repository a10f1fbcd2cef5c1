# SPDX-License-Identifier: GPL-2.0-only
"""Repeated runs: one line each, and whatever is not steady is named with its rate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command import repeat
from command.options import Options, parse
from report.events import Outcome
from report.results import Case
from tests.harness.isolated import needs_mounts

CHECKOUT = Path(__file__).parents[2]


def case(number: int, outcome: Outcome) -> Case:
    return Case("rename_file", "rename-file", number, f"label {number}", outcome, (), 0.1)


def repeated(monkeypatch: pytest.MonkeyPatch, *runs: tuple[int, list[Case]]) -> int:
    """Runs that end like these."""
    left = list(runs)

    def once(_: Options) -> tuple[int, list[Case], str]:
        code, cases = left.pop(0)
        return code, cases, "the last line"

    monkeypatch.setattr(repeat, "_once", once)
    return repeat.run(parse(["--ov", f"--repeat={len(runs)}"], {}))


def test_what_is_steady_is_counted_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case(1, Outcome.PASSED), case(2, Outcome.SKIPPED)]
    assert repeated(monkeypatch, (0, cases), (0, cases)) == 0
    out = capsys.readouterr().out
    assert "run 2 of 2: the last line\n" in out and "2 verdicts, each the same in all runs" in out


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([case(1, Outcome.FAILED)], "failure rate 1/2: rename-file:1: label 1 (passed 1, failed 1)"),
        ([case(1, Outcome.SKIPPED)], "failure rate 0/2: rename-file:1: label 1 (passed 1, skipped 1)"),
        ([], "failure rate 0/2: rename-file:1: label 1 (passed 1)"),
    ],
)
def test_what_is_not_steady_is_named(
    others: list[Case], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repeated(monkeypatch, (0, [case(1, Outcome.PASSED)]), (1, others)) == 1
    assert words in capsys.readouterr().out


@needs_mounts
def test_a_run_is_repeated() -> None:
    command = [sys.executable, f"{CHECKOUT}/run", "--ov", "--kernel=native", "--repeat=2", "rename-file", "unlink"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "run 2 of 2: " in done.stdout and "each the same in all runs" in done.stdout
