# SPDX-License-Identifier: GPL-2.0-only
"""A run on the running kernel: why it cannot be, and that our own faults are neither reasons nor failures."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import main, native
from command.options import parse
from report.events import Outcome, ScenarioEnded
from report.terminal import Terminal
from tests.harness.isolated import needs_overlay
from union.configuration import Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
DETACH = parse(["--ov", "--xino"]).configuration


def raising(error: BaseException) -> object:
    def work(*_: object) -> list[str]:
        raise error

    return work


def test_a_child_answers_with_lines() -> None:
    assert native.in_child(lambda: ["one", "two words"]) == ["one", "two words"]
    assert native.in_child(list) == []


@pytest.mark.parametrize("kind", [SetupError, Unsupported, UsageError])
def test_an_error_of_the_child_keeps_its_kind(kind: type[HarnessError]) -> None:
    with pytest.raises(kind, match=r"^why$") as caught:
        native.in_child(raising(kind("why")))  # type: ignore[arg-type]
    assert type(caught.value) is kind


def test_a_child_that_breaks_or_dies_is_our_fault() -> None:
    with pytest.raises(SetupError, match="ValueError: odd"):
        native.in_child(raising(ValueError("odd")))  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="died without an answer"):
        native.in_child(lambda: os.kill(os.getpid(), 9) or [])  # type: ignore[func-returns-value]


def test_that_nothing_can_run_is_told_in_the_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unsupported) as caught:
        main._dispatch(parse(["--ov", "--xino", "--kernel=native", f"--results={tmp_path}"]))
    assert (tmp_path / "result.txt").read_text() == "check_run skip\n"
    assert str(caught.value) in (tmp_path / "results.ktap").read_text()


def test_a_guest_tells_its_host_that_nothing_can_run(tmp_path: Path) -> None:
    words = ["--ov", "--xino", "--kernel=stock-6.12", f"--results={tmp_path}"]
    done = subprocess.run([sys.executable, CHECKOUT / "run", *words], capture_output=True, text=True)
    assert done.returncode == Unsupported.exit_code, done.stdout + done.stderr
    assert (tmp_path / "result.txt").read_text() == "check_run skip\n"
    assert done.stderr.removeprefix("run: ").strip() in (tmp_path / "results.ktap").read_text()


def test_only_what_the_kernel_lacks_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(native, "_lacking", raising(Unsupported("no right to mount")))
    assert native.unsuitable(DETACH) == ["no right to mount"]
    monkeypatch.setattr(native, "_lacking", raising(SetupError("no space")))
    with pytest.raises(SetupError, match="no space"):
        native.chosen(parse(["--ov", "--xino"]))


def test_without_root_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert native.unsuitable(Configuration()) == ["mounting needs root, this is uid 1000"]
    with pytest.raises(Unsupported, match="needs root"):
        native.chosen(parse(["--ov", "--kernel=native"]))


@needs_overlay
def test_the_running_kernel_can_do_the_plain_run_and_nothing_stays_mounted() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert native.unsuitable(Configuration()) == []
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize(
    ("error", "lines"),
    [(OSError(errno.ENOSPC, "No space left on device", "/x"), 1), (RuntimeError("a bug of ours"), None)],
    ids=["no space", "a bug"],
)
def test_what_goes_wrong_in_us_is_exit_3_and_not_a_failure(
    error: Exception, lines: int | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "_dispatch", raising(error))
    monkeypatch.setattr("sys.stdout.reconfigure", lambda **_: None, raising=False)
    assert main.main(["--ov"]) == SetupError.exit_code
    said = capfd.readouterr().err
    assert "No space left" in said or "a bug of ours" in said
    assert lines is None or said.count("\n") == lines


@needs_overlay
@pytest.mark.parametrize("given", [False, True], ids=["ours", "the user's"])
def test_a_run_says_first_what_xino_means(given: bool, tmp_path: Path) -> None:
    environment = {**os.environ, **({"UNIONMOUNT_BASEDIR": str(tmp_path)} if given else {})}
    words = ["--ov", "--xino", "--kernel=native", "open-plain:1", *([] if given else ["--detach=off"])]
    command = [sys.executable, str(CHECKOUT / "run"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = next(line for line in done.stdout.splitlines() if line.startswith("--xino: "))
    assert said.startswith("--xino: plain xino=on, nothing is detached")
    assert ("directory of yours" in said) == given
    assert done.stdout.index(said) < done.stdout.index("***")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((Outcome.PASSED, Outcome.SKIPPED), 0),
        ((Outcome.PASSED, Outcome.FAILED), 1),
        ((Outcome.FAILED, Outcome.ERROR), 3),
        ((), 3),
        ((Outcome.SKIPPED, Outcome.SKIPPED), 4),
    ],
    ids=str,
)
def test_a_run_in_which_nothing_ran_is_no_success(outcomes: tuple[Outcome, ...], code: int) -> None:
    terminal = Terminal("./run", out=io.StringIO())
    for number, outcome in enumerate(outcomes, start=1):
        terminal(ScenarioEnded("group", number, "label", outcome, (), 0.0))
    assert native.exit_code(terminal) == code
