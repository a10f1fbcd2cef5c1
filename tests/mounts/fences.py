# SPDX-License-Identifier: GPL-2.0-only
"""The fences: below a union that still needs its lower each catches something, below a migrated one nothing (D9)."""

from __future__ import annotations

from typing import Final

from union.fence import CannotFence
from union.fences import table as fencetable
from union.fences.table import OPERATIONS, Row
from union.overlay import accepts
from union.scenario import Group, Trial, When
from union.stand import Missing, Stand

STRONG: Final = ("silence", "killed", "aborted", "stopped", "failing")
"""Those of a lower that nobody caches: with cold caches they miss nothing that an overlay asks its lower for."""


def catches(stand: Stand, name: str, lower: str) -> None:
    """On an unmigrated union it catches something with cold caches, on a migrated one nothing."""
    detachable = not accepts(("xino", "nofollow"))
    try:
        for row in fencetable.rows(name, lower, detachable=detachable):
            judged(stand, row)
    except CannotFence as error:
        raise Missing(str(error)) from error


def judged(stand: Stand, row: Row) -> None:
    """What must hold of a row of the table."""
    stand.steps.append(f"{row.fence} below {row.lower}, {row.state}: {row.evidence}")
    if row.state == "detached":
        stand.same("caught after the detach", row.caught, [])
    elif row.state == "cold":
        least = len(OPERATIONS) - 1 if row.fence in STRONG else 1  # statfs asks upper alone
        stand.holds(f"with cold caches {len(row.caught)} of {len(OPERATIONS)} are caught", len(row.caught) >= least)


def _trial(name: str, lower: str) -> Trial:
    return Trial(f"{name}, lower {lower}", lambda stand: catches(stand, name, lower))


GROUPS = (
    Group(
        "fences",
        "What each fence catches, before the detach and after it.",
        when=When.LONG,
        trials=tuple(_trial(name, lower) for name, lower in fencetable.combinations()),
    ),
)
