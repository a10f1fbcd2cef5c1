# SPDX-License-Identifier: GPL-2.0-only
"""The command `compare`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from bench.seeded import Bug, named
from kernel.build import build
from kernel.paths import cache_dir, made
from kernel.progress import Silent
from kernel.recipe import with_patch
from overlay_xfstests import bugs, comparison
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.comparison import Side, Verdict
from overlay_xfstests.words import Words, home
from union.errors import UsageError

SERIES = "6.12"  # what the bugs are patches of
HELP = """\
Runs the same tests of a checkout of xfstests on several kernels, each by a `check` of its own, and prints how many
passed, failed and did not run, the tests whose verdict is not the same everywhere, and the reasons they gave. Why a
test has another verdict with a mount option is known of some: file `differences`.

With --bugs the kernels are the reference and those with a bug of tests/harness/bugs or bugs/; each runs
those of our tests that must fail there (bugs/meant), or --every one of ours."""
EPILOG = """\
for example: xfstests-overlay/compare --kernel=stock-6.12 --kernel=6.12 --kernel=6.12,xino=nofollow DIR -g quick

exit codes: 0 the same verdicts everywhere but for what is explained (--bugs: every test passes without a bug and
fails with those it is meant for); 1 not so; 2 wrong words; 3 it could not be found out"""


def main(argv: Sequence[str]) -> int:
    """Runs and compares what `argv` says; its exit code. Raises HarnessError when it cannot be found out."""
    words = Words("compare", HELP, EPILOG)
    words.add_argument("checkout", metavar="CHECKOUT", type=Path, help="a checkout of xfstests that is built")
    words.add_argument("tests", nargs="*", metavar="TEST", help="as for `check`")
    words.add_argument("-g", dest="groups", action="append", default=[], metavar="GROUP", help="as for `check`")
    words.add_argument("--kernel", action="append", default=[], metavar="KERNEL[,OPTION]...", help="a kernel, as for "
                       "`check`, and mount options of the overlays; twice at least")  # fmt: skip
    words.add_argument("--bugs", nargs="?", const="", metavar="BUG,...", help="kernels with these bugs, or with any")
    words.add_argument("--every", action="store_true", help="with --bugs: all our tests on each of them")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
                       help="kernels at a time; one per CPU")  # fmt: skip
    words.add_argument("--results", type=Path, metavar="DIR", help="what each left; by default in the user's cache")
    said = words.parse_intermixed_args(argv)
    if (said.bugs is None) == (not said.kernel):
        raise UsageError("either --kernel or --bugs says which kernels")
    if said.jobs < 1:
        raise UsageError("--jobs takes a number from 1 on")
    return _of_kernels(said) if said.bugs is None else _of_bugs(said)


def _of_kernels(said: argparse.Namespace) -> int:
    """The verdicts of the kernels named, side by side."""
    sides = [comparison.side(text) for text in said.kernel]
    if len(sides) < 2:
        raise UsageError("one kernel is no comparison: give --kernel twice")
    tests = [*said.tests, *(f"-g{group}" for group in said.groups)]
    columns = _run(said, sides, dict.fromkeys(sides, tests))
    names = comparison.differing(columns)
    print(f"\n{comparison.totals(sides, columns)}\n")
    if not names:
        print("the same verdicts everywhere")
        return 0
    print(f"{comparison.table(sides, columns, names)}\n")
    print("\n".join(comparison.reasons(sides, columns, names)))
    known = comparison.explanations()
    print("\n".join(f"{test} with {option}: {text}" for (test, option), text in known.items() if test in names))
    wrong = comparison.unexplained(sides, columns, names, known)
    print(f"\nnot explained: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


def _of_bugs(said: argparse.Namespace) -> int:
    """Our tests on the reference kernel and on those with a bug."""
    if said.tests or said.groups:
        raise UsageError("with --bugs it is known which tests run: those that are meant for them, or --every")
    meant = bugs.meant()
    wanted = named([name for name in said.bugs.split(",") if name], bugs.BUGS)
    on_bugs = {bug.name: list(meant) if said.every else bugs.tests_for(bug.name, meant) for bug in wanted}
    on_sound = [test for test in meant if any(test in tests for tests in on_bugs.values())]
    numbers = _numbers(said.checkout)
    sound = Side("reference", SERIES)
    tests = {sound: on_sound, **{_side(bug): on_bugs[bug.name] for bug in wanted}}
    columns = _run(said, list(tests), tests)
    by_name: list[dict[str, Verdict]] = [
        {numbers[test]: verdict for test, verdict in column.items()} for column in columns
    ]
    found = dict(zip(on_bugs, by_name[1:], strict=True))
    print(f"\n{bugs.table(on_sound, found)}\n")
    wrong = bugs.complaints(meant, by_name[0], found)
    print("\n".join(wrong) or f"{len(wanted)} bugs, each caught by every test that is meant for it")
    return 1 if wrong else 0


def _side(bug: Bug) -> Side:
    return Side(bug.name, str(build(SERIES, progress=Silent(), what=with_patch(SERIES, bug.patch)).path))


def _numbers(checkout: Path) -> dict[str, str]:
    """The names of our tests, by what the checkout calls them."""
    record = Checkout(checkout).record()
    if record is None:
        raise UsageError(f"{checkout}: our tests are not in there; {home()}/install {checkout} puts them in")
    return {f"overlay/{number:03}": name for name, number in record.tests.items()}


def _run(
    said: argparse.Namespace, sides: Sequence[Side], tests: dict[Side, list[str]]
) -> list[dict[str, Verdict]]:
    results: Path = said.results or made(cache_dir() / "logs" / f"compare-{time.strftime('%Y%m%d-%H%M%S')}")
    print(f"results: {results}", flush=True)
    return comparison.compared(sides, said.checkout, tests.__getitem__, results, said.jobs, _say)


def _say(text: str) -> None:
    print(text, flush=True)
