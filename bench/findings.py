# SPDX-License-Identifier: GPL-2.0-only
"""A plugin of pytest: which random tests fail, after how many examples, and what they boil it down to.

    pytest -p bench.findings --findings=FILE tests/random/test_examples.py

writes a line of JSON per failed test to FILE, see `Finding`.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.random.places import Place
from union.errors import HarnessError
from union.example import Example, Played
from union.history import History
from union.interruption import Interrupted
from union.playable import Playable
from union.spelling import spelled
from union.worlds import Batch, Wrong


@dataclass(frozen=True)
class Finding:
    """A test that failed: at its example number `examples`, and the last one that failed, for `./run --play`."""

    test: str
    examples: int
    operations: int
    example: str


def read(file: Path) -> list[Finding]:
    """What a run has written, in its order."""
    return [Finding(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


class Counter:
    """Counts the examples of one test after the other, wherever they are played."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Another test."""
        self.played = 0
        self.first: int | None = None
        self.last: Playable | None = None

    def wrong(self, number: int, example: Playable | None) -> None:
        """The example of this number has failed."""
        self.first = self.first or number
        self.last = example or self.last

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Be told of all that is played."""
        play, search = Place.play, Place.search

        def counted(place: Place, example: Playable) -> Played:
            self.played += 1
            number = self.played
            try:
                played = play(place, example)
            except HarnessError:  # a kernel may fail where only we can have
                self.wrong(number, example)
                raise
            if played.complaints:
                self.wrong(number, example)
            return played

        def counted_search(place: Place, batch: Batch) -> list[Wrong]:
            wrong = search(place, batch)
            examples = [batch.example(sequence) for sequence in batch.sequences()]
            for one in wrong[:1]:
                number = examples.index(one.example) + 1 if one.example else len(examples)
                self.wrong(self.played + number, one.example)
            self.played += len(examples)
            return wrong

        patch.setattr(Place, "play", counted)
        patch.setattr(Place, "search", counted_search)


def operations(one: Playable | None) -> int:
    """How many steps there are in it, those of a migration before it is interrupted among them."""
    match one:
        case Example():
            return len(one.before) + len(one.after)
        case History():
            return len(one.steps)
        case Interrupted():
            return one.steps
    return 0


class Plugin:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._counter = Counter()
        self._patch = pytest.MonkeyPatch()
        self._counter.attach(self._patch)

    @pytest.hookimpl
    def pytest_runtest_setup(self) -> None:
        self._counter.begin()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        found = self._counter
        if report.when == "call" and report.failed and found.first is not None:
            text = spelled(found.last) if found.last else ""
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(Finding(item.name, found.first, operations(found.last), text))) + "\n")
        return report

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        self._patch.undo()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--findings", type=Path, metavar="FILE", help="where to write which random tests fail, and how")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(config.getoption("--findings")))
