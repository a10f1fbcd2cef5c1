# SPDX-License-Identifier: GPL-2.0-only
"""Coverage counts, as gcov reads them: per file the lines, branches and functions, added up over any number of runs."""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from union.errors import SetupError


@dataclass
class File:
    """How often each line and function of a source file ran and each branch was taken, zeros included.

    A branch is known by its line and its number there; lines count from 1. A function of a header that several files
    include is counted once, with the sum of its counts (the summary of gcov itself leaves its branches out).
    """

    lines: Counter[int] = field(default_factory=Counter)
    branches: Counter[tuple[int, str, int]] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)

    def add(self, other: File) -> None:
        """Add the counts of another run; Counter.update() keeps zeros, `+` would not."""
        self.lines.update(other.lines)
        self.branches.update(other.branches)
        self.functions.update(other.functions)

    def never_entered(self) -> list[str]:
        return sorted(name for name, count in self.functions.items() if not count)


Files = dict[str, File]
"""Source files by name, as the compiler was told it (`fs/overlayfs/dir.c`)."""


def hit(counts: Iterable[int]) -> tuple[int, int]:
    """How many counts are not zero, and how many there are."""
    known = list(counts)
    return sum(count > 0 for count in known), len(known)


def add_up(runs: Iterable[Files]) -> Files:
    """The counts of all runs together."""
    total: Files = {}
    for run in runs:
        for name, file in run.items():
            total.setdefault(name, File()).add(file)
    return total


def read(notes: Path, counts: Path) -> Files:
    """What gcov makes of the counts (`*.gcda`) of one run, with the compiler's notes (`*.gcno`) of the same names.

    Raises `SetupError` when there are none, when gcov is missing or when it does not understand them.
    """
    names = sorted(path.name for path in counts.glob("*.gcda"))
    if not names:
        raise SetupError(f"no coverage counts in {counts}")
    with tempfile.TemporaryDirectory(prefix="ovl-detach-gcov.") as work:
        for name in names:
            shutil.copy(counts / name, work)
            shutil.copy((notes / name).with_suffix(".gcno"), work)
        return add_up(_parse(text) for text in _gcov(Path(work), names))


def _gcov(directory: Path, names: Sequence[str]) -> list[str]:
    """One JSON text per file of counts."""
    command = ["gcov", "--branch-probabilities", "--json-format", "--stdout", *names]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError("missing: gcov; it comes with gcc") from error
    # It also complains, with status 0, about notes and counts of different compilations, and then counts nothing.
    if done.returncode or "stamp mismatch" in done.stderr or "version" in done.stderr:
        raise SetupError(f"gcov: {done.stderr.strip() or done.returncode}")
    return done.stdout.splitlines()


def _parse(text: str) -> Files:
    files: Files = {}
    for entry in json.loads(text)["files"]:
        file = files.setdefault(entry["file"], File())
        for function in entry["functions"]:
            file.functions[function["name"]] += function["execution_count"]
        for line in entry["lines"]:
            number = line["line_number"]
            file.lines[number] += line["count"]
            for index, branch in enumerate(line["branches"]):
                file.branches[number, line.get("function_name", ""), index] += branch["count"]
    return files


def added(before: Path, after: Path) -> set[int]:
    """The numbers of the lines that file `after` has and `before` has not; all of them if that does not exist."""
    old = before.read_text().splitlines() if before.exists() else []
    new = after.read_text().splitlines()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changed = (block for block in matcher.get_opcodes() if block[0] in ("insert", "replace"))
    return {number + 1 for _, _, _, first, end in changed for number in range(first, end)}
