# SPDX-License-Identifier: GPL-2.0-only
"""KTAP: a TAP parser, the kernel's own parser and the kernel's own runner of selftests read what we write.

Those of the kernel are taken from the source that the guest's kernel is built of.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tap.parser import Parser

from kernel import source
from kernel.build import build
from report import ktap
from report.events import Checked, Outcome
from report.results import collect
from report.terminal import Terminal
from tests.harness.sample_run import events, results

CHECKOUT = Path(__file__).resolve().parents[2]
WRAPPER = CHECKOUT / "ci/kselftest/ktap"
FAILS = "--kernel=6.12 --xino --migrate=none --operations=after open-plain"
SERIES = "6.12"


def levels(text: str) -> tuple[str, list[str]]:
    """The outer document, and the nested ones without their indentation."""
    outer, inner = [], [""]
    for line in text.splitlines(keepends=True):
        if line.startswith("  "):
            inner[-1] += line[2:]
        else:
            outer.append(line)
            inner += [""] if inner[-1] else []
    return "".join(outer), [part for part in inner if part]


def parsed(text: str) -> list[Any]:
    """The test lines, by a TAP parser, of one level, whose plan must hold."""
    assert text.startswith("KTAP version 1\n")
    lines = list(Parser().parse_text(text.replace("KTAP version 1", "TAP version 13", 1)))
    tests = [line for line in lines if line.category == "test"]
    (plan,) = (line for line in lines if line.category == "plan")
    assert plan.expected_tests == len(tests) and [test.number for test in tests] == [*range(1, len(tests) + 1)]
    assert not [line for line in lines if line.category == "unknown"]
    return tests


def counted(text: str) -> Counter[str]:
    """How the cases ended, by the TAP parser."""
    cases = [case for part in levels(text)[1] for case in parsed(part)]
    return Counter("skipped" if case.skip else "passed" if case.ok else "failed" for case in cases)


def checks_passed(text: str) -> int:
    """How many checks hold, which the terminal does not count; all other cases are named `GROUP:NUMBER`."""
    return len(re.findall(r"^  ok \d+ (?![\w-]+:\d+ )", text, re.MULTILINE))


def test_a_tap_parser_reads_each_level() -> None:
    outer, inner = levels(ktap.write(results()))
    assert [(test.ok, test.description.strip()) for test in parsed(outer)] == [
        (False, "rename_file.before"),
        (True, "rename_file.after"),
        (False, "checks.after"),
        (False, "xattrs.after"),
    ]
    tests = [parsed(part) for part in inner]
    assert [[(test.ok, test.skip) for test in part] for part in tests] == [
        [(True, False), (False, False)],
        [(True, False)],
        [(True, False), (False, False)],
        [(True, True), (False, False)],
    ]


def test_a_label_makes_no_directive_and_no_line() -> None:
    lines = [line for line in ktap.write(results()).splitlines() if "rename-file:2 " in line and "ok" in line]
    assert len(lines) == 1 and "# SKIP" not in lines[0]


# The kernel's parser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tools/testing` of the kernel: kunit, which must lie in a directory of that name, and the runner of selftests."""
    build(SERIES)  # gets the source
    origin = source.local(SERIES)
    assert origin is not None
    directory = tmp_path_factory.mktemp("tools")
    wanted = [f"*/tools/testing/{name}" for name in ("kunit", "selftests/run_kselftest.sh", "selftests/kselftest")]
    options = ["--strip-components=1", "--no-same-owner", "--wildcards", *wanted]
    subprocess.run(["tar", "-C", directory, "-xf", origin.path, *options], check=True)
    return directory / "tools/testing"


def kunit(tools: Path, text: str, scratch: Path) -> str:
    """What `kunit.py parse` prints for a document."""
    (scratch / "document").write_text(text)
    command = [sys.executable, str(tools / "kunit/kunit.py"), "parse", str(scratch / "document")]
    return subprocess.run(command, capture_output=True, text=True, cwd=scratch).stdout


def by_kunit(tools: Path, text: str, scratch: Path) -> Counter[str]:
    """How the cases ended, by the kernel's parser; `errors` are faults of the document."""
    output = kunit(tools, text, scratch)
    found = re.search(r"Ran \d+ tests: (.*)", output)
    assert found, output
    return Counter({name: int(number) for name, number in re.findall(r"(\w+): (\d+)", found[1])})


def test_the_kernels_parser_counts_what_the_terminal_counts(kernel_tools: Path, tmp_path: Path) -> None:
    terminal = Terminal("./run", out=io.StringIO())
    for event in events():
        terminal(event)
    holding = sum(isinstance(event, Checked) and event.outcome is Outcome.PASSED for event in events())
    assert holding == 1
    wanted = {
        "passed": terminal.counts[Outcome.PASSED] + holding,
        "failed": terminal.counts[Outcome.FAILED] + terminal.counts[Outcome.ERROR],
        "skipped": terminal.counts[Outcome.SKIPPED],
    }
    text = ktap.write(results())
    assert by_kunit(kernel_tools, text, tmp_path) == wanted == counted(text)


