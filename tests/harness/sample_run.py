# SPDX-License-Identifier: GPL-2.0-only
"""The events of a run with every outcome, for tests of reports."""

from __future__ import annotations

from collections.abc import Iterator

from report.events import (
    Checked,
    Event,
    Evidence,
    Finished,
    GroupStarted,
    Noted,
    Outcome,
    ScenarioEnded,
    ScenarioStarted,
    StageStarted,
)
from report.results import Results, collect

FAMILIES = {"rename-file": "rename_file", "xattrs": "xattrs"}
NASTY = "a # SKIP in\x00 the\nmiddle, <&> and \udcff"


def scenario(group: str, number: int, label: str, outcome: Outcome, *complaints: str) -> Iterator[Event]:
    yield ScenarioStarted(group, number, label, "rename_file.py:12")
    yield ScenarioEnded(group, number, label, outcome, complaints, 0.25)


def events(*, whole: bool = True) -> Iterator[Event]:
    """A run with every outcome; not `whole`: its last scenario and itself never ended."""
    yield Noted("--xino: the detach run")
    yield StageStarted("--operations=before")
    yield GroupStarted("rename-file", "./run --ov --xino")
    yield from scenario("rename-file", 1, "over itself", Outcome.PASSED)
    yield from scenario("rename-file", 2, NASTY, Outcome.FAILED, f"EIO instead of success: {NASTY}")
    yield StageStarted("--operations=after")
    yield from scenario("rename-file", 1, "over itself", Outcome.PASSED)
    yield Evidence("kernel", "6.12.117-nofollow (x86_64)")
    yield Evidence("kernel", "6.12.117-nofollow (x86_64)")
    yield Checked("D2, D9", "no EIO", ())
    yield Checked("-", "no kernel warning", ("WARNING: at fs/overlayfs",))
    yield ScenarioEnded("xattrs", 1, "skipped before it began", Outcome.SKIPPED, ("no xattrs # here",), 0.0)
    yield from scenario("xattrs", 2, "broken", Outcome.ERROR, "the scenario says x but the model predicts y")
    if whole:
        yield Finished()
    else:
        yield ScenarioStarted("xattrs", 3, "kills the kernel", "xattrs.py:7")


def results(*, whole: bool = True) -> Results:
    return collect("./run --ov --xino", events(whole=whole), FAMILIES)


COUNTS = {Outcome.PASSED: 3, Outcome.FAILED: 2, Outcome.SKIPPED: 1, Outcome.ERROR: 1}
