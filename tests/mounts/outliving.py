# SPDX-License-Identifier: GPL-2.0-only
"""What outlives a detach: unions mounted again over any lower (D11), and what was opened before (D9, D16, D17).

What may differ is recorded in the steps, and in docs/outliving.md as a table; what must hold can fail.
"""

from __future__ import annotations

from typing import Final

from tests.mounts import needs
from union.holders import ROWS, WORKS, WRONG
from union.outliving import DEAD, DEATHS, EMPTY, LAYERS, REAL, RELEASES, SAME, Kind, Moment, held, releases, remounts
from union.scenario import Group, Trial, When
from union.stand import Stand

PERSISTENT: Final = {"xfs": (REAL, DEAD, EMPTY), "fuse": (REAL, EMPTY)}
"""Over which lowers a migrated union must be the same; no path leads through the root of a FUSE that was killed."""


def mounted_again(stand: Stand, kind: Kind) -> None:
    needs.recent(LAYERS)
    found = remounts(stand, kind)
    record(stand, found)
    for lower in PERSISTENT[kind]:
        stand.same(f"over {lower}", found[lower], SAME)


def not_migrated(stand: Stand, kind: Kind) -> None:
    """The control: the same is not so then."""
    needs.recent(LAYERS)
    found = remounts(stand, kind, migrated=False)
    record(stand, found)
    stand.same("over the real one", found[REAL], SAME)
    stand.holds("a dead lower, an empty one or none makes a difference", SAME not in list(found.values())[1:])


def opened(stand: Stand, kind: Kind, moment: Moment) -> None:
    """Whatever it gives, it is not wrong data; what is opened once it is copied up needs no lower any more."""
    needs.recent(LAYERS)
    results = held(stand, kind, moment)
    for row, got in zip(ROWS, results, strict=True):
        said = f"{row.what}, {row.use}"
        stand.steps.append(f"{said}: {got}")
        stand.holds(f"{said}: {got}", got != WRONG)
        if moment in ("before the listings", "lower alive"):
            stand.same(said, got, WORKS)
        if moment == "not migrated" and row.needs_lower:
            stand.holds(f"{said} needs lower: {got}", got != WORKS)


def released(stand: Stand, kind: Kind, *, dead: bool) -> None:
    """The union never notices."""
    needs.recent(LAYERS)
    found = releases(stand, kind, dead=dead)
    record(stand, found)
    _, _, same, at_last = RELEASES
    stand.same(same, found[same], "yes")
    stand.same(at_last, found[at_last], "yes")


def record(stand: Stand, found: dict[str, str]) -> None:
    """Into the transcript."""
    stand.steps += [f"{words}: {got}" for words, got in found.items()]


def trials(kind: Kind) -> tuple[Trial, ...]:
    """Of this kind of lower."""
    name = DEATHS[kind]
    return (
        Trial(f"{name}: mounted again", lambda stand: mounted_again(stand, kind)),
        Trial(f"{name}: mounted again without a migration", lambda stand: not_migrated(stand, kind)),
        Trial(f"{name}: opened before copy-up", lambda stand: opened(stand, kind, "before copy-up")),
        Trial(f"{name}: opened before the listings", lambda stand: opened(stand, kind, "before the listings")),
        Trial(f"{name}: opened without a migration", lambda stand: opened(stand, kind, "not migrated")),
        Trial(f"{name}: unmounted", lambda stand: released(stand, kind, dead=False)),
        Trial(f"{name}: unmounted when it is dead", lambda stand: released(stand, kind, dead=True)),
    )


GROUPS = (
    Group(
        "outliving",
        "Use what was opened before a detach, mount the union over other lowers, unmount the lower.",
        when=When.LONG,
        trials=(
            *trials("xfs"),
            *trials("fuse"),
            Trial("opened and used while lower is alive", lambda stand: opened(stand, "xfs", "lower alive")),
        ),
    ),
)
