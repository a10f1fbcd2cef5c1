# SPDX-License-Identifier: GPL-2.0-only
"""Style is enforced by tests: types, lint, licence lines, module sizes, what must not be written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_LINES = 500
FILES = ("build", "check", "install", "series")
COMMANDS = ("run", ".ci/run", "bench/*", "ci/*", *(f"xfstests-overlay/{it}" for it in FILES))


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    return [CHECKOUT / name for name in listing.stdout.decode().split("\0") if name and (CHECKOUT / name).exists()]


@pytest.mark.parametrize(
    "command",
    [["mypy"], ["ruff", "check", "."]],
    ids=["mypy", "ruff"],
)
def test_tool_is_content(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_file_names_its_licence() -> None:
    missing = [
        path.name
        for path in tracked("*.py", "*.toml", "*.config", "*.sh", "*.md", *COMMANDS)
        if "SPDX-License-Identifier: GPL-2.0-only" not in "\n".join(path.read_text().splitlines()[:3])
    ]
    assert missing == []


def test_modules_hold_one_idea_each() -> None:
    long = {path.name: lines for path in tracked("*.py") if (lines := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_no_unfinished_marks() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    sources = [path for path in tracked("*.py", "run", "*.sh") if path.name != Path(__file__).name]
    found = [path.name for path in sources if marks.search(path.read_text())]
    assert found == []


def test_no_registry_host_or_private_path_is_named() -> None:
    hosts = re.compile(
        rf"https?://(deb|registry|files|pypi)\.|{re.escape(str(CHECKOUT))}/|{re.escape(str(Path.home()))}/"
    )
    found = [
        path.name
        for path in tracked()
        if path.name != Path(__file__).name and hosts.search(path.read_text(errors="replace"))
    ]
    assert found == []
