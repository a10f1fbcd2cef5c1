# SPDX-License-Identifier: GPL-2.0-only
"""D9 as it is meant: after the detach no method of the lower is called, whatever is done to the union.

Three witnesses: the request log of a FUSE lower that caches nothing, what XFS counts, and the kernel's function tracer.
The controls that make each of them hear something are in `./run --controls` and in each run's self-test.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from union.configuration import FENCES

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds for one run
METHODS = 12  # of XFS that the tracer must know at least
SOME = ("open-plain", "rename-file", "hard-link", "rename-pop-dir")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "run"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def detach(*words: str) -> str:
    """What a run after the detach printed, which must pass."""
    done = run("--ov", "--xino", "--operations=after", *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert all(line.startswith("guest: no KVM") for line in done.stderr.splitlines())
    return done.stdout


def heard(output: str) -> list[str]:
    """What the summary says of requests, a line for each union."""
    found = re.search(r"^lower requests +(.*(?:\n +.*)*)", output, re.MULTILINE)
    assert found, output[-3000:]
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize(("series", "caches"), [("6.12", []), ("7.2", []), ("6.12", ["--cold"]), ("7.2", ["--cold"])])
def test_no_scenario_asks_a_fuse_lower(series: str, caches: list[str]) -> None:
    output = detach("--lower-fs=fuse", f"--kernel={series}", *caches, "parity", "beyond")
    lines = heard(output)
    assert len(lines) >= 7 and all(re.match(r"0 after the detach, [1-9]\d+ before it", line) for line in lines), lines
    assert re.search(r"^fence +fuse silence; .*a request for lookup, stat, listing, read after$", output, re.MULTILINE)
    assert int(output.rsplit("\n", 2)[1].split()[0]) > 900, output[-300:]


def test_xfs_counts_nothing() -> None:
    lines = heard(detach("--fence=counters", "parity"))
    assert all(line.startswith("0 after the detach, counted by XFS (") for line in lines), lines


def test_the_tracer_sees_no_call_of_a_method_of_xfs() -> None:
    output = detach("--fence=traced", "--kernel=debian-6.12", *SOME)
    assert re.search(r"^fence +XFS traced; .*a call for lookup, stat, listing, read after$", output, re.MULTILINE)
    [line] = heard(output)
    found = re.fullmatch(r"0 after the detach, traced by the kernel \((\d+) methods of XFS\)", line)
    assert found and int(found[1]) >= METHODS, line


def test_the_table_of_fences_shows_all() -> None:
    done = run("--table=fences", "--kernel=7.2")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    rows = re.findall(r"^([a-z-]+) +(\w+) +(\d+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert {name for name, *_ in rows} == set(FENCES) - {"traced"}
    assert all(int(cold) and detached == "0" for _, _, _, cold, detached in rows), rows
