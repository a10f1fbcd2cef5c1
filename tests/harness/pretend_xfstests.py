# SPDX-License-Identifier: GPL-2.0-only
"""A suite and a checkout of xfstests in miniature, of our own writing, for the tests of `install` and `series`."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2]
OVERLAY = "tests/overlay"

XFSTESTS = Path(os.environ.get("XFSTESTS", ""))  # a checkout of the user's, never changed
needs_xfstests = pytest.mark.skipif(
    not os.environ.get("XFSTESTS"), reason="no real checkout of xfstests: set the environment variable XFSTESTS to one"
)

SCRIPT = """\
#! /bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 Somebody.  All Rights Reserved.
#
# FS QA Test {number}
#
# Show that {name} holds.  NNN stays here.
#
. ./common/preamble
_begin_fstest {groups}

echo {name}
_exit 0
"""
GOLDEN = "QA output created by {number}\n{name}\n"

# Three words of the head, groups in alphabetical order but for one, and an entry of two lines, as there.
GROUP_NAMES = """\
======= ============
Group:\t\tDescription:
======= ============
all\t\t\tevery test
quick\t\t\twhat takes
\t\t\tno time

acl\t\t\tlists
nested\t\t\toverlays in overlays
\t\t\tin overlays
nonsamefs\t\ttwo filesystems
zone\t\t\tzones
======= ============
"""


def script(name: str, number: str = "NNN", groups: str = "auto quick nofollow") -> str:
    """A test in xfstests' form."""
    return SCRIPT.format(name=name, number=number, groups=groups)


def golden(name: str, number: str = "NNN") -> str:
    """What it must print."""
    return GOLDEN.format(name=name, number=number)


def make_suite(top: Path, names: list[str]) -> Path:
    """A copy of our commands below `top`, with tests of these names; the folder of the commands."""
    home = top / "xfstests-overlay"
    home.mkdir(parents=True)
    shutil.copytree(PROGRAM / "xfstests-overlay/overlay_xfstests", home / "overlay_xfstests")
    for name in ("install", "series", "cover-letter", "first-letter"):
        shutil.copy2(PROGRAM / "xfstests-overlay" / name, home)
    (top / "union").symlink_to(PROGRAM / "union")
    (home / "common").mkdir()
    (home / "common/nofollow").write_text("# helpers\n")
    (home / "tests").mkdir()
    for name in names:
        add_test(home, name)
    order(home, names)
    return home


def add_test(home: Path, name: str, groups: str = "auto quick nofollow") -> None:
    """Puts a test into the suite, not yet into its order."""
    (home / "tests" / name).write_text(script(name, groups=groups))
    (home / "tests" / f"{name}.out").write_text(golden(name))


def order(home: Path, names: list[str]) -> None:
    """The order of the suite's tests, each a patch of its own."""
    (home / "tests/order").write_text("# SPDX-License-Identifier: GPL-2.0-only\n\n" + "\n\n".join(names) + "\n")


def make_checkout(top: Path, numbers: tuple[int, ...] = (1, 2, 5), *, built: bool = True) -> Path:
    """A checkout of xfstests in a git repository, with these tests of its own; `built`: make was there."""
    for folder in (OVERLAY, "common", "doc"):
        (top / folder).mkdir(parents=True)
    (top / "check").write_text("#!/bin/bash\n")
    (top / "check").chmod(0o755)
    (top / "common/preamble").write_text("# sets up a test\n")
    (top / "doc/group-names.txt").write_text(GROUP_NAMES)
    (top / ".gitignore").write_text(".*\n/tests/*/group.list\n")
    for number in numbers:
        path = top / OVERLAY / f"{number:03}"
        path.write_text(script(f"theirs{number}", f"{number:03}", "auto"))
        path.chmod(0o755)
        path.with_name(path.name + ".out").write_text(golden(f"theirs{number}", f"{number:03}"))
    for words in (["init", "-q", "-b", "main"], ["add", "-f", ".gitignore"], ["add", "."], ["commit", "-qm", "Begin"]):
        git(top, *words)
    if built:
        make_group_list(top)
    return top


def make_group_list(top: Path) -> None:
    """What `make` does there: a line for each test, in the order of their numbers."""
    lines = ["# generated\n", "\n"]
    for path in sorted(path for path in (top / OVERLAY).iterdir() if path.name.isdigit()):
        begun = next(line for line in path.read_text().splitlines() if line.startswith("_begin_fstest"))
        lines.append(path.name + begun.removeprefix("_begin_fstest") + "\n")
    (top / OVERLAY / "group.list").write_text("".join(lines))


def git(top: Path, *words: str) -> str:
    """The output of git in `top`, whoever the user is and whatever they have configured."""
    return subprocess.run(
        ["git", *words], cwd=top, check=True, capture_output=True, text=True, env=os.environ | IDENTITY
    ).stdout


IDENTITY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "A U Thor",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "A U Thor",
    "GIT_COMMITTER_EMAIL": "author@example.org",
}


def command(home: Path, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Our command `name` of the suite in `home`, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(home / name), *map(str, words)], capture_output=True, text=True, env=os.environ | IDENTITY
    )


def install(home: Path, *words: str | Path) -> str:
    """What `install` prints; it must succeed and be silent on stderr."""
    done = command(home, "install", *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refusal(home: Path, name: str, *words: str | Path) -> str:
    """The one line with which our command `name` refuses, exit 2."""
    done = command(home, name, *words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def tree(top: Path) -> dict[str, tuple[int, str]]:
    """Mode and hash, or target, of all below `top` but git's own; of directories the mode."""
    found = {}
    for folder, folders, files in os.walk(top):
        if ".git" in folders:
            folders.remove(".git")
        for path in (Path(folder, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            data = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path).encode() if path.is_symlink() else b""
            found[str(path.relative_to(top))] = (mode, hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The commands of a suite with the tests `detach` and `passes`."""
    return make_suite(tmp_path / "suite", ["detach", "passes"])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A built checkout with the tests 001, 002 and 005."""
    return make_checkout(tmp_path / "xfstests")
