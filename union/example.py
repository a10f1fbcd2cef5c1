# SPDX-License-Identifier: GPL-2.0-only
"""An example: any tree, any operations before and after the detach, and what must hold at each step.

What a generator drew, what a search enumerates, what a failure is boiled down to: a value, played on a union of its
own. Nothing is stated of the operations, so the model alone says what must come out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

from datasets.tree import Directory
from mount_union import mount_union
from report.events import Checked, Event, OperationStarted, Outcome, ScenarioEnded
from union.arena import Arena
from union.configuration import Configuration, MigrateWay, Option, Xino, fence_for
from union.detach import detach, reached
from union.operations import Operation
from union.plan import Share, Turn
from union.runner import Runner
from union.scenario import Group, Scenario

TOP: Final = "t"
"""The directory of the union that an example's tree and operations are in."""


@dataclass(frozen=True, slots=True)
class Example:
    """`lowers` are the trees of the lower layers, the topmost first, `upper` what the upper layer has already.

    `before` and `after` the detach operations run. Without `fence`, or with another `xino`, there is none: the
    operations `before` are all. `options` are further mount options. What is `plain` is no union: its only layer itself
    is what is looked at. The `lower` filesystem is fenced as its kind is by itself: of a fuse no method may be called.
    """

    lowers: tuple[Directory, ...]
    before: tuple[Operation, ...] = ()
    after: tuple[Operation, ...] = ()
    upper: Directory | None = None
    migrate: MigrateWay = "dfs"
    options: tuple[Option, ...] = ()
    xino: Xino = "nofollow"
    fence: bool = True
    plain: bool = False
    lower: Literal["xfs", "fuse"] = "xfs"

    @property
    def detaches(self) -> bool:
        """Whether there is an "after": the lower is fenced, migrated or, as a control, not."""
        return self.fence and self.xino == "nofollow" and not self.plain

    def configuration(self) -> Configuration:
        """The union that it is played on, as it is before the detach."""
        if self.plain:
            return Configuration(kind="no")
        return Configuration(
            lower_fs=self.lower, xino=self.xino, detach=self.detaches, migrate="none", moment="before", in_process=True
        )

    def group(self) -> Group:
        """The same as a group of two scenarios, each of which may be left out if it has no operations."""
        moments = (Scenario("before", lambda _: self.before), Scenario("after", lambda _: self.after))
        return Group(TOP, "An example.", moments, lowers=self.lowers, upper=self.upper, options=self.options)


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it: nothing to complain about, or complaints and the operations up to there."""

    complaints: tuple[str, ...]
    steps: tuple[str, ...]
    operations: int


class _Heard:
    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.steps: list[str] = []

    def __call__(self, event: Event) -> None:
        match event:
            case OperationStarted(reproducer):
                self.steps.append(reproducer)
            case Checked(clause, what, complaints):
                self.complaints += [f"{clause}: {what}: {line}" for line in complaints]
            case ScenarioEnded(label=label, outcome=Outcome.FAILED | Outcome.ERROR, complaints=complaints):
                self.complaints += [f"{label} the detach: {line}" for line in complaints]


def play(example: Example, arena: Arena) -> Played:
    """Play it and look at everything. Raises HarnessError for what is our own fault, or when the kernel refuses."""
    heard = _Heard()
    before = example.configuration()
    numbers = {1: example.before, 2: example.after}
    share = Share((Turn(TOP, example.group(), (1,)),), example.options)
    with mount_union(before, share, arena.mountpoint, heard, arena.lay) as union:
        runner = Runner(union.judge, None, heard, stated=False)  # the log is looked at when it is finished
        [turn] = union.turns
        for number in (1, 2) if example.detaches else (1,):
            if number == 2:
                after = replace(before, migrate=example.migrate, fence=fence_for(example.lower), moment="after")
                union.fence = detach(after, union.overlay, union.judge, union.cycler, heard)
                union.configuration = after
                runner.heard = partial(reached, union.fence)
            if heard.complaints:
                break
            if numbers[number]:
                runner.run_turn(replace(turn, numbers=(number,)), "")
        if heard.complaints or runner.lost:
            heard.complaints += [f"kernel log: {line}" for line in union.log.trouble()]
        else:
            union.finish(runner.spoiled)
    return Played(tuple(heard.complaints), tuple(heard.steps), len(heard.steps))
