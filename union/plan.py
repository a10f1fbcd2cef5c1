# SPDX-License-Identifier: GPL-2.0-only
"""Which groups share a union: as many as can, and who cannot gets one of its own.

A run of the classical suite builds a union per group. Here the groups lie side by side in one union, each in
a directory of its own. What needs other mount options or several lower layers shares with its like. In a
rotating run a group that remounts has a union for itself, since rotations are counted per group; the others
are remounted after each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.tree import Directory
from report.events import Listener, Outcome, ScenarioEnded
from union.configuration import Configuration, Option
from union.scenario import Group, Need

Selection = tuple[Group, tuple[int, ...]]
"""A group and the numbers of its scenarios to run, ascending."""


class NothingLeft(Exception):
    """No group of the share can run; each was reported as skipped with its reasons."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A group, the scenarios of it that run, and its directory in the union."""

    top: str
    group: Group
    numbers: tuple[int, ...]

    def skip(self, reasons: Sequence[str], tell: Listener) -> None:
        """Report all of its scenarios as skipped."""
        for number in self.numbers:
            label = self.group.labels[number - 1]
            tell(ScenarioEnded(self.group.name, number, label, Outcome.SKIPPED, tuple(reasons), 0.0))

    @property
    def remounts(self) -> bool:
        """Whether a rotating run remounts inside of its scenarios."""
        return any(
            operation.remounts and operation.cycle and not operation.fails
            for number in self.numbers
            for operation in self.group.operations(number, self.top)
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What runs on one union; `rotating` says that it is remounted on the way."""

    turns: tuple[Turn, ...]
    options: tuple[Option, ...] = ()
    rotating: bool = False

    def trees(self) -> list[Directory]:
        """The content of its lower layers, the topmost first."""
        per_turn = [(turn.top, turn.group.trees(turn.top)) for turn in self.turns]
        layers = max(len(trees) for _, trees in per_turn)
        return [Directory({top: trees[layer] for top, trees in per_turn}) for layer in range(layers)]

    def upper(self) -> Directory | None:
        """What its upper layer holds at the beginning but for the sample file; None if nothing."""
        tops = {turn.top: turn.group.upper for turn in self.turns}
        entries = {top: tree for top, tree in tops.items() if tree is not None}
        return Directory(entries) if entries else None

    def able(self, lower: Path, uppers: Sequence[Path], tell: Listener, lower_fs: str = "") -> Share:
        """The share without the groups whose needs the empty filesystems do not meet: those are skipped.

        `uppers` are roots of all kinds of filesystem that an upper layer can be on, `lower_fs` is what the
        lower will be packed as, if that is another kind. Raises NothingLeft.
        """
        needs = {need for turn in self.turns for need in turn.group.needs}
        unmet: dict[Need, str] = {}
        for upper in uppers:
            unmet |= {need: why for need in needs if (why := need.probe(lower, upper)) is not None}
        unmet |= {need: f"{lower_fs} as a lower does not have it" for need in needs if lower_fs in need.lacking}
        left = []
        for turn in self.turns:
            reasons = [f"{need.words}: {unmet[need]}" for need in turn.group.needs if need in unmet]
            if reasons:
                turn.skip(reasons, tell)
            else:
                left.append(turn)
        if not left:
            raise NothingLeft
        return replace(self, turns=tuple(left))


def plan(configuration: Configuration, selection: Sequence[Selection]) -> list[Share]:
    """The unions of a run, in order."""
    turns = _turns(selection)
    if configuration.rotations is None or configuration.detach or configuration.plain:
        return _shared(turns)
    alone = [turn for turn in turns if turn.remounts]
    others = [turn for turn in turns if not turn.remounts]
    rotating = [*(share for turn in alone for share in _shared([turn])), *_shared(others)]
    return [*(replace(share, rotating=True) for share in rotating), *_shared(turns)]


def _turns(selection: Sequence[Selection]) -> list[Turn]:
    """A group that is named twice gets a directory of its own each time: nothing is left over from the first."""
    turns = []
    for index, (group, numbers) in enumerate(selection):
        earlier = sum(other is group for other, _ in selection[:index])
        turns.append(Turn(f"{group.name}.{earlier}" if earlier else group.name, group, numbers))
    return turns


def _shared(turns: Sequence[Turn]) -> list[Share]:
    alike: dict[tuple[int, tuple[Option, ...]], list[Turn]] = {}
    for turn in turns:
        alike.setdefault((len(turn.group.lowers) or 1, turn.group.options), []).append(turn)
    return [Share(tuple(same), options) for (_, options), same in alike.items()]
