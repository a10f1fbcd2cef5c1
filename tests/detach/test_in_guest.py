# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the harness that need XFS or `xino=nofollow`, run where both are: in the guest."""

from __future__ import annotations

import sys
from pathlib import Path

from kernel.guest import Outcome
from kernel.uml import UmlGuest

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = (
    "test_syscalls.py",
    "test_layers.py",
    "test_overlay.py",
    "test_migrate.py",
    "test_migrate_tree.py",
    "test_fence.py",
)
LIMIT = 300  # seconds


def test_harness_tests_pass_in_the_guest_and_none_is_skipped(patched: Path) -> None:
    output = bytearray()
    pytest_command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = UmlGuest(patched).run(
        [*pytest_command, *(f"tests/harness/{name}" for name in FILES)],
        cwd=CHECKOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"},
        time_limit=LIMIT,
        on_stdout=output.extend,
        on_stderr=output.extend,
    )
    text = output.decode(errors="replace")
    assert (result.outcome, result.status) == (Outcome.EXITED, 0), f"{result.explain()}\n{text[-3000:]}"
    assert " passed" in text.splitlines()[-1] and "skipped" not in text, text[-3000:]
