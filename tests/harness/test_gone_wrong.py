# SPDX-License-Identifier: GPL-2.0-only
"""Runs in guests that must go wrong: what `./run` says, exits with and reports then, and that it leaves nothing behind.

Each is the real program on a real kernel, in which one scenario does something else than it is to.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from xml.etree import ElementTree

import pytest

from kernel.build import build
from kernel.progress import Silent
from tests.harness.test_scenario_items import broken, outcomes
from tests.harness.trouble import LIMIT, Done, Program

TEST = "TEST mkdir.py:23: "  # how the scenario begins in which it goes wrong, the third of eleven
NAME = "mkdir:3: on an empty lower directory"
AT_ONCE = 5.0  # seconds that a lost guest may cost
TRIES = 3  # as the machine has other things to do


@pytest.fixture(scope="session")
def kernel() -> Path:
    return build("stock-6.12", progress=Silent()).path


@pytest.fixture
def program(kernel: Path, tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "p", kernel)
    yield made
    assert made.ended() == []


@dataclass(frozen=True)
class Reports:
    """What the reports say: the outcome of each case that did not pass, and the number of those that did."""

    bad: dict[str, str]
    passed: int
    text: str


def reports(directory: Path) -> Reports:
    """Read JUnit; the other formats must tell the same."""
    text = (directory / "results.xml").read_text()
    bad, passed = {}, 0
    for case in ElementTree.fromstring(text).iter("testcase"):
        found = [child.tag for child in case]
        passed += not found
        bad.update({str(case.get("name")): found[0]} if found else {})
    lava = [line.split()[1] for line in (directory / "result.txt").read_text().splitlines()]
    words = {"failure": "fail", "error": "unknown", "skipped": "skip"}
    assert sorted(lava) == sorted([words[kind] for kind in bad.values()] + ["pass"] * passed)
    assert re.findall(r"\d+\.\.(\d+)", (directory / "results.ktap").read_text())
    assert (directory / "kcidb.json").read_text().count('"status"') == len(lava)
    assert sorted(path.name for path in directory.iterdir()) == [
        "events.jsonl", "kcidb.json", "result.txt", "results.ktap", "results.xml"
    ]  # fmt: skip
    return Reports(bad, passed, text)


THE_RUN = "run: the run comes to its end"
NO_FAULT = "kernel: the kernel reports no fault"


@dataclass(frozen=True)
class Case:
    """What is planted in the scenario, and what must come of it."""

    planted: str
    code: int
    error: str = ""  # a pattern of the only line on stderr
    bad: dict[str, str] = field(default_factory=dict)
    passed: int = 12  # ten scenarios and two checks
    says: tuple[str, ...] = ()  # is on stdout
    words: tuple[str, ...] = ("mkdir",)


CASES = {
    "a failure": Case(
        "FAILED", 1, "", {NAME: "failure"},
        says=(f"FAILED {NAME}\n    made up by a test\n    reproduce: ", "10 passed, 1 failed, 0 skipped\n"),
    ),
    "an error": Case(
        "ERROR", 3, "", {NAME: "error"},
        says=(f"ERROR {NAME}\n    made up by a test\n    reproduce: ", "10 passed, 0 failed, 1 errors, 0 skipped\n"),
    ),
    "a skip": Case("SKIPPED", 0, "", {NAME: "skipped"}, says=("10 passed, 0 failed, 1 skipped\n",)),
    "nothing but skips": Case(
        "SKIPPED", 4, "", {NAME: "skipped"}, 2, ("0 passed, 0 failed, 1 skipped\n",), ("mkdir:3",)
    ),
    "a panic": Case(
        "panic", 1, r"run: guest: the kernel panicked: Kernel panic - not syncing: .*; console: \S+",
        {NAME: "failure", THE_RUN: "failure"}, 2,
        (f"FAILED {NAME}\n    the kernel panicked: Kernel panic - ", "Call Trace:", "    reproduce: "),
    ),
    "a fault": Case(
        "fault", 1, r"run: guest: the kernel reported a fault: BUG: made up by a test; console: \S+",
        {NAME: "failure", NO_FAULT: "failure"},
        says=(f"FAILED {NAME}\n    kernel log: BUG: made up by a test\n    reproduce: ", "kernel warnings    1\n"),
    ),
    "a hang": Case(
        "hang", 3, r"run: guest: the time limit passed; console: \S+", {NAME: "error", THE_RUN: "error"}, 2,
        (f"ERROR {NAME}\n    the time limit passed\n    reproduce: ",), ("mkdir", "--time-limit=8"),
    ),
    "a taint": Case(
        "taint", 1, "", {NAME: "failure"},
        says=(f"FAILED {NAME}\n    kernel log: taint changed from 0 to 64\n", "kernel warnings    1\n"),
    ),
    "a run that is killed": Case(
        "killed", 3, "run: guest: signal 9 ended the run, for want of memory or by a bug",
        {NAME: "error", THE_RUN: "error"}, 2,
    ),
    "garbage on console and terminals": Case("garbage", 0, passed=13, says=("11 passed, 0 failed, 0 skipped\n",)),
    "a mount on the union": Case(
        "leaked mount", 3, r"run: /mnt is busy, held by leaked \(tmpfs\) on /mnt/mkdir",
        {THE_RUN: "error"}, -1, ("FAILED: mkdir/",),
    ),
    "a mount in place of the union": Case(
        "covered mount", 3, r"run: /mnt is not our overlay any more but leaked \(tmpfs\) on /mnt: not unmounted",
        {THE_RUN: "error"}, -1, ("FAILED: D7, D8, D9: f: ENOENT although it must exist\n",),
    ),
    "a mount elsewhere": Case(
        "mount elsewhere", 3, r"run: still mounted at the end: leaked \(tmpfs\) on /dev/shm", {THE_RUN: "error"}, 13
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_goes_wrong_is_told_as_what_it_is(case: Case, program: Program, tmp_path: Path) -> None:
    program.plan({"mkdir:3": case.planted})
    done = program.guest(f"--results={tmp_path}/results", *case.words)
    assert done.code == case.code, done.out + done.err
    assert re.fullmatch(f"{case.error}\n" if case.error else "", done.err), done.err
    for text in case.says:
        assert text in done.out, f"{text!r} is missing in:\n{done.out}"
    if "    reproduce: " in done.out:
        assert f"    reproduce: ./run --ov --kernel={program.kernel} mkdir:3\n" in done.out
    found = reports(tmp_path / "results")
    if case.passed >= 0:
        assert (found.bad, found.passed) == (case.bad, case.passed)
    else:  # what lies on the union makes others fail too
        assert case.bad.items() <= found.bad.items() and len(found.bad) > len(case.bad) + 5
    assert program.left() == []


@pytest.mark.parametrize(
    ("planted", "reason", "count"),
    [("panic", "guest: the kernel panicked: Kernel panic - ", 2), ("mount elsewhere", "still mounted at the end: ", 1)],
)
def test_the_reason_is_in_the_reports(
    planted: str, reason: str, count: int, program: Program, tmp_path: Path
) -> None:
    program.plan({"mkdir:3": planted})
    program.guest(f"--results={tmp_path}/results", "mkdir")
    assert reports(tmp_path / "results").text.count(f'message="{reason}') == count
    for name in ("results.ktap", "kcidb.json"):
        assert reason in (tmp_path / "results" / name).read_text()


def costs(run: Callable[[bool], None]) -> float:
    """How many seconds longer `run` takes with a panic than without one, the least of a few tries if it is too many."""
    least = math.inf
    for _ in range(TRIES):
        begin = time.monotonic()
        run(False)
        between = time.monotonic()
        run(True)
        end = time.monotonic()
        print(f"without a panic {between - begin:.1f} s, with one {end - between:.1f} s")
        least = min(least, end - between - (between - begin))
        if least < AT_ONCE:
            break
    return least


def test_a_lost_guest_costs_no_time(program: Program) -> None:
    def run(panic: bool) -> None:
        program.plan({"mkdir:3": "panic"} if panic else {})
        assert program.guest("mkdir").code == panic

    assert costs(run) < AT_ONCE


# Kernels that do not boot -------------------------------------------------------------------------

FAKES = {
    "one that stands still": ("echo on its way; exec sleep 1000", "on its way"),
    "one that ends at once": ("echo no luck; exit 1", "no luck"),
    "one that dies silently": ("kill -9 $$", ""),
    "one that panics": ("echo 'Kernel panic - not syncing: no root'; exec sleep 1000", "Kernel panic - .*no root"),
}


@pytest.mark.parametrize(("script", "said"), FAKES.values(), ids=FAKES.keys())
def test_a_kernel_that_does_not_boot_is_an_error(script: str, said: str, program: Program, tmp_path: Path) -> None:
    fake = program.path / "fake"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo 6.12.0\n[ "$1" = --showconfig ] && exit\n{script}\n')
    fake.chmod(0o755)
    words = (f"--kernel={fake}", "--time-limit=1", f"--results={tmp_path}/results")
    done = program.run("--ov", "mkdir", *words)
    line = rf"run: guest: the guest did not boot{': ' if said else ''}{said}; console: \S+\n"
    assert done.code == 3 and re.fullmatch(line, done.err), done.err
    assert "reproduce" not in done.out
    assert reports(tmp_path / "results").bad == {THE_RUN: "error"}
    assert program.left() == []


# From outside -------------------------------------------------------------------------------------


def begin(program: Program, *words: str) -> Popen[str]:
    """A run that stands still in the middle of a scenario."""
    program.plan({"mkdir:3": "hang"})
    process = program.start(*words, "mkdir")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(TEST):
            return process
    raise AssertionError(f"it did not get there: {process.communicate()}")


def ended(process: Popen[str]) -> Done:
    """How it ended, and what it said after `begin`."""
    with process:
        out, err = process.communicate(timeout=LIMIT)
    return Done(process.returncode, out, err)


def test_a_guest_that_is_killed_is_an_error(program: Program, tmp_path: Path) -> None:
    process = begin(program, "--ov", f"--kernel={program.kernel}", f"--results={tmp_path}/results")
    program.kill_guests()
    done = ended(process)
    assert done.code == 3, done
    assert re.fullmatch(r"run: guest: the guest went away without a status; console: \S+\n", done.err), done.err
    assert f"ERROR {NAME}\n    the guest went away without a status\n    reproduce: ./run --ov " in done.out
    assert reports(tmp_path / "results").bad == {NAME: "error", THE_RUN: "error"}
    assert program.left() == []


def test_a_killed_run_leaves_no_process_and_the_next_one_clears_up(program: Program, tmp_path: Path) -> None:
    words = ("--ov", f"--kernel={program.kernel}", f"--results={tmp_path}/results")
    program.plan({})
    assert program.run(*words, "mkdir").code == 0
    process = begin(program, *words)
    assert len(program.processes()) > 3
    process.send_signal(signal.SIGKILL)
    assert ended(process).code == -signal.SIGKILL
    assert program.gone(), "a guest outlived its run"
    assert os.listdir(tmp_path / "results") == ["events.jsonl"], "there are reports, but of another run"
    [left] = program.left()
    assert left.startswith(f"{program.path}/cache/ovl-detach/guests/")
    program.plan({})
    done = program.run(*words, "mkdir")
    assert (done.code, done.err, done.last) == (0, "", "11 passed, 0 failed, 0 skipped")
    assert reports(tmp_path / "results").bad == {}
    assert program.left() == []


def test_two_runs_at_once_give_the_same_verdict(program: Program) -> None:
    program.plan({"mkdir:3": "FAILED"})
    both = [program.start("--ov", f"--kernel={program.kernel}", "mkdir") for _ in range(2)]
    for done in map(ended, both):
        assert (done.code, done.err, done.last) == (1, "", "10 passed, 1 failed, 0 skipped"), done.out
    assert program.left() == []


# The detach ---------------------------------------------------------------------------------------

NO_FENCE = """
from union.fences import disk
disk.run_quietly = lambda *arguments: None  # xfs_io says that all is well
"""
HALF_A_CHOWN = """
from union import migrate
whole = migrate.complaints

