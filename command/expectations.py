# SPDX-License-Identifier: GPL-2.0-only
"""The file of --expect: scenarios that are known to fail, in which runs, on which kernels, and why."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.union.choice import select
from union.errors import UsageError


@dataclass(frozen=True, slots=True)
class Expectation:
    """A scenario that must fail in the runs whose command line and kernel match the patterns, and why."""

    group: str
    number: int
    run: str
    kernel: str
    reason: str

    def applies(self, command: str, release: str) -> bool:
        """Whether it is about this run; `command` as a reproducer shows it, without the groups."""
        return fnmatchcase(command, self.run) and fnmatchcase(release, self.kernel)


def expectations(path: Path) -> tuple[Expectation, ...]:
    """What the file says; UsageError with the line that is wrong."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UsageError(f"--expect: {path}: {error.strerror}") from error
    found: list[Expectation] = []
    for number, line in enumerate(lines, start=1):
        text, _, reason = (part.strip() for part in line.partition("#"))
        if not text:
            continue
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        if len(words) != 3 or not reason:
            raise UsageError(f"{path}:{number}: GROUP 'RUN' 'KERNEL' # reason is what a line must be")
        for group, numbers in select(words[:1]):
            found += [Expectation(group.name, one, words[1], words[2], reason) for one in numbers]
    return tuple(found)
