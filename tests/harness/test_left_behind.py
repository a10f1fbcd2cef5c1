# SPDX-License-Identifier: GPL-2.0-only
"""Runs on the running kernel that are killed, or at once, or short of space: what is said, and that nothing stays."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from kernel.build import build
from kernel.progress import Silent
from tests.harness.isolated import isolated, needs_mounts, needs_overlay, needs_xfs
from tests.harness.trouble import LIMIT, Done, Program, in_use, loops
from union import syscalls

TEST = "TEST mkdir.py:23: "  # how the scenario begins in which the run stands still
NATIVE = ("--ov", "--kernel=native")
FULL = "No space left on device\n"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "p", build("stock-6.12", progress=Silent()).path)
    yield made
    assert made.ended() == []


def begin(program: Program, *words: str, **more: str) -> Popen[str]:
    """A run on the running kernel that stands still in the middle of a scenario."""
    program.plan({"mkdir:3": "hang"})
    process = program.start(*NATIVE, *words, "mkdir", **more)
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


# Killed -------------------------------------------------------------------------------------------


@needs_xfs
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_ended_run_leaves_no_mount_and_no_loop_device(program: Program, number: signal.Signals) -> None:
    process = begin(program, "--lower-fs=xfs")
    devices = dict(loops(process.pid))
    assert devices and all(in_use(*device) for device in devices.items()), "nothing to be left behind"
    process.send_signal(number)
    done = ended(process)
    assert not any(in_use(*device) for device in devices.items())
    if number == signal.SIGTERM:
        assert (done.code, done.err) == (130, "run: interrupted; everything it made is undone\n")
        assert program.left() == []
        return
    assert done.code == -signal.SIGKILL
    [left] = program.left()
    assert re.fullmatch(rf"{program.temporary}/ovl-detach-\w+", left) and os.listdir(left) == []
    program.plan({})
    done = program.run(*NATIVE, "--lower-fs=xfs", "mkdir")
    assert (done.code, done.err, done.last) == (0, "", "11 passed, 0 failed, 0 skipped")
    assert program.left() == []


@needs_overlay
def test_layers_in_a_directory_of_the_users_are_cleared_by_the_next_run(program: Program, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "precious").write_text("precious")
    process = begin(program, UNIONMOUNT_BASEDIR=str(base))
    process.send_signal(signal.SIGKILL)
    assert ended(process).code == -signal.SIGKILL
    assert {"l", "precious"} < set(os.listdir(base))
    program.plan({})
    done = program.run(*NATIVE, "mkdir", UNIONMOUNT_BASEDIR=str(base))
    assert (done.code, done.err, done.last) == (0, "", "11 passed, 0 failed, 0 skipped")
    assert os.listdir(base) == ["precious"] and program.left() == []


@needs_overlay
def test_a_living_run_is_not_cleared_away(program: Program) -> None:
    process = begin(program)
    [scratch] = os.listdir(program.temporary)
    program.plan({})
    assert program.run(*NATIVE, "mkdir").code == 0
    assert os.listdir(program.temporary) == [scratch]
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    assert program.left() == []


@needs_overlay
@pytest.mark.parametrize("kernel", ["native", "auto"])
def test_a_limit_that_nothing_would_keep_is_refused(kernel: str, program: Program) -> None:
    done = program.run("--ov", f"--kernel={kernel}", "--time-limit=60", "mkdir")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("run: --time-limit ends a guest, and this run is on the running kernel")


# At once ------------------------------------------------------------------------------------------


@needs_overlay
def test_runs_at_once_give_the_same_verdict(program: Program) -> None:
    program.plan({"mkdir:3": "FAILED"})
    runs = [program.start(*NATIVE, "mkdir", "rename-file", "unlink") for _ in range(3)]
    dones = list(map(ended, runs))
    assert {(done.code, done.err) for done in dones} == {(1, "")}
    assert len({done.last for done in dones}) == 1 and re.fullmatch(r"\d+ passed, 1 failed, 0 skipped", dones[0].last)
    assert program.left() == []


# Mounts -------------------------------------------------------------------------------------------

LEAKS = {
    "on the union": ("leaked mount", "/mnt is busy, held by leaked (tmpfs) on /mnt/mkdir"),
    "in its place": ("covered mount", "/mnt is not our overlay any more but leaked (tmpfs) on /mnt: not unmounted"),
    "elsewhere": ("mount elsewhere", "still mounted at the end: leaked (tmpfs) on /dev/shm"),
}


@needs_overlay
@pytest.mark.parametrize(("planted", "said"), LEAKS.values(), ids=LEAKS.keys())
def test_a_leaked_mount_is_named_and_goes_with_the_run(planted: str, said: str, program: Program) -> None:
    program.plan({"mkdir:3": planted})
    done = program.run(*NATIVE, "mkdir")
    assert (done.code, done.err) == (3, f"run: {said}\n")
    assert program.left() == []


# Space --------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    return tmp_path / "small"


def content(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


@needs_overlay
@pytest.mark.parametrize("where", ["native", "guest"])
@pytest.mark.parametrize("size", [4, 24], ids=["no events", "no reports"])
@isolated
def test_no_space_for_results_is_one_line(where: str, size: int, program: Program, small: Path) -> None:
    syscalls.mount("small", small, "tmpfs", 0, f"size={size}k")
    kernel = "native" if where == "native" else program.kernel
    done = program.run("--ov", f"--kernel={kernel}", f"--results={small}", "mkdir", "rename-file", "unlink")
    assert done.code == 3, done.out
    words = "the events of the run cannot be written" if (where, size) == ("guest", 4) else f"cannot write to {small}"
    assert done.err == f"run: --results: {words}: {FULL}"
    assert content(small) == ["events.jsonl"], "there are no half-written reports"


@needs_overlay
@isolated
def test_results_that_cannot_begin_leave_none_of_an_earlier_run(program: Program, small: Path) -> None:
    syscalls.mount("small", small, "tmpfs", 0, "nr_inodes=1")
    done = program.run(*NATIVE, f"--results={small}", "mkdir")
    assert (done.code, done.out, done.err) == (3, "", f"run: --results: cannot write to {small}: {FULL}")


@needs_overlay
@pytest.mark.parametrize("where", ["native", "guest"])
@isolated
def test_no_space_for_logs_is_one_line(where: str, program: Program, small: Path) -> None:
    for options in ("nr_inodes=1", "size=4k"):
        syscalls.mount("small", small, "tmpfs", 0, options)
        kernel = "native" if where == "native" else program.kernel
        done = program.run("--ov", f"--kernel={kernel}", f"--log-dir={small}", "mkdir", "rename-file")
        syscalls.umount(small)
        assert done.code == 3, done.out
        line = rf"run: (--log-dir: )?cannot write {small}/(transcript.txt|console-\w+.log): {FULL}"
        assert re.fullmatch(line, done.err), done.err
        assert program.left() == []


@needs_mounts
@isolated
def test_no_space_for_a_guest_is_one_line(program: Program, small: Path) -> None:
    for options, what in (("nr_inodes=1", f"create {small}/ovl-detach"), ("size=4k", r"write( to)? \S+")):
        syscalls.mount("small", small, "tmpfs", 0, options)
        done = program.guest("mkdir", XDG_CACHE_HOME=str(small))
        guests = small / "ovl-detach/guests"
        left = os.listdir(guests) if guests.exists() else []
        syscalls.umount(small)
        assert (done.code, left) == (3, [])
        assert re.fullmatch(f"run: cannot {what}: {FULL}", done.err), done.err


@needs_overlay
@isolated
def test_no_space_for_layers_is_one_line(program: Program, small: Path) -> None:
    syscalls.mount("small", small, "tmpfs", 0, "size=64k")
    done = program.run(*NATIVE, "mkdir", UNIONMOUNT_BASEDIR=str(small))
    assert done.code == 3 and re.fullmatch(f"run: cannot build the layers: .*{FULL}", done.err), done.err
    assert os.listdir(small) == [] == os.listdir(program.temporary)


FILL = """
fill = replay_unless_planned

def replay_and_fill(self, operations):
    root = self.judge.witness.root
    if self.now == "open-plain:3":
        space = os.statvfs(root)
        assert space.f_blocks * space.f_frsize <= 4 << 20, "not the small one"
        with open(f"{root}/filling", "wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
    fill(self, operations)

runner.Runner._replay = replay_and_fill
"""


@needs_overlay
@isolated
def test_an_upper_that_is_full_is_our_error_and_no_failure(program: Program, small: Path) -> None:
    syscalls.mount("small", small, "tmpfs", 0, "size=4m")
    program.plan({}, FILL)
    done = program.run(*NATIVE, "open-plain:1", "open-plain:2", "open-plain:3", UNIONMOUNT_BASEDIR=str(small))
    assert (done.code, done.err) == (3, ""), done.out
    assert "ENOSPC instead of success: the filesystem of the upper layer is full\n" in done.out
    assert "ERROR open-plain:3: " in done.out and "FAILED open-plain" not in done.out
    assert os.listdir(small) == [] == os.listdir(program.temporary)
