# SPDX-License-Identifier: GPL-2.0-only
"""The main job end to end: it passes where it must, and every way to break it makes it fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kernel.build import build
from tests.union import FAMILIES, GROUPS, PARITY
from tests.union.choice import default_groups
from union.scenario import When

CHECKOUT = Path(__file__).resolve().parents[2]
NOBODY = 65534
LIMIT = 300  # seconds for one run


def run(*words: str | Path, python: str = sys.executable, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [python, CHECKOUT / "run", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, **more)


def evidence(output: str) -> dict[str, str]:
    """The rows of the summary's first table."""
    return dict(re.findall(r"^([a-z][a-z ]+?)  +(.*\S)", output, re.MULTILINE))


def counts(output: str) -> tuple[int, int]:
    """Passed and skipped, of a run in which nothing failed."""
    found = re.fullmatch(r"(\d+) passed, 0 failed, (\d+) skipped", last_line(output))
    assert found, last_line(output)
    return int(found[1]), int(found[2])


def parity_passed(output: str) -> int:
    """How many scenarios of the classical suite's families passed, by the summary's table."""
    families = {FAMILIES[group.name] for group in PARITY}
    rows = re.findall(r"^(\w+) +(\d+) +0 +0 +\d+ +[\d.]+$", output, re.MULTILINE)
    return sum(int(passed) for family, passed in rows if family in families)


def last_line(output: str) -> str:
    return output.rstrip("\n").rpartition("\n")[2]


def expected() -> int:
    """The scenarios of a detach run: before the detach all, after it those whose lower can migrate; the trials once."""
    groups = default_groups(directory_renames=True, detach=True)
    after = sum(len(group.scenarios) for group in groups if group.detaches)
    return after + sum(len(group.labels) for group in groups)


