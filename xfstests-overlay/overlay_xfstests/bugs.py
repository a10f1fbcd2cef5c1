# SPDX-License-Identifier: GPL-2.0-only
"""Which of our tests must fail on which kernel with a bug in it, and whether they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from overlay_xfstests.comparison import FAIL, MISSING, PASS, Verdict
from union.errors import SetupError, UsageError

BUGS = Path(__file__).resolve().parent.parent / "bugs"
"""Patches about what those of bench/sensitivity leave out: an upper that is frozen or full, links, attributes."""
MEANT = BUGS / "meant"
"""Lines `TEST: BUG...`."""


def meant(file: Path = MEANT) -> dict[str, tuple[str, ...]]:
    """The bugs each test is meant for. Raises SetupError for a line that is not one."""
    found: dict[str, tuple[str, ...]] = {}
    for line in file.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        test, colon, names = line.partition(":")
        if not colon or test in found:
            raise SetupError(f"{file}: not a line of its kind: {line}")
        found[test] = tuple(names.split())
    return found


def tests_for(bug: str, which: Mapping[str, Sequence[str]]) -> list[str]:
    """The tests meant for a bug; UsageError if there is none."""
    found = [test for test, names in which.items() if bug in names]
    if not found:
        raise UsageError(f"{bug}: no test is meant for it")
    return found


def complaints(
    which: Mapping[str, Sequence[str]], sound: Mapping[str, Verdict], buggy: Mapping[str, Mapping[str, Verdict]]
) -> list[str]:
    """What is not as it must be: `sound` are the verdicts, by test, without a bug, `buggy` those of each bug."""
    wrong = [f"{test}: {verdict.word} without a bug" for test, verdict in sound.items() if verdict.word != PASS]
    for test, names in which.items():
        for bug in names:
            word = buggy[bug][test].word if bug in buggy and test in buggy[bug] else MISSING
            if bug in buggy and word != FAIL:
                wrong.append(f"{test}: {word} on {bug}")
    return wrong


def table(tests: Sequence[str], buggy: Mapping[str, Mapping[str, Verdict]]) -> str:
    """A row per test, a numbered column per bug, their names below: x failed, . passed, - not run."""
    marks = {FAIL: "x", PASS: ".", MISSING: " "}
    rows = [
        [test, *(marks.get(buggy[bug][test].word, "-") if test in buggy[bug] else " " for bug in buggy)]
        for test in tests
    ]
    headers = ["test", *(str(number) for number in range(1, len(buggy) + 1))]
    legend = "\n".join(f"{number:2} {bug}" for number, bug in enumerate(buggy, 1))
    return f"{tabulate(rows, headers=headers, disable_numparse=True)}\n\n{legend}"
