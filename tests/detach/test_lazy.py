# SPDX-License-Identifier: GPL-2.0-only
"""The lazy run end to end in a guest, on a small image; and that it complains of what must not be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.small_image import with_programs

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 280  # seconds
FILES = 120


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_programs(tmp_path_factory.mktemp("lazy") / "image", FILES)


def run(patched: Path, tree: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, CHECKOUT / "run", f"--image={tree}", f"--kernel={patched}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def measured(output: str) -> dict[str, str]:
    """The rows of the table."""
    return dict(re.findall(r"^(\w[^\n]*?)  +(\S.*)$", output, re.MULTILINE))


def test_nobody_notices_that_the_lower_goes(patched: Path, tree: Path, tmp_path: Path) -> None:
    plot, results = tmp_path / "plot.png", tmp_path / "results"
    done = run(patched, tree, "--lazy", f"--plot={plot}", f"--results={results}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:] + done.stderr
    seen = measured(done.stdout)
    assert seen["requests after the detach"] == "0" and seen["errors of the workload"] == "0"
    assert seen["wrong data"] == "0" and seen["files copied up twice"] == "0"
    some, _, every = seen["directories opaque"].partition(" of ")
    assert some == every and int(every) > 30
    assert re.fullmatch(r"[1-9]\d+ objects right, 0 errors, 0 wrong", seen["the whole union"])
    times = [float(seen[what].removesuffix(" s")) for what in ("first byte", "detached", "killed")]
    assert times == sorted(times)
    assert int(seen["steps without the daemon"].partition(",")[0]) > 10
    assert f"plot: {plot}" in done.stdout and plot.read_bytes().startswith(b"\x89PNG")
    recorded = json.loads((results / "lazy.json").read_text())
    assert recorded["populated"][-1][1] == 1 and recorded["migrated"][-1][1] == 1
    assert sum(map(sum, recorded["requests"].values())) == int(seen["requests of the lower"].partition(":")[0])
    # Nothing is asked once it is detached, nor could it be.
    last = int(recorded["events"]["detached"]) + 1
    assert not any(count for counts in recorded["requests"].values() for count in counts[last:])


def test_a_daemon_that_is_killed_does_no_more_harm_than_it_must(patched: Path, tree: Path) -> None:
    done = run(patched, tree, "--lazy=kill", "--rounds=3", "--seed=13")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:] + done.stderr
    assert done.stdout.endswith("3 of 3 rounds passed\n")
    rows = [re.split(" {2,}", line.strip()) for line in done.stdout.splitlines() if line.endswith("  passed")]
    # In the middle of the migration, before it, after the detach.
    assert [(row[0], row[1]) for row in rows] == [("13", "0.21"), ("14", "-0.03"), ("15", "1.34")]
    assert {row[6] for row in rows} == {"0"}  # wrong data
    assert [row[3] == "detached" for row in rows] == [False, False, True]
    assert [row[7] for row in rows] == ["-", "-", "0"]  # errors once it is detached


@pytest.mark.parametrize("variant", ["crash-midway", "hang-midway"])
def test_what_is_detached_midway_works(patched: Path, tree: Path, variant: str) -> None:
    done = run(patched, tree, f"--lazy={variant}", "--upper-fs=xfs")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:] + done.stderr


def test_what_must_not_be_is_complained_of(patched: Path, tree: Path) -> None:
    gateway = [sys.executable, "-m", "kernel.gateway", str(patched)]
    command = [*gateway, "-u", "-m", "tests.detach.lazy_controls", str(tree)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=tree.parent, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    told = {name: seen for name, *seen in map(json.loads, done.stdout.splitlines())}
    assert told["no control"] == [[], 0, 0]
    assert any(line.startswith("not detached: ") for line in told["xino=on"][0])
    for name in ("wrong data", "empty listings", "names are missing"):
        complaints, wrong, _ = told[name]
        assert complaints and wrong, name
    complaints, wrong, errors = told["errors"]
    assert complaints and errors and not wrong
