# SPDX-License-Identifier: GPL-2.0-only
"""The same tests of a checkout on several kernels, and where their verdicts differ.

A side is a kernel with mount options. Each is one `check` of its own, so whatever is true of a side can be had again
by that command; `result.xml`, which it leaves, is what is compared.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from overlay_xfstests import report
from union.errors import SetupError, UsageError

DIFFERENCES = Path(__file__).resolve().parent.parent / "differences"
"""Lines `TEST OPTION: TEXT`: why a test has another verdict with that mount option."""
CHECK = Path(__file__).resolve().parent.parent / "check"
NOTHING_RAN = 4  # the status of a check all of whose tests were skipped
PASS, FAIL, NOTRUN, MISSING = "pass", "FAIL", "notrun", "-"


@dataclass(frozen=True)
class Side:
    """A kernel as `check --kernel` takes it, mount options, and what it is called in a table."""

    name: str
    kernel: str
    options: str = ""

    def command(self, checkout: Path, tests: Sequence[str], results: Path) -> list[str]:
        """The `check` that runs it."""
        options = [f"--mount-options={self.options}"] if self.options else []
        return [str(CHECK), f"--kernel={self.kernel}", *options, f"--results={results}", str(checkout), *tests]


def side(text: str) -> Side:
    """A side of what the command line says, `KERNEL[,OPTION]...`; UsageError for an empty name."""
    kernel, _, options = text.partition(",")
    if not kernel:
        raise UsageError(f"--kernel={text}: no kernel is named")
    return Side(text, kernel, options)


@dataclass(frozen=True)
class Verdict:
    """What became of a test, and why it did not run or how it failed."""

    word: str
    reason: str = ""


def verdicts(path: Path) -> dict[str, Verdict]:
    """Those of a report, by `overlay/NNN`. Raises SetupError when there is none that can be read."""
    return {name: _verdict(case) for name, case in report.tests(path)}


def _verdict(case: ET.Element) -> Verdict:
    for tag, word in (("failure", FAIL), ("error", FAIL), ("skipped", NOTRUN)):
        if (found := case.find(tag)) is not None:
            return Verdict(word, found.get("message", "").strip())
    return Verdict(PASS)


def ran(one: Side, checkout: Path, tests: Sequence[str], results: Path) -> dict[str, Verdict]:
    """Run the tests on a side, results into `results`; their verdicts. Raises SetupError when `check` could not."""
    results.mkdir(parents=True, exist_ok=True)
    with Path(results, "output").open("wb") as output:
        command = [sys.executable, *one.command(checkout, tests, results)]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if status not in (0, 1, NOTHING_RAN):
        last = Path(results, "output").read_text(errors="replace").strip().rpartition("\n")[2]
        raise SetupError(f"{one.name}: check ended with {status}: {last}")
    found = verdicts(results / report.NAME)
    if (status == 1) != any(verdict.word == FAIL for verdict in found.values()):
        raise SetupError(f"{one.name}: exit status {status} and {results / report.NAME} disagree")
    return found


def compared(
    sides: Sequence[Side],
    checkout: Path,
    tests: Callable[[Side], Sequence[str]],
    results: Path,
    jobs: int,
    say: Callable[[str], object],
) -> list[dict[str, Verdict]]:
    """Run every side, `jobs` at a time; the verdicts of each. `tests` says which a side runs, `say` is told of ends."""

    def one(number: int, which: Side) -> dict[str, Verdict]:
        found = ran(which, checkout, tests(which), results / f"{number:02}-{Path(which.kernel).name}")
        words = [verdict.word for verdict in found.values()]
        say(f"{which.name}: " + ", ".join(f"{words.count(word)} {word}" for word in (PASS, FAIL, NOTRUN)))
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, range(len(sides)), sides))


def differing(columns: Sequence[Mapping[str, Verdict]]) -> list[str]:
    """The tests whose verdicts, as a word, are not the same on all sides."""
    names = sorted({name for column in columns for name in column})
    return [name for name in names if len({_word(column, name) for column in columns}) > 1]


def explanations(file: Path = DIFFERENCES) -> dict[tuple[str, str], str]:
    """Why the verdict of a test (the first of a pair) differs with a mount option. SetupError for a bad line."""
    found = {}
    for line in file.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, colon, text = line.partition(":")
        if not colon or len(words.split()) != 2:
            raise SetupError(f"{file}: not a line of its kind: {line}")
        test, option = words.split()
        found[test, option] = text.strip()
    return found


def unexplained(
    sides: Sequence[Side],
    columns: Sequence[Mapping[str, Verdict]],
    names: Sequence[str],
    known: Mapping[tuple[str, str], str],
) -> list[str]:
    """Those of `names` whose verdict differs from the first side's on one that has no option which explains it."""

    def is_explained(name: str) -> bool:
        usual = _word(columns[0], name)
        return all(
            _word(column, name) == usual or any((name, option) in known for option in one.options.split(","))
            for one, column in zip(sides, columns, strict=True)
        )

    return [name for name in names if not is_explained(name)]


def table(sides: Sequence[Side], columns: Sequence[Mapping[str, Verdict]], names: Sequence[str]) -> str:
    """A row per test of `names`, a column per side."""
    rows = [[name, *(_word(column, name) for column in columns)] for name in names]
    return tabulate(rows, headers=["test", *(one.name for one in sides)], disable_numparse=True)


def totals(sides: Sequence[Side], columns: Sequence[Mapping[str, Verdict]]) -> str:
    """How many passed, failed and did not run on each side."""
    words = (PASS, FAIL, NOTRUN)
    rows = [
        [one.name, *(sum(verdict.word == word for verdict in column.values()) for word in words)]
        for one, column in zip(sides, columns, strict=True)
    ]
    return tabulate(rows, headers=["kernel", *words])


def reasons(sides: Sequence[Side], columns: Sequence[Mapping[str, Verdict]], names: Sequence[str]) -> list[str]:
    """A line for each reason that a test of `names` gave on a side."""
    return [
        f"{name} on {one.name}: {column[name].reason}"
        for name in names
        for one, column in zip(sides, columns, strict=True)
        if name in column and column[name].reason
    ]


def _word(column: Mapping[str, Verdict], name: str) -> str:
    return column[name].word if name in column else MISSING