@pytest.mark.parametrize("way", ["mail", "dfs"])
@pytest.mark.parametrize("series", ["6.12", "7.2"])
def test_the_whole_story_passes(series: str, way: str) -> None:
    done = run("--ov", "--xino", f"--migrate={way}", f"--kernel={build(series).path}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    passed, skipped = counts(done.stdout)
    assert passed + skipped == expected() and passed > 2500, last_line(done.stdout)
    # A skip says why, and nothing of the classical suite is skipped.
    assert len(re.findall(r"^SKIPPED: \S+", done.stdout, re.MULTILINE)) >= skipped
    # Before the detach and after it; one rename may be refused before it (D19).
    assert parity_passed(done.stdout) in (2 * 359, 2 * 359 - 1)
    assert re.search(r"^  all of --operations=before +\d+ +0 +0 ", done.stdout, re.MULTILINE)
    assert done.stdout.startswith("--xino: the detach run, with xino=nofollow\n")
    seen = evidence(done.stdout)
    assert "xino=nofollow" in seen["options in effect"]
    assert "lower xfs" in seen["layers"]
    for what in ("directories opaque", "objects in upper"):
        some, _, every = seen[what].partition(" of ")
        assert some == every and int(every) > 1000, seen[what]
    assert re.match(r"mail: [56] passes needed" if way == "mail" else "dfs: 1 pass needed", seen["migration"])
    assert "EIO for lookup, stat, listing, read" in seen["fence"]
    assert seen["kernel warnings"] == "none"
    assert len(re.findall(r"^(?:D[0-9, D]+|-)  +passed ", done.stdout, re.MULTILINE)) == 9


def test_the_classical_dataset_takes_one_pass_more_than_the_mail_says(patched: Path) -> None:
    done = run("--ov", "--xino", f"--kernel={patched}", "--operations=after", "parity")
    assert last_line(done.stdout) == "359 passed, 0 failed, 0 skipped", done.stdout[-2000:]
    assert evidence(done.stdout)["migration"].startswith("mail: 5 passes needed")


SHAPES = {
    "lower ext4": "--lower-fs=ext4",
    "upper xfs": "--upper-fs=xfs",
    "rotated layers": "--ov=2",
    "nested lower": "--ovov",
    "index": "--verify",
    "no directory renames": "--xdev",
    "terminal slashes": "--ts=1",
}


@pytest.mark.parametrize("word", SHAPES.values(), ids=SHAPES.keys())
def test_other_shapes_detach_too(patched: Path, word: str) -> None:
    kind = [] if word.startswith("--ov") else ["--ov"]
    done = run(*kind, word, "--xino", f"--kernel={patched}", "--operations=after", "parity")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
    assert last_line(done.stdout) == "359 passed, 0 failed, 0 skipped"
    assert "EIO for" in evidence(done.stdout)["fence"]


def test_metadata_alone_does_not_detach(patched: Path) -> None:
    done = run("--ov", "--xino", "--meta", f"--kernel={patched}", "--operations=after", "parity")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
    assert re.search(r"^D6, D18 +passed ", done.stdout, re.MULTILINE)
    before = evidence(done.stdout)["migration without data"]
    assert "left over" in before, "with its data in lower no directory may turn opaque"


def test_without_migration_the_fence_gives_eio(patched: Path) -> None:
    done = run("--ov", "--xino", "--migrate=none", f"--kernel={patched}", "open-plain", "rename-mass")
    assert done.returncode == 1, done.stderr
    assert "EIO" in done.stdout
    assert "    reproduce: ./run --ov --xino --migrate=none" in done.stdout
    # A scenario that goes on from a failed one says so instead of failing for another reason.
    assert re.search(r"^SKIPPED: rename-mass:2: the scenario it goes on from did not pass", done.stdout, re.MULTILINE)
    assert last_line(done.stdout).endswith(" 1 skipped")


def test_without_a_fence_nothing_is_claimed(patched: Path) -> None:
    done = run("--ov", "--xino", "--migrate=none", "--no-fence", f"--kernel={patched}", "open-plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fence" not in evidence(done.stdout)
    assert "*** ./run --ov --xino --migrate=none --no-fence open-plain" in done.stdout


def test_a_kernel_without_the_option_is_unsupported(stock: Path) -> None:
    done = run("--ov", "--xino", f"--kernel={stock}")
    assert done.returncode == 4
    assert "refuses xino=nofollow: EINVAL" in done.stderr and done.stderr.count("\n") == 1
    assert "passed" not in done.stdout


def test_the_plain_run_passes_in_a_guest(stock: Path) -> None:
    done = run("--ov", f"--kernel={stock}", "parity")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    assert last_line(done.stdout) == "359 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize(("series", "most"), [("6.12", 40), ("7.2", 0)])
def test_the_trials_pass_in_a_guest(series: str, most: int) -> None:
    done = run("--ov", f"--kernel={build(series).path}", "mounts")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
    passed, skipped = counts(done.stdout)
    assert passed + skipped == sum(len(group.trials) for group in GROUPS if group.when is not When.LONG)
    assert skipped <= most, last_line(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
@pytest.mark.parametrize(("flags", "count"), [([], 359), (["--xdev"], 328)], ids=["renames", "no-renames"])
def test_the_plain_run_passes_on_the_running_kernel(flags: list[str], count: int) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    done = run("--ov", *flags, "--kernel=native", "parity")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    assert last_line(done.stdout) == f"{count} passed, 0 failed, 0 skipped"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_controls_fail_as_they_must(patched: Path, stock: Path) -> None:
    done = run("--controls", "--kernel=6.12")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert last_line(done.stdout) == "10 passed, 0 failed, 0 skipped"
    assert done.stdout.count("failed as it must") == 10
    assert done.stdout.count("EIO") >= 5


def closed(path: Path) -> list[Path]:
    """The directories above `path` that others may not enter."""
    path = path.resolve()
    return [above for above in path.parents if not above.stat().st_mode & 0o001]


@pytest.fixture
def nobodys(patched: Path) -> Iterator[dict[str, Any]]:
    """What makes `run` act as an ordinary user with a home of its own."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    python = next((path for path in (sys.executable, "/usr/bin/python3") if not closed(Path(path))), None)
    if closed(CHECKOUT / "run") or python is None:
        pytest.skip(f"uid {NOBODY} cannot reach {closed(CHECKOUT / 'run') or closed(Path(sys.executable))}")
    with tempfile.TemporaryDirectory() as home:
        shutil.copy(patched, f"{home}/linux")
        os.chown(home, NOBODY, NOBODY)
        environment = {**os.environ, "HOME": home, "XDG_CACHE_HOME": f"{home}/cache"}
        yield {"python": python, "user": NOBODY, "group": NOBODY, "extra_groups": [], "env": environment, "cwd": home}


def test_an_ordinary_user_needs_no_privilege(nobodys: dict[str, Any]) -> None:
    done = run("--ov", "--xino", f"--kernel={nobodys['cwd']}/linux", "--operations=after", "parity", **nobodys)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    assert last_line(done.stdout) == "359 passed, 0 failed, 0 skipped"


def test_an_ordinary_user_is_told_what_the_running_kernel_needs(nobodys: dict[str, Any]) -> None:
    done = run("--ov", "--kernel=native", **nobodys)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "needs root" in done.stderr


BAD_KERNELS = {"no kernel": "/bin/true", "a program that waits": "/usr/bin/tail", "a text file": "/etc/passwd"}


@pytest.mark.parametrize("path", BAD_KERNELS.values(), ids=BAD_KERNELS.keys())
def test_a_bad_kernel_is_one_line(path: str) -> None:
    done = run("--ov", "--xino", f"--kernel={path}")
    assert done.returncode == 2
    assert done.stderr.startswith("run: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_nothing(patched: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(CHECKOUT / "run"), "--ov", "--xino", f"--kernel={patched}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("TEST "):
                break
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("run: interrupted") and error.count("\n") == 1, error
    assert guests_of(process.pid) == []


def guests_of(pid: int) -> list[str]:
    """Command lines of guests whose keeper was started for process `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"keeper.py") for word in words) and str(pid).encode() in words:
            found.append(b" ".join(words).decode(errors="replace"))
    return found


def test_logs_are_kept_where_asked(patched: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    done = run("--ov", "--xino", f"--kernel={patched}", f"--log-dir={logs}", "-v", "open-plain:1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (logs / "transcript.txt").read_text() == done.stdout
    assert any("Linux version" in path.read_text(errors="replace") for path in logs.glob("console*"))
    assert "   -> success with b':xxx:yyy:zzz'" in done.stdout


def test_results_are_written_for_a_ci(patched: Path, tmp_path: Path) -> None:
    done = run("--ov", "--xino", f"--kernel={patched}", f"--results={tmp_path}", "--operations=after", "rename-file")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    document = ElementTree.parse(tmp_path / "results.xml").getroot()
    assert (document.get("failures"), document.get("errors")) == ("0", "0")
    lines = (tmp_path / "result.txt").read_text().splitlines()
    assert "rename-file_10 pass" in lines and len(lines) == int(document.get("tests", "0"))
    assert (tmp_path / "results.ktap").read_text().startswith("KTAP version 1\n1..2\n# kernel: ")


def test_results_of_an_interrupted_run_tell_what_was_under_way(patched: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "run"), "--ov", "--xino", f"--kernel={patched}", f"--results={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("TEST "):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    lines = (tmp_path / "result.txt").read_text().splitlines()
    # The scenario that was running, and the run itself.
    assert [line for line in lines if line.endswith(" unknown")] == lines[-2:], lines[-3:]
    assert lines[-1].startswith("check_run_")
    document = ElementTree.parse(tmp_path / "results.xml").getroot()
    assert document.get("errors") == "2"
