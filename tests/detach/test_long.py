# SPDX-License-Identifier: GPL-2.0-only
"""Trials that take too long for every run: fences, durability (D12), what outlives a detach (D11, D16, D17)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.union.choice import LONG

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds for one run
CUTS = 500  # that a run of `power-cuts` makes at least


@pytest.mark.parametrize("series", ["6.12", "7.2"])
def test_they_pass(series: str) -> None:
    command = [sys.executable, str(CHECKOUT / "run"), "--ov", "--xino", f"--kernel={series}", "long"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:] + done.stderr
    found = re.search(r"^(\d+) passed, 0 failed, (\d+) skipped$", done.stdout, re.MULTILINE)
    assert found and int(found[1]) + int(found[2]) == sum(len(group.labels) for group in LONG), done.stdout[-300:]
    assert sum(map(int, re.findall(r"(\d+) cut points", done.stdout))) >= CUTS
