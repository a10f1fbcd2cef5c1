# SPDX-License-Identifier: GPL-2.0-only
"""All chosen tests, one call of `./check` after the other: usually one, one more for each guest that a test costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overlay_xfstests import report
from overlay_xfstests.orders import Orders
from overlay_xfstests.report import Counts, Loss
from overlay_xfstests.sites import Ending, Sink, Site
from overlay_xfstests.transcript import Transcript
from union.errors import SetupError


class Running:
    """Runs the tests of `orders` at `site`; check's output, and a word about each loss, go to `out`."""

    def __init__(self, site: Site, orders: Orders, out: Sink) -> None:
        self._site = site
        self._orders = orders
        self._out = out
        self._results = Path(orders.results)
        self._parts: list[Path] = []
        self._started: list[str] = []
        self._lost: dict[str, Loss] = {}

    def carry_out(self) -> Counts:
        """Run them all; returns what came out, as the report in the results directory says it too.

        Raises SetupError when the rest cannot be run; what was is in the report all the same.
        """
        for old in self._results.glob("result*.xml"):
            old.unlink()
        left = self._orders.tests
        try:
            while left:
                left = self._once(left)
        finally:
            self._whole()
        return report.counts(self._results / report.NAME)

    def _once(self, tests: tuple[str, ...]) -> tuple[str, ...]:
        """One call; the tests that it did not come to."""
        transcript = Transcript(tests)
        last = bytearray()

        def take(data: bytes) -> None:
            transcript.add(data)
            last.extend(data)
            del last[:-2000]
            self._out(data)

        try:
            ending = self._site.run(replace(self._orders, tests=tests), take)
        finally:
            self._started += transcript.started
        if not transcript.started:
            raise SetupError(f"no test was begun: {_reason(ending, last.decode(errors='replace'))}")
        if not ending.lost:
            if len(transcript.started) < len(tests):
                raise SetupError(f"./check left out {', '.join(sorted({*tests} - {*transcript.started}))}")
            return ()
        at = transcript.started[-1]
        rest = tests[tests.index(at) + 1 :]
        self._keep(at, ending)
        note = self._note(at, ending, rest)
        self._out((("\n" if transcript.line_is_open else "") + note).encode())
        return rest

    def _keep(self, test: str, ending: Ending) -> None:
        """Keep what is known of a lost test, and the report of those before it."""
        self._lost[test] = Loss(ending.lost, ending.last_words)
        self._file(test).write_text(f"{ending.lost}\n{ending.last_words}\n")
        written = self._results / report.NAME
        if written.exists():
            part = written.with_name(f"result.{len(self._parts) + 1}.xml")
            self._parts.append(written.rename(part))

    def _file(self, test: str) -> Path:
        path = self._results / f"{test}.dmesg"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _note(self, test: str, ending: Ending, rest: tuple[str, ...]) -> str:
        lines = [f"{test} FAILED: {ending.lost}", f"    (see {self._file(test)})"]
        lines += [f"    (see {ending.log} for the whole console)"] if ending.log else []
        lines += [f"going on after it, with {len(rest)} more"] if rest else []
        return "\n".join(lines) + "\n\n"

    def _whole(self) -> None:
        """Make one report of all there are."""
        if not self._lost:
            return
        written = self._results / report.NAME
        parts = [*self._parts, *([written] if written.exists() else [])]
        report.merge(parts, self._started, self._lost, written)
        for part in self._parts:
            part.unlink()


def _reason(ending: Ending, said: str) -> str:
    """The last line of what there is."""
    texts = (ending.lost, said.strip(), ending.last_words.strip())
    return next((text.splitlines()[-1] for text in texts if text), "nobody said why")
