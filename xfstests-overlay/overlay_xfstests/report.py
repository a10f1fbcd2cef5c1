# SPDX-License-Identifier: GPL-2.0-only
"""xfstests' own report, `result.xml`: read, and made whole again when guests were lost on the way."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from union.errors import SetupError

NAME: Final = "result.xml"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Loss:
    """Why a test's guest was lost, and what the kernel said last."""

    why: str
    last_words: str


@dataclass(frozen=True)
class Counts:
    """The tests that are in a report, those that failed and those that were not run."""

    tests: tuple[str, ...]
    failed: tuple[str, ...]
    not_run: tuple[str, ...]


def tests(path: Path) -> list[tuple[str, ET.Element]]:
    """The tests of a report, by name; raises SetupError if there is none that can be read."""
    return [(str(case.get("name")), case) for case in _read(path).iter("testcase")]


def counts(path: Path) -> Counts:
    """What the report says; raises SetupError if there is none that can be read."""
    cases = tests(path)
    return Counts(
        tuple(name for name, _ in cases),
        tuple(name for name, case in cases if case.find("failure") is not None or case.find("error") is not None),
        tuple(name for name, case in cases if case.find("skipped") is not None),
    )


def merge(parts: Sequence[Path], started: Iterable[str], lost: Mapping[str, Loss], to: Path) -> None:
    """Write one report of those of all guests and what is known of the tests that were `lost` with theirs.

    A test that has `started` and is in none of them was over when its guest was lost: an error, as nobody can say how
    it had ended. Raises SetupError for a part that cannot be read.
    """
    roots = [_read(part) for part in parts]
    whole = roots[0] if roots else ET.Element("testsuite", name="xfstests")
    cases = {str(case.get("name")): case for root in roots for case in root.iter("testcase")}
    for case in list(whole.iter("testcase")):
        whole.remove(case)
    cases |= {name: _case(name, "error", "its report is lost", "") for name in started if name not in cases}
    cases |= {name: _case(name, "failure", loss.why, loss.last_words) for name, loss in lost.items()}
    whole.extend(cases[name] for name in sorted(cases))
    all_cases = list(whole.iter("testcase"))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        whole.set(attribute, str(sum(case.find(tag) is not None for case in all_cases)))
    whole.set("tests", str(len(all_cases)))
    whole.set("time", str(sum(int(case.get("time") or 0) for case in all_cases)))
    ET.indent(whole)
    to.write_text(ET.tostring(whole, encoding="unicode", xml_declaration=True) + "\n")


def _case(name: str, kind: str, message: str, text: str) -> ET.Element:
    case = ET.Element("testcase", classname="xfstests.global", name=name, time="0")
    ET.SubElement(case, kind, message=_clean(message), type="TestFail")
    if text:
        ET.SubElement(case, "system-err").text = _clean(text)
    return case


def _read(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error


def _clean(text: str) -> str:
    """The text without what XML cannot hold."""
    return _NOT_XML.sub("?", text)
