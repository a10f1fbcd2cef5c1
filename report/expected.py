# SPDX-License-Identifier: GPL-2.0-only
"""Failures that are known: they fail nothing, and one that passes all the same fails the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from report.events import Event, Listener, Outcome, ScenarioEnded


class Expecting:
    """Passes all events on; the outcome of a scenario that is expected to fail is judged anew."""

    def __init__(self, tell: Listener, reasons: Mapping[tuple[str, int], str]) -> None:
        """`reasons` are the known failures: group and number of the scenario, and why."""
        self._tell = tell
        self._reasons = reasons

    def __call__(self, event: Event) -> None:
        if isinstance(event, ScenarioEnded) and (why := self._reasons.get((event.group, event.number))):
            event = _judged(event, why)
        self._tell(event)


def _judged(ended: ScenarioEnded, why: str) -> ScenarioEnded:
    if ended.outcome is Outcome.FAILED:
        return replace(ended, outcome=Outcome.EXPECTED, complaints=(*ended.complaints, f"expected: {why}"))
    if ended.outcome is Outcome.PASSED:
        surprise = f"passed, but was expected to fail: {why}"
        return replace(ended, outcome=Outcome.FAILED, complaints=(*ended.complaints, surprise))
    return ended
