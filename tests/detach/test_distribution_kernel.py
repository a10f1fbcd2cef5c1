# SPDX-License-Identifier: GPL-2.0-only
"""The main job on a distribution's kernel in QEMU: a few groups, as its CPU may be emulated; it passes and can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
GROUPS = ("open-plain", "rename-file", "hard-link", "rename-pop-dir")
LIMIT = 900  # seconds for one run, the emulation's start included; the first one gets and builds the kernel


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "run"), "--ov", "--xino", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_what_is_migrated_needs_its_lower_no_more() -> None:
    done = run("--kernel=debian-6.12", "--operations=after", *GROUPS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert re.search(r"^kernel +6\.12\.\d+\S*-cloud-amd64 ", done.stdout, re.MULTILINE)
    assert re.search(r"^options in effect +.*xino=nofollow", done.stdout, re.MULTILINE)
    assert re.search(r"^fence .*EIO for lookup, stat, listing, read", done.stdout, re.MULTILINE)
    assert re.search(r"^kernel warnings +none$", done.stdout, re.MULTILINE)
    assert re.search(r"^[1-9]\d+ passed, 0 failed, 0 skipped$", done.stdout, re.MULTILINE)


def test_what_is_not_migrated_does() -> None:
    done = run("--kernel=debian-6.12", "--migrate=none", "open-plain")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr
    assert "EIO instead of success" in done.stdout


def test_without_the_patched_module_nothing_runs() -> None:
    done = run("--kernel=stock-debian-6.12", "open-plain")
    assert done.returncode == 4, done.stdout[-3000:]
    assert re.search(r"kernel 6\.12\.\d+\S*-cloud-amd64 refuses xino=nofollow", done.stderr)
