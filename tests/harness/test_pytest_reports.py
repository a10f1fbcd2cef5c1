# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of scenarios that ran as tests of pytest: consumers of each format count what the terminal counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from junitparser import JUnitXml
from tap.parser import Parser

from tests.harness.test_scenario_items import broken, run
from tests.scenario_reports import Reports
from tests.scopes import stages

PLAN = {
    "mkdir:2": "FAILED",
    "mkdir:4": "ERROR",
    "mkdir:6": "SKIPPED",
    "mkdir:8": "fault",
    "mkdir:9": "FAILED",
}
EXPECT = """\
mkdir:9 './run --ov --kernel=stock-6.12' '6.12*' # known, see a link
mkdir:10 '*' '6.12*' # not any more
mkdir:11 '*' '7.2*' # another kernel
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run with each outcome."""
    path = tmp_path_factory.mktemp("run")
    (path / "expect").write_text(EXPECT)
    words = [f"--results={path}/results", f"--junitxml={path}/results/pytest.xml", f"--expect={path}/expect", "-n2"]
    text, last = broken(path, PLAN, "tests/union/mkdir.py", *words)
    assert last == "3 failed, 5 passed, 1 skipped, 1 xfailed, 1 error", text
    return path / "results"


@pytest.mark.parametrize("name", ["results.xml", "pytest.xml"])
def test_junit(directory: Path, name: str) -> None:
    suites = JUnitXml.fromfile(str(directory / name))
    found = Counter(case.result[0]._tag if case.result else "passed" for suite in suites for case in suite)
    assert found == {"passed": 5, "failure": 3, "error": 1, "skipped": 2}
    assert (suites.failures, suites.errors, suites.skipped) == (3, 1, 2)


def test_properties_of_pytests_own_junit(directory: Path) -> None:
    [suite] = JUnitXml.fromfile(str(directory / "pytest.xml"))
    for case in suite:
        properties = {one.get("name"): one.get("value") for one in case._elem.iter("property")}
        assert properties["union"] == "ov" and properties["kernel"].startswith("6.12.")
        assert properties["command"] == f"./run --ov --kernel=stock-6.12 {properties['scenario']}"
        assert properties["layers"] == "lower tmpfs, upper tmpfs"
        assert "redirect_dir=on" in properties["options in effect"]


def test_ktap(directory: Path) -> None:
    lines = [line.strip() for line in (directory / "results.ktap").read_text().splitlines() if line.startswith("  ")]
    found: Counter[str] = Counter()
    for line in Parser().parse_text("\n".join(line for line in lines if not line.startswith("KTAP"))):
        if line.category == "test":
            found["skipped" if line.skip else "passed" if line.ok else "failed"] += 1
    assert found == {"passed": 6, "failed": 4, "skipped": 1}, "it has no errors, and what is expected is ok"


def test_lava_and_kcidb(directory: Path) -> None:
    words = Counter(line.rpartition(" ")[2] for line in (directory / "result.txt").read_text().splitlines())
    assert (words["pass"], words["fail"], words["skip"] + words["unknown"]) == (6, 3, 2), "what is expected is ok"
    tests = json.loads((directory / "kcidb.json").read_text())["tests"]
    assert Counter(test["status"] for test in tests) == {"PASS": 5, "FAIL": 3, "ERROR": 1, "SKIP": 1, "DONE": 1}


def test_the_complaints_are_there_and_the_line_that_repeats_them(directory: Path) -> None:
    text = (directory / "results.xml").read_text()
    assert "the guest was lost in this scenario:" in text and "BUG: made up by a test" in text
    for number in (2, 4, 8, 10):
        assert text.count(f"reproduce: ./run --ov --kernel=stock-6.12 mkdir:{number}\n") == 0
        assert re.search(rf"reproduce: \./run --ov --kernel=stock-6\.12 mkdir:{number}<", text)
    assert "passed, but was expected to fail" in text or "[XPASS(strict)] not any more" in text
    assert "expected: known, see a link" in text


def test_what_the_kernel_said_is_kept_per_worker(directory: Path) -> None:
    kept = [json.loads(path.read_text()) for path in sorted(directory.glob("*/kernel.json"))]
    assert kept, list(directory.iterdir())
    for kernel in kept:
        assert kernel["release"].startswith("6.12.") and "xfs" in kernel["filesystems"] and kernel["taint"] == "0"
        assert "refuses" in kernel["options"]["xino=nofollow"] or "EINVAL" in kernel["options"]["xino=nofollow"]
        assert kernel["options"]["metacopy=on"] == ""
    consoles = directory.glob("*/console-*.log")
    [faulty] = [path for path in consoles if "BUG: made up" in path.read_text(errors="replace")]
    assert len(list(faulty.parent.glob("console-*.log"))) == 2, "the fresh guest has a console of its own"
    assert "Linux version" in (faulty.parent / "kernel.log").read_text()


def test_several_unions_have_directories_of_their_own(tmp_path: Path) -> None:
    words = ["--union=ov", "--union=no", "--kernel=stock-6.12", "tests/union/readlink.py", f"--results={tmp_path}"]
    text, last = run(*words)
    assert last.endswith(" passed"), text
    for union in ("ov", "no"):
        assert JUnitXml.fromfile(str(tmp_path / union / "results.xml")).tests > 3


def test_a_run_that_is_interrupted_says_so(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"mkdir:2": "FAILED"}, "tests/union/mkdir.py", "-x", "-n0", f"--results={tmp_path}/r")
    assert "1 failed" in last, text
    assert "more was to come" in (tmp_path / "r" / "results.xml").read_text()


def test_a_worker_that_crashes_is_a_failure_of_its_scenario(tmp_path: Path) -> None:
    reports = Reports(tmp_path, {stage.name: stage for stage in stages("ov")}, "native", "native")
    place = ("tests/union/mkdir.py", 22, "on an empty lower directory")
    nodeid = f"{place[0]}::mkdir::{place[2]}[ov-native]"
    crashed = pytest.TestReport(nodeid, place, (), "failed", "a worker crashed", "???")  # type: ignore[arg-type]
    reports.pytest_runtest_logreport(crashed)
    reports.pytest_sessionfinish(SimpleNamespace(shouldfail=False, shouldstop=False), 1)  # type: ignore[arg-type]
    [case] = [case for suite in JUnitXml.fromfile(str(tmp_path / "results.xml")) for case in suite]
    assert case.name == "mkdir:3: on an empty lower directory" and case.result[0]._tag == "failure"


def test_a_directory_that_cannot_be_written_is_one_line() -> None:
    text, _ = run("--union=ov", "--kernel=stock-6.12", "tests/union/readlink.py", "--results=/proc/nothing")
    assert text.strip() == "ERROR: --results: cannot write to /proc/nothing: No such file or directory", text