def half(program, package, arguments):
    if program == "chown":
        union = arguments.pop()
        arguments += [f"{union}/{top}" for top in os.listdir(union) if top != "rename-file"]
    return whole(program, package, arguments)

migrate.complaints = half
"""
HALF_A_WALK = """
from union import migrate
whole = migrate._Migrator._copy_up

def half(self, path, kind):
    if not path.startswith("rename-file"):
        whole(self, path, kind)

migrate._Migrator._copy_up = half
"""
DETACH = ("--ov", "--xino", "--operations=after", "mkdir", "rename-file")


@pytest.fixture(scope="session")
def patched() -> Path:
    return build("6.12", progress=Silent()).path


def detached(program: Program, patched: Path, more: str, *words: str) -> Done:
    """A detach run in which `more` is planted."""
    program.plan({}, more)
    return program.run(*DETACH, f"--kernel={patched}", *words)


def test_a_fence_that_did_nothing_is_an_error(program: Program, patched: Path, tmp_path: Path) -> None:
    done = detached(program, patched, NO_FENCE, f"--results={tmp_path}/results")
    said = r"run: the fence does not bite on \S+: lookup as before, stat as before, .*read as before instead of EIO\n"
    assert done.code == 3 and re.fullmatch(said, done.err), done.err
    assert "TEST " not in done.out, "something was claimed behind a fence that is none"
    assert reports(tmp_path / "results").bad == {THE_RUN: "error"}
    assert program.left() == []


@pytest.mark.parametrize(("way", "more"), [("mail", HALF_A_CHOWN), ("dfs", HALF_A_WALK)], ids=["mail", "dfs"])
def test_half_a_migration_fails_by_name(way: str, more: str, program: Program, patched: Path, tmp_path: Path) -> None:
    done = detached(program, patched, more, f"--migrate={way}", f"--results={tmp_path}/results")
    assert (done.code, done.err) == (1, ""), done.out + done.err
    assert re.search(r"^D4, D5 +failed +every directory is opaque, everything is in upper$", done.out, re.M)
    assert re.search(r"^FAILED: D4, D5: \d+ of \d+ objects are not in the upper layer$", done.out, re.M)
    assert re.search(r"^    rename-file/\S+: EIO instead of success", done.out, re.M)
    assert not re.search(r"^FAILED mkdir:", done.out, re.M), "the half that was migrated"
    some, every = map(int, re.findall(r"^objects in upper +(\d+) of (\d+)$", done.out, re.M)[0])
    assert 0 < some < every
    bad = reports(tmp_path / "results").bad
    assert bad["D4, D5: every directory is opaque, everything is in upper"] == "failure"
    assert program.left() == []


# As tests of pytest -------------------------------------------------------------------------------


def test_a_panic_is_one_failed_test_and_costs_no_time(tmp_path: Path) -> None:
    def run(panic: bool) -> None:
        text, last = broken(tmp_path, {"mkdir:3": "panic"} if panic else {}, "tests/union/mkdir.py", "-n2")
        assert last == ("1 failed, 10 passed" if panic else "11 passed"), text
        bad = [what for what in outcomes(text, "mkdir") if what[0] != "PASSED"]
        assert bad == ([("FAILED", 3)] if panic else [])
        assert not panic or ("\nthe kernel panicked: Kernel panic - not syncing: " in text and "\n [<" in text), text

    assert costs(run) < AT_ONCE


def test_garbage_on_the_console_is_no_trouble_for_a_worker(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"mkdir:3": "garbage", "mkdir:5": "taint"}, "tests/union/mkdir.py")
    assert last == "1 failed, 10 passed", text
    assert [what for what in outcomes(text, "mkdir") if what[0] != "PASSED"] == [("FAILED", 5)]
    assert "\nkernel log: taint changed from 0 to 64\n" in text
