# SPDX-License-Identifier: GPL-2.0-only
"""Our tests as they lie beside this package: named, not numbered, in the order of `tests/order`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from union.errors import SetupError

HOME = Path(__file__).resolve().parent.parent
GROUP = "nofollow"
TESTS = "tests/overlay"
TITLE = "# FS QA Test "
FIRST_OUTPUT = "QA output created by "
UNNUMBERED = "NNN"
SUBJECT = "Subject:"  # in tests/order, before what a patch shall be called


@dataclass(frozen=True)
class File:
    """What a checkout has at one path: `data`, and the permission bits `mode`."""

    data: bytes
    mode: int = 0o644

    @property
    def text(self) -> str:
        """Its text; bytes that are no UTF-8 survive `of_text`."""
        return self.data.decode(errors="surrogateescape")

    def of_text(self, text: str) -> File:
        """The same file with another text."""
        return File(text.encode(errors="surrogateescape"), self.mode)


@dataclass(frozen=True)
class Test:
    """One test: its name here, the script, and the output that it must have."""

    __test__ = False  # pytest should not take it for one of its own

    name: str
    script: str
    golden: str

    def files(self, number: int) -> dict[str, File]:
        """The files of a checkout in which this is `number`, by path below its top."""
        script = _numbered(self.script, TITLE, number, self.name)
        golden = _numbered(self.golden, FIRST_OUTPUT, number, self.name + ".out")
        path = f"{TESTS}/{number:03}"
        return {path: File(script.encode(), 0o755), path + ".out": File(golden.encode(), 0o644)}

    @property
    def groups(self) -> str:
        """What follows `_begin_fstest`, as the checkout's list of groups has it: " auto quick"."""
        found = re.search(r"^_begin_fstest(?P<groups>.*)$", self.script, re.MULTILINE)
        if found is None:
            raise SetupError(f"tests/{self.name} has no line that begins with _begin_fstest")
        return found["groups"]

    @property
    def description(self) -> str:
        """The comment below the title, without its marks."""
        lines = self.script.splitlines()
        title = next((index for index, line in enumerate(lines) if line.startswith(TITLE)), len(lines))
        comment = []
        for line in lines[title + 1 :]:
            if not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").removeprefix(" ").rstrip())
        return "\n".join(comment).strip()


@dataclass(frozen=True)
class Part:
    """Tests that go to the list in one patch; `subject` is what `Subject:` says there, "" without that."""

    subject: str
    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Suite:
    """All that goes into a checkout: tests in parts, and the files of its `common/`."""

    parts: tuple[Part, ...]
    common: Mapping[str, File]

    @property
    def tests(self) -> Iterator[Test]:
        """The tests in the order in which they get numbers."""
        return (test for part in self.parts for test in part.tests)


def read(home: Path = HOME) -> Suite:
    """The suite in `home`.

    Raises:
        SetupError: `tests/order` names what is not there or names it twice, or there is nothing.
    """
    try:
        parts = tuple(_part(home, paragraph) for paragraph in _paragraphs((home / "tests/order").read_text()))
        common = {f"common/{path.name}": File(path.read_bytes()) for path in sorted((home / "common").iterdir())}
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}; is this checkout of ovl-detach complete?") from error
    suite = Suite(parts, common)
    names = [test.name for test in suite.tests]
    if len(set(names)) != len(names) or not names:
        raise SetupError(f"{home}/tests/order: no test, or one named twice")
    return suite


def _paragraphs(order: str) -> Iterator[list[str]]:
    """The lines that say something, parted by empty ones."""
    for paragraph in re.split(r"\n\s*\n", order):
        lines = [line.strip() for line in paragraph.splitlines()]
        said = [line for line in lines if line and not line.startswith("#")]
        if said:
            yield said


def _part(home: Path, lines: list[str]) -> Part:
    subjects = [line for line in lines if line.startswith(SUBJECT)]
    if len(subjects) > 1 or len(subjects) == len(lines):
        raise SetupError(f"{home}/tests/order: several `{subjects[-1]}`, or no test with it")
    names = [line for line in lines if line not in subjects]
    subject = "".join(subjects).removeprefix(SUBJECT).strip()
    return Part(subject, tuple(_test(home / "tests", name) for name in names))


def _test(folder: Path, name: str) -> Test:
    return Test(name, (folder / name).read_text(), (folder / f"{name}.out").read_text())


def _numbered(text: str, before: str, number: int, name: str) -> str:
    """`text` with the number in its one line `before` NNN; nothing else is touched."""
    lines = text.splitlines(keepends=True)
    places = [index for index, line in enumerate(lines) if line.rstrip("\n") == before + UNNUMBERED]
    if len(places) != 1:
        raise SetupError(f"tests/{name} needs one line `{before}{UNNUMBERED}`, and has {len(places)}")
    lines[places[0]] = lines[places[0]].replace(UNNUMBERED, f"{number:03}")
    return "".join(lines)
