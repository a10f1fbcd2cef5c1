# SPDX-License-Identifier: GPL-2.0-only
"""The transcript: its lines, its counts, its last line, and the exit code made of them."""

from __future__ import annotations

import io

from command.native import exit_code
from report.events import (
    Checked,
    Evidence,
    GroupStarted,
    Noted,
    OperationStarted,
    Outcome,
    ScenarioEnded,
    ScenarioStarted,
)
from report.terminal import Terminal


def ended(outcome: Outcome, *complaints: str) -> ScenarioEnded:
    return ScenarioEnded("rename-file", 3, "there and back", outcome, complaints, 0.25)


def transcript(*outcomes: Outcome, check: tuple[str, ...] = ()) -> tuple[Terminal, str]:
    out = io.StringIO()
    terminal = Terminal("./run --ov", out=out)
    terminal(Noted("a note"))
    terminal(GroupStarted("rename-file", "./run --ov"))
    terminal(ScenarioStarted("rename-file", 3, "there and back", "rename_file.py:10"))
    terminal(OperationStarted("./run --rename /mnt/a /mnt/b"))
    for outcome in outcomes:
        terminal(ended(outcome, *(["/mnt/a: EIO instead of success"] if outcome is Outcome.FAILED else [])))
    terminal(Evidence("kernel", "6.12"))
    terminal(Checked("D9", "no EIO", check))
    terminal.summary()
    return terminal, out.getvalue()


def test_lines_of_the_transcript() -> None:
    _, text = transcript(Outcome.PASSED)
    assert "a note\n***\n*** ./run --ov rename-file\n***\nTEST rename_file.py:10: there and back\n" in text
    assert "\n ./run --rename /mnt/a /mnt/b\n" in text
    assert "kernel  6.12" in text


def test_the_last_line_is_the_counts() -> None:
    terminal, text = transcript(Outcome.PASSED, Outcome.PASSED, Outcome.SKIPPED)
    assert text.splitlines()[-1] == "2 passed, 0 failed, 1 skipped"
    assert exit_code(terminal) == 0


def test_a_failure_shows_why_and_how_to_repeat_it() -> None:
    terminal, text = transcript(Outcome.PASSED, Outcome.FAILED)
    assert "FAILED rename-file:3: there and back\n    /mnt/a: EIO instead of success\n" in text
    assert "    reproduce: ./run --ov rename-file:3\n" in text
    assert text.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert exit_code(terminal) == 1


def test_a_must_that_does_not_hold_fails_the_run() -> None:
    terminal, text = transcript(Outcome.PASSED, check=("a/b: not opaque",))
    assert "FAILED: D9: a/b: not opaque" in text
    assert text.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert exit_code(terminal) == 1


def test_errors_are_not_failures_and_nothing_is_not_a_pass() -> None:
    terminal, text = transcript(Outcome.PASSED, Outcome.ERROR)
    assert text.splitlines()[-1] == "1 passed, 0 failed, 1 errors, 0 skipped"
    assert exit_code(terminal) == 3
    terminal, _ = transcript()
    assert exit_code(terminal) == 3
