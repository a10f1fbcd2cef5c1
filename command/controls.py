# SPDX-License-Identifier: GPL-2.0-only
"""The negative controls: runs that must fail. One that passes shows that the suite cannot be believed."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum

from tabulate import tabulate

from command import guest, native
from command.options import Options
from kernel import recipe
from report.events import Checked, Event, Outcome, ScenarioEnded
from tests.union.choice import Choice
from union.configuration import EVERYTHING, Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError


@dataclass(frozen=True, slots=True)
class Control:
    """A configuration that must fail in a scenario of `groups` with a complaint that `shows` this: EIO as a rule."""

    name: str
    configuration: Configuration
    groups: tuple[str, ...]
    shows: str = errno.errorcode[errno.EIO]


def _detached(**changes: object) -> Configuration:
    migrated = Configuration(detach=True, lower_fs="xfs", xino="nofollow", migrate="dfs", fence="shutdown")
    return replace(migrated, **changes)  # type: ignore[arg-type]


def _heard(**changes: object) -> Configuration:
    return _detached(lower_fs="fuse", fence="silence", **changes)


ASKED = "the lower was asked"
SAMPLE = ("open-plain", "noent-plain", "unlink", "rename-file", "rename-pop-dir")

CONTROLS = (
    Control("fence without migration", _detached(migrate="none"), SAMPLE),
    Control("copy-up without listing", _detached(leave_unlisted=EVERYTHING), SAMPLE),
    Control("one file left uncopied", _detached(leave_uncopied="open-plain/foo100"), ("open-plain",)),
    Control("one directory left unlisted", _detached(leave_unlisted="noent-plain"), ("noent-plain",)),
    Control("xino=on instead of nofollow", _detached(xino="on"), SAMPLE),
    Control("fuse without migration", _heard(migrate="none"), SAMPLE, ASKED),
    Control("fuse, one file left uncopied", _heard(leave_uncopied="open-plain/foo100"), ("open-plain",), ASKED),
    Control("fuse, one directory left unlisted", _heard(leave_unlisted="noent-plain"), ("noent-plain",), ASKED),
    Control("fuse, xino=on instead of nofollow", _heard(xino="on"), SAMPLE, ASKED),
)


UNEXPECTED = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED)


class Verdict(Enum):
    """What became of a control."""

    FAILED_AS_IT_MUST = "failed as it must"
    PASSED = "PASSED, it must not"
    UNJUDGED = "could not be judged"


@dataclass(frozen=True, slots=True)
class Row:
    """One control and what was seen."""

    name: str
    verdict: Verdict
    proof: str


class _Collector:
    """Listens to a control run: counts outcomes and keeps the first complaint that `shows` what it must."""

    def __init__(self, shows: str) -> None:
        self._shows = shows
        self.counts: Counter[Outcome] = Counter()
        self.proof = ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Checked) and self._shows == ASKED:
            # A lower that works lets the check itself list what was left unlisted: nothing asks it after that.
            asked = (line for line in event.complaints if ASKED in line)
            self.proof = self.proof or next((f"{event.clause}: {line}" for line in asked), "")
        if not isinstance(event, ScenarioEnded):
            return
        self.counts[event.outcome] += 1
        for complaint in event.complaints:
            if event.outcome is Outcome.FAILED and self._shows in complaint:
                self.proof = self.proof or f"{event.selector}: {complaint}"


def run(options: Options) -> int:
    """Run all controls; 0 if every one fails as it must, 1 if one passes, 3 if one cannot be judged."""
    if os.environ.get(native.COMMAND):
        return _inside()
    asked = options.kernel
    if asked in map(recipe.stock, recipe.series()):
        raise UsageError(f"--controls needs a kernel with the option; {asked} is the control that must refuse it")
    probe = replace(options, configuration=_detached())
    rows = _rows_here() if native.chosen(probe) else _rows_in_guest(options)
    rows.append(_stock_refuses(options))
    print(tabulate([(row.name, row.verdict.value, row.proof) for row in rows], headers=("control", "verdict", "seen")))
    failed = sum(row.verdict is Verdict.FAILED_AS_IT_MUST for row in rows)
    unjudged = sum(row.verdict is Verdict.UNJUDGED for row in rows)
    print(f"\n{failed} passed, {len(rows) - failed} failed, 0 skipped")
    return 3 if unjudged else 0 if failed == len(rows) else 1


def _rows_here() -> list[Row]:
    return [_judge(control) for control in CONTROLS]


def _judge(control: Control) -> Row:
    """Carry one control out in a child process, whose mounts go with it."""

    def work() -> list[str]:
        collector = _Collector(control.shows)
        native.carry_out(control.configuration, Choice(control.groups), collector)
        verdict = Verdict.FAILED_AS_IT_MUST if collector.proof else Verdict.PASSED
        counts = ", ".join(f"{collector.counts[outcome]} {outcome.value}" for outcome in UNEXPECTED)
        return [verdict.value, f"{counts}; {collector.proof or f'no complaint with {control.shows!r}'}"]

    try:
        verdict, proof = native.in_child(work)
    except HarnessError as error:
        return Row(control.name, Verdict.UNJUDGED, str(error))
    return Row(control.name, Verdict(verdict), proof)


def _inside() -> int:
    """In the guest: one line of JSON per row, read by `_rows_in_guest`."""
    for row in _rows_here():
        print(json.dumps([row.name, row.verdict.value, row.proof]))
    return 0


def _rows_in_guest(options: Options) -> list[Row]:
    status, text = guest.capture(options, guest.flavour(options), ["--controls", "--kernel=native"])
    if status != 0:
        raise SetupError(f"the controls could not be run in the guest (exit {status}): {text.strip()[-500:]}")
    return [Row(name, Verdict(verdict), proof) for name, verdict, proof in map(json.loads, text.splitlines())]


def _stock_refuses(options: Options) -> Row:
    """The same sources without the patch must refuse the option (D1); for a kernel not of our making, the default's."""
    kernel = guest.flavour(options)
    stock = recipe.stock(kernel if kernel in recipe.series() else guest.DEFAULT)
    status, text = guest.capture(options, stock, ["--ov", "--xino", "--kernel=native", "open-plain:1"])
    refused = status == Unsupported.exit_code and "refuses xino=nofollow" in text
    verdict = Verdict.FAILED_AS_IT_MUST if refused else Verdict.PASSED if status == 0 else Verdict.UNJUDGED
    return Row("stock kernel with xino=nofollow", verdict, text.strip().splitlines()[-1] if text.strip() else "")
