# SPDX-License-Identifier: GPL-2.0-only
"""Our xfstests in a real xfstests, on kernels with the option, without it, and with a bug."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlay_xfstests import suite
from overlay_xfstests.comparison import NOTRUN, PASS, verdicts
from tests.harness.pretend_xfstests import XFSTESTS, needs_xfstests

HOME = Path(__file__).resolve().parents[2] / "xfstests-overlay"
LIMIT = 3600  # seconds for one run

pytestmark = needs_xfstests


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the user's, with our tests in it."""
    copy = tmp_path / "xfstests"
    shutil.copytree(XFSTESTS, copy, symlinks=True)
    call("install", copy)
    return copy


def call(command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HOME / command, *map(str, words)], capture_output=True, text=True, timeout=LIMIT, check=False
    )


@pytest.mark.parametrize("series", ["6.12", "7.2"])
def test_they_pass_with_the_option(checkout: Path, tmp_path: Path, series: str) -> None:
    done = call("check", f"--kernel={series}", f"--results={tmp_path / 'results'}", checkout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
    found = verdicts(tmp_path / "results/result.xml")
    assert [verdict.word for verdict in found.values()] == [PASS] * len(list(suite.read().tests))


@pytest.mark.parametrize("series", ["6.12", "7.2"])
def test_they_are_not_run_without_it(checkout: Path, tmp_path: Path, series: str) -> None:
    done = call("check", f"--kernel=stock-{series}", f"--results={tmp_path / 'results'}", checkout)
    assert done.returncode == 4, done.stdout[-3000:]
    found = verdicts(tmp_path / "results/result.xml")
    assert len(found) == len(list(suite.read().tests))
    for test, verdict in found.items():
        assert (verdict.word, "overlayfs without xino=nofollow" in verdict.reason) == (NOTRUN, True), test


def test_they_fail_on_the_bugs_they_are_meant_for(checkout: Path, tmp_path: Path) -> None:
    done = call("compare", "--bugs", f"--results={tmp_path / 'results'}", checkout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
