# SPDX-License-Identifier: GPL-2.0-only
"""What the patches of a series say: subjects and texts, from files and from the tests' own descriptions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlay_xfstests.suite import Part
from union.errors import SetupError

LONGEST_SUBJECT = 72
WIDTH = 72
NOT_RUN = "Not run where the kernel lacks the option."


@dataclass(frozen=True)
class Letter:
    """A `subject` without a full stop, and the `text`, which ends without a line break."""

    subject: str
    text: str


def from_file(path: Path) -> Letter:
    """A letter in a file: comments (#) on top, the subject, an empty line, the text.

    Raises:
        SetupError: it is not of that form.
    """
    lines = re.sub(r"\A(#.*\n)+\n*", "", path.read_text())
    subject, _, text = lines.partition("\n\n")
    return _checked(Letter(subject.strip(), text.strip()), f"{path} does not begin with")


def of_part(part: Part, numbers: Mapping[str, int]) -> Letter:
    """The letter of a patch that adds these tests.

    Raises:
        SetupError: a test has no description, or the subject is too long.
    """
    for test in part.tests:
        if not test.description:
            raise SetupError(f"tests/{test.name} has no description below its title")
    names = ", ".join(test.name for test in part.tests)
    subject = part.subject or _subject(part, names)
    texts = [_wrapped(test.description) for test in part.tests]
    if len(texts) > 1:
        texts = [f"overlay/{numbers[test.name]:03}:\n{text}" for test, text in zip(part.tests, texts, strict=True)]
    letter = Letter(subject, "\n\n".join([*texts, NOT_RUN]))
    return _checked(letter, f"tests/order needs `Subject:` above {names}, with")


def _subject(part: Part, names: str) -> str:
    """What a test alone claims, if that is short enough, else the names."""
    if len(part.tests) > 1:
        return f"overlay: add tests: {names}"
    claim = re.split(r"[.:;](?:\s|$)", " ".join(part.tests[0].description.split()))[0]
    claim = claim if claim[:2].isupper() else claim[:1].lower() + claim[1:]
    subject = f"overlay: add a test: {claim}"
    return subject if len(subject) <= LONGEST_SUBJECT else f"overlay: add a test: {names}"


def _wrapped(description: str) -> str:
    """It in lines as short as a mail needs; a paragraph that indents something stays as it is."""
    paragraphs = description.split("\n\n")
    wrapper = textwrap.TextWrapper(WIDTH, fix_sentence_endings=True, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(each if re.search(r"^\s", each, re.MULTILINE) else wrapper.fill(each) for each in paragraphs)


def _checked(letter: Letter, complaint: str) -> Letter:
    if not 0 < len(letter.subject) <= LONGEST_SUBJECT or "\n" in letter.subject:
        raise SetupError(f"{complaint} one line of at most {LONGEST_SUBJECT} characters")
    return letter
