# SPDX-License-Identifier: GPL-2.0-only
"""What a test of xfstests leaves running does not outlive it."""

from __future__ import annotations

import subprocess
import sys

from overlay_xfstests import scope


def in_scope(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", scope.__file__, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_scope_kills_what_is_left() -> None:
    """A grandchild in a session of its own holds our pipe open: without the scope this would wait for it."""
    left = "setsid sh -c 'sleep 600 & sleep 600' & exit 7"
    done = in_scope("--quiet", "--unit", "fs1.scope", "--scope", "sh", "-c", left)
    assert (done.returncode, done.stderr) == (7, "")


def test_scope_tells_of_signals_and_leaves_them_alone() -> None:
    assert in_scope("sh", "-c", "kill -PIPE $$").returncode == 128 + 13


def test_scope_knows_no_other_option() -> None:
    assert "ValueError: --user" in in_scope("--user", "true").stderr
