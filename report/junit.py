# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML, as Jenkins, GitLab and junitparser read it: a suite per family, failures and errors kept apart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime

from report.events import Outcome
from report.results import Case, Results

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {Outcome.FAILED: "failure", Outcome.ERROR: "error", Outcome.SKIPPED: "skipped", Outcome.EXPECTED: "skipped"}


def write(results: Results, now: datetime | None = None) -> str:
    """The document; evidence of the run are properties of each suite, which has `now` as its time."""
    written = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    root = ET.Element("testsuites", _counts("ovl-detach", results.cases))
    for family, cases in results.families().items():
        suite = ET.SubElement(root, "testsuite", {**_counts(family, cases), "timestamp": written})
        properties = ET.SubElement(suite, "properties")
        for name, values in {"command": [results.command], **results.evidence}.items():
            ET.SubElement(properties, "property", name=name, value=_clean("; ".join(values)))
        for case in cases:
            _add(suite, results, family, case)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(name: str, cases: Sequence[Case]) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    return {
        "name": name,
        "tests": str(len(cases)),
        "failures": str(outcomes.count(Outcome.FAILED)),
        "errors": str(outcomes.count(Outcome.ERROR)),
        "skipped": str(outcomes.count(Outcome.SKIPPED) + outcomes.count(Outcome.EXPECTED)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _add(suite: ET.Element, results: Results, family: str, case: Case) -> None:
    name = _clean(f"{case.selector}: {case.label}")
    element = ET.SubElement(suite, "testcase", classname=family, name=name, time=f"{case.seconds:.3f}")
    if case.outcome in _ELEMENTS:
        text = _clean("\n".join(case.complaints))
        inner = ET.SubElement(element, _ELEMENTS[case.outcome], message=text.partition("\n")[0])
        if case.outcome is Outcome.EXPECTED:
            inner.set("type", "expected to fail")
            inner.text = text
        elif case.outcome is not Outcome.SKIPPED:
            inner.text = f"{text}\nreproduce: {_clean(results.reproducer(case))}"


def _clean(text: str) -> str:
    """The text with what XML cannot hold written as escapes."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