def test_the_kernels_parser_reads_a_run_that_was_lost(kernel_tools: Path, tmp_path: Path) -> None:
    text = ktap.write(results(whole=False))
    assert by_kunit(kernel_tools, text, tmp_path) == {"passed": 3, "failed": 5, "skipped": 1}
    nothing = ktap.write(collect("./run", [], {}))
    assert by_kunit(kernel_tools, nothing, tmp_path) == {"failed": 1}


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"^  1\.\.2\n", ""),  # no plan
        (r"^  1\.\.2$", "  1..3"),  # more planned than there are
        (r"^1\.\.4$", "1..5"),
        (r"^  ok 1 rename", "  ok 7 rename"),  # out of order
        (r"^  ok 1 rename.*\n", ""),  # one is missing
    ],
)
def test_the_kernels_parser_would_notice(pattern: str, instead: str, kernel_tools: Path, tmp_path: Path) -> None:
    broken, times = re.subn(pattern, instead, ktap.write(results()), count=1, flags=re.MULTILINE)
    assert times == 1
    assert "[ERROR] Test: " in kunit(kernel_tools, broken, tmp_path)
    assert "[ERROR]" not in kunit(kernel_tools, ktap.write(results()), tmp_path)


# As a kselftest -----------------------------------------------------------------------------------


def wrapped(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The wrapper with the options WORDS of ./run, by our interpreter, which has the libraries already."""
    everything = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    return subprocess.run([WRAPPER, *words], capture_output=True, text=True, env=everything)


def test_a_machine_without_python_is_skipped_too(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    done = wrapped("--ov", PATH=f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert (done.returncode, done.stdout) == (4, "KTAP version 1\n1..0 # SKIP no Python 3.11 or later\n")


def test_a_run_that_never_began_is_a_failure(kernel_tools: Path, tmp_path: Path) -> None:
    done = wrapped("--nonsense")
    assert done.returncode == 1
    assert "# run: unrecognized arguments: --nonsense" in done.stdout
    assert by_kunit(kernel_tools, done.stdout, tmp_path) == {"failed": 1}


@pytest.fixture(scope="module")
def unpacked(kernel_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tarball of the kselftest, unpacked."""
    directory = tmp_path_factory.mktemp("kselftest")
    maker, selftests = CHECKOUT / "ci/kselftest/make_tarball", kernel_tools / "selftests"
    subprocess.run([sys.executable, maker, "--selftests", selftests, directory / "t.tar.xz"], check=True)
    subprocess.run(["tar", "-C", directory, "-xf", directory / "t.tar.xz"], check=True)
    return directory


def selftest(unpacked: Path, words: str, transcript: Path) -> tuple[list[str], str]:
    """What the kernel's runner prints for `plain` with WORDS added: its own lines, and the KTAP of the test."""
    environment = {**os.environ, "KSELFTEST_PLAIN_ARGS": words, "OVL_DETACH_TRANSCRIPT": str(transcript)}
    command = [str(unpacked / "run_kselftest.sh"), "-t", "ovl-detach:plain"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    begin = done.stdout.index("# KTAP version 1\n")
    inner = re.findall(r"^# (.*\n)", done.stdout[begin:], re.MULTILINE)
    return done.stdout.splitlines(), "".join(line for line in inner if not line.startswith("Totals:"))


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("--kernel=6.12 open-plain:1", "ok 1 selftests: ovl-detach: plain"),
        (FAILS, "not ok 1 selftests: ovl-detach: plain # exit=1"),
    ],
)
def test_the_kernels_runner_tells_success_and_failure(
    unpacked: Path, kernel_tools: Path, tmp_path: Path, words: str, verdict: str
) -> None:
    lines, text = selftest(unpacked, words, tmp_path / "transcript")
    assert verdict in lines, lines
    assert "# timeout set to 900" in lines
    last = (tmp_path / "transcript").read_text().splitlines()[-1]
    passed, failed, skipped = map(int, re.findall(r"\d+", last))
    assert (failed > 0) == verdict.startswith("not ok")
    wanted = Counter(passed=passed + checks_passed(text), failed=failed, skipped=skipped)
    assert by_kunit(kernel_tools, text, tmp_path) == wanted == counted(text)
    assert ("# reproduce: ./run " in text) == (failed > 0)


def test_the_kernels_runner_skips_what_the_kernel_lacks(unpacked: Path, kernel_tools: Path, tmp_path: Path) -> None:
    lines, text = selftest(unpacked, "--kernel=stock-6.12 --xino", tmp_path / "transcript")
    assert "ok 1 selftests: ovl-detach: plain # SKIP" in lines, lines
    assert by_kunit(kernel_tools, text, tmp_path) == counted(text) == {"skipped": 1}
    assert "refuses xino=nofollow" in text


def test_the_kernels_runner_lists_both(unpacked: Path) -> None:
    done = subprocess.run([unpacked / "run_kselftest.sh", "-l"], capture_output=True, text=True)
    assert done.stdout.split() == ["ovl-detach:plain", "ovl-detach:detach"]


def test_the_tarball_brings_its_libraries(unpacked: Path) -> None:
    """An interpreter that has nothing but the standard library lists the scenarios, without a home to set up."""
    command = [sys.executable, "-S", "-B", str(unpacked / "suite/run"), "--list"]
    nowhere = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "scenarios" in done.stdout
