# SPDX-License-Identifier: GPL-2.0-only
"""Known failures: they fail nothing, an unexpected pass does, and they hold only for the runs they are about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command.expectations import expectations
from report.events import Event, Noted, Outcome, ScenarioEnded
from report.expected import Expecting
from tests.harness.isolated import needs_mounts
from union.errors import UsageError

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("number", "given", "wanted"),
    [
        (1, Outcome.FAILED, Outcome.EXPECTED),
        (1, Outcome.PASSED, Outcome.FAILED),
        (1, Outcome.SKIPPED, Outcome.SKIPPED),
        (1, Outcome.ERROR, Outcome.ERROR),
        (2, Outcome.FAILED, Outcome.FAILED),
        (2, Outcome.PASSED, Outcome.PASSED),
    ],
)
def test_an_outcome_is_judged_by_what_is_expected(number: int, given: Outcome, wanted: Outcome) -> None:
    told: list[Event] = []
    tell = Expecting(lambda event: told.append(event), {("unlink", 1): "a bug, https://example.org"})
    tell(ScenarioEnded("unlink", number, "label", given, ("EIO",), 0.1))
    (ended,) = told
    assert isinstance(ended, ScenarioEnded) and ended.outcome is wanted
    assert ("a bug" in " ".join(ended.complaints)) == (wanted is not given)


def test_other_events_pass() -> None:
    told: list[Event] = []
    Expecting(lambda event: told.append(event), {})(Noted("text"))
    assert told == [Noted("text")]


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text("# a comment\n\nunlink:2 './run --ov*' '6.12*' # bug 1\n'rmdir*:1' * * # bug 2, https://x\n")
    first, *others = expectations(file)
    assert (first.group, first.number, first.reason) == ("unlink", 2, "bug 1")
    assert first.applies("./run --ov --xino", "6.12.1") and not first.applies("./run --no", "6.12.1")
    assert not first.applies("./run --ov", "7.2")
    assert others and all(one.applies("./run --no", "7.2") for one in others)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("unlink:2 * *", "is what a line must be"),
        ("unlink:2 * # why", "is what a line must be"),
        ("nolink * * # why", "no group"),
        ("unlink '* * # why", "quotation"),
    ],
)
def test_a_wrong_line_is_a_usage_error(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"{line}\n")
    with pytest.raises(UsageError, match=words):
        expectations(tmp_path / "known")


@needs_mounts
def test_an_unexpected_pass_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("unlink:1 * * # it never fails\n")
    command = [sys.executable, f"{CHECKOUT}/run", "--ov", "--kernel=native", f"--expect={tmp_path}/known", "unlink"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "passed, but was expected to fail: it never fails" in done.stdout
    other = subprocess.run([*command[:-1], "rename-file"], capture_output=True, text=True, check=False)
    assert other.returncode == 0, other.stdout


@needs_mounts
def test_a_known_failure_fails_nothing(tmp_path: Path) -> None:
    # Renames work where this group expects EXDEV: with metacopy directories are redirected.
    command = [sys.executable, f"{CHECKOUT}/run", "--ov", "--xdev", "--meta", "--kernel=native", "rename-exdev"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    (tmp_path / "known").write_text("rename-exdev '*--meta*' * # renames work with metacopy\n")
    known = subprocess.run([*command, f"--expect={tmp_path}/known"], capture_output=True, text=True, check=False)
    assert (known.returncode, known.stderr) == (0, ""), known.stdout
    assert known.stdout.endswith("\n0 passed, 0 failed, 4 expected to fail, 0 skipped\n")
