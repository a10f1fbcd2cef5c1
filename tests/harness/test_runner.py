# SPDX-License-Identifier: GPL-2.0-only
"""The runner: what a kernel may refuse or choose before the detach, and that it may nowhere else."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import cast

import pytest

from report.events import Event, Outcome, ScenarioEnded
from tests.harness.test_judge import S, staged
from union import syscalls
from union.inodes import Handle
from union.judge import Judge
from union.kernellog import KernelLog
from union.names import Name
from union.operations import Held, Operation, Rename, SameHandle, Value, W, open_file, rename
from union.plan import Turn
from union.runner import Heard, Runner, silent
from union.scenario import Group, Scenario
from union.witness import UpperState


class QuietLog:
    """A kernel that says nothing."""

    def trouble(self) -> list[str]:
        return []


def outcome(judge: Judge, *operations: Operation, heard: Heard = silent, cold: bool = False) -> tuple[Outcome, str]:
    """How a scenario of these operations ends."""
    told: list[Event] = []
    runner = Runner(judge, cast(KernelLog, QuietLog()), lambda event: told.append(event), heard=heard, cold=cold)
    group = Group("top", "A group.", (Scenario("a scenario", lambda _: operations),))
    runner.run_turn(Turn("top", group, (1,)), "./run")
    (end,) = (event for event in told if isinstance(event, ScenarioEnded))
    assert bool(runner.spoiled) == (end.outcome is Outcome.FAILED)
    return end.outcome, "; ".join(end.complaints)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gives EXDEV for each rename."""

    def call(self: Rename, root: str, held: Held) -> Value:
        raise OSError(errno.EXDEV, "refused")

    monkeypatch.setattr(Rename, "call", call)


def of_nofollow(judge: Judge) -> Judge:
    judge.renumbers = judge.model.renumbers = True
    return judge


def of_another(judge: Judge) -> Judge:
    return judge


def migrated(judge: Judge) -> Judge:
    judge.model.detach()
    return of_nofollow(judge)


MOVED = Name("top/moved")
BORDER: dict[str, tuple[Callable[[Judge], Judge], Name, Outcome]] = {
    "a merge directory with nofollow": (of_nofollow, S.dir, Outcome.SKIPPED),
    "a file with nofollow": (of_nofollow, S.reg, Outcome.FAILED),
    "a directory without the option": (of_another, S.dir, Outcome.FAILED),
    "a directory after the detach": (migrated, S.dir, Outcome.FAILED),
}


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(("prepare", "old", "wanted"), BORDER.values(), ids=BORDER.keys())
def test_only_a_merge_directory_of_nofollow_may_be_refused_with_exdev(
    prepare: Callable[[Judge], Judge], old: Name, wanted: Outcome
) -> None:
    judge, _ = staged()
    seen, why = outcome(prepare(judge), rename(old, MOVED))
    assert seen is wanted, why
    assert "EXDEV" in why


@pytest.mark.usefixtures("refusing")
def test_what_was_refused_must_be_unchanged() -> None:
    judge, witness = staged()
    witness.staged[S.dir] = witness.true(S.dir, mode=0o40700)
    seen, why = outcome(of_nofollow(judge), rename(S.dir, MOVED))
    assert seen is Outcome.FAILED and "mode 0700" in why


@pytest.mark.usefixtures("refusing")
def test_an_exdev_that_is_stated_passes() -> None:
    judge, _ = staged()
    judge.model.redirects = False
    assert outcome(of_nofollow(judge), rename(S.dir, MOVED, errno.EXDEV))[0] is Outcome.PASSED


@pytest.mark.usefixtures("refusing")
def test_an_operation_during_which_the_lower_was_asked_has_failed() -> None:
    judge, _ = staged()
    judge.model.redirects = False
    fine = rename(S.dir, MOVED, errno.EXDEV)
    seen = outcome(of_nofollow(judge), fine, heard=lambda: ["the lower was asked: LOOKUP dir by process 1"])
    assert seen == (Outcome.FAILED, "the lower was asked: LOOKUP dir by process 1")


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("cold", [True, False])
def test_caches_are_dropped_before_each_scenario_if_it_shall_be_cold(
    cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr(syscalls, "drop_caches", lambda: dropped.append(True))
    judge, _ = staged()
    judge.model.redirects = False
    assert outcome(of_nofollow(judge), rename(S.dir, MOVED, errno.EXDEV), cold=cold)[0] is Outcome.PASSED
    assert len(dropped) == cold


@pytest.mark.parametrize(
    ("renumbers", "copied_up", "given", "fine"),
    [
        (True, True, "another", True),
        (True, True, "same", True),
        (True, False, "another", False),
        (False, True, "another", False),
    ],
)
def test_a_handle_may_change_on_copy_up_with_nofollow_alone(
    renumbers: bool, copied_up: bool, given: str, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, _ = staged(*([open_file(S.reg, W)] if copied_up else []))
    judge.model.renumbers = renumbers
    place = judge.model.find(S.reg)
    assert place is not None and place.inode is not None
    judge.model.held["handle"] = Handle(place.inode, 0, was_lower=True)
    monkeypatch.setattr(SameHandle, "call", lambda self, root, held: given)
    same = SameHandle(path=S.reg, handle="handle", returns="same")
    assert (outcome(judge, same)[0] is Outcome.PASSED) == fine


def removed_with(opaque: bool, renumbers: bool) -> list[str]:
    """What is said of a removed lower name without a whiteout, in a directory that is opaque or not."""
    judge, witness = staged()
    judge.model.apply(rename(S.reg, S.none))
    judge.renumbers = renumbers
    witness.staged_upper[S.reg] = UpperState()
    witness.staged_upper["top"] = UpperState(0o40755, opaque=opaque)
    return judge.names([S.reg])


def test_a_directory_that_turned_opaque_needs_no_whiteout_with_nofollow_alone() -> None:
    assert removed_with(opaque=True, renumbers=True) == []
    for opaque, renumbers in ((False, True), (True, False)):
        assert any("no whiteout" in line for line in removed_with(opaque, renumbers))
