# SPDX-License-Identifier: GPL-2.0-only
"""KTAP version 1, Documentation/dev-tools/ktap.rst: a test per family, its scenarios nested, each with a plan."""

from __future__ import annotations

from collections.abc import Iterator

from report.events import Outcome
from report.results import Case, Results

HEADER = "KTAP version 1"
_BAD = (Outcome.FAILED, Outcome.ERROR)


def write(results: Results) -> str:
    """The document, a line per scenario and one per family."""
    return "".join(f"{line}\n" for line in _lines(results))


def _lines(results: Results) -> Iterator[str]:
    families = results.families()
    yield HEADER
    yield f"1..{len(families)}"
    for name, values in results.evidence.items():
        yield from (f"# {name}: {_one_line(value)}" for value in values)
    for number, (family, cases) in enumerate(families.items(), start=1):
        yield f"  {HEADER}"
        yield f"  1..{len(cases)}"
        for place, case in enumerate(cases, start=1):
            yield from (f"  {line}" for line in _case(results, place, case))
        yield _verdict(number, family, cases)


def _case(results: Results, place: int, case: Case) -> Iterator[str]:
    bad = case.outcome in _BAD
    if bad:
        yield from (f"# {_one_line(complaint)}" for complaint in case.complaints)
        yield f"# reproduce: {results.reproducer(case)}"
    reason = _one_line("; ".join(case.complaints))
    directives = {
        Outcome.SKIPPED: f" # SKIP {reason}",
        Outcome.EXPECTED: f" # XFAIL {reason}",
        Outcome.ERROR: " # ERROR",
    }
    directive = directives.get(case.outcome, "")
    yield f"{'not ok' if bad else 'ok'} {place} {_name(f'{case.selector} {case.label}')}{directive}"


def _verdict(number: int, family: str, cases: list[Case]) -> str:
    outcomes = {case.outcome for case in cases}
    directive = " # SKIP all of it" if outcomes == {Outcome.SKIPPED} else ""
    return f"{'not ok' if outcomes & set(_BAD) else 'ok'} {number} {family}{directive}"


def _name(text: str) -> str:
    """A name must not hold what begins a directive."""
    return _one_line(text).replace("#", "no.")


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
