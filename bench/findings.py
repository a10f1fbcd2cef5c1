# SPDX-License-Identifier: GPL-2.0-only
"""A plugin of pytest: which random tests fail, after how many examples, and what they boil it down to.

    pytest -p bench.findings --findings=FILE tests/random

writes a line of JSON per failed test to FILE, see `Finding`. Tests that play nothing do not run.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.random.places import Place
from union.example import Example, Played
from union.spelling import spelled
from union.worlds import Batch, Wrong

PARTS = ("before", "after", "steps")
"""Where an example has operations, a history also other steps."""


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
        self.last: Example | None = None

    def wrong(self, number: int, example: Example | None) -> None:
        """The example of this number has failed."""
        self.first = self.first or number
        self.last = example or self.last

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Be told of all that is played."""
        play, search = Place.play, Place.search

        def counted(place: Place, example: Example) -> Played:
            self.played += 1
            number = self.played
            played = play(place, example)
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


class Plugin:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._counter = Counter()
        self._patch = pytest.MonkeyPatch()
        self._counter.attach(self._patch)

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        idle = [item for item in items if "place" not in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in idle]
        config.hook.pytest_deselected(items=idle)

    @pytest.hookimpl
    def pytest_runtest_setup(self) -> None:
        self._counter.begin()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        found = self._counter
        if report.when == "call" and report.failed and found.first is not None:
            operations = sum(len(getattr(found.last, part, ())) for part in PARTS)
            text = spelled(found.last) if found.last else ""
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(Finding(item.name, found.first, operations, text))) + "\n")
        return report

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        self._patch.undo()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--findings", type=Path, metavar="FILE", help="where to write which random tests fail, and how")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(config.getoption("--findings")))
