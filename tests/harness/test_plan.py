# SPDX-License-Identifier: GPL-2.0-only
"""Which groups share a union, which cannot run, and what a rotating run does twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from datasets.tree import Directory, File
from report.events import Event, Outcome, ScenarioEnded
from tests.union import GROUPS, PARITY
from tests.union.choice import select
from union.configuration import Configuration, Kind, Option
from union.names import Name, Names
from union.operations import Operation, R, mkdir, open_file, rename
from union.plan import NothingLeft, Selection, Share, Turn, plan
from union.scenario import Group, Need, Scenario

HERE = Path()
ROTATING = Configuration(rotations=2)
LOOK = open_file(Name("file"), R)
MAKE = mkdir(Name("dir"))


def group(
    name: str,
    *scripts: Operation,
    lowers: Sequence[Directory] = (Directory(),),
    options: tuple[Option, ...] = (),
    needs: tuple[Need, ...] = (),
) -> Group:
    """A group with a scenario for each operation."""
    scenarios = tuple(Scenario(one.word, partial(alone, one)) for one in scripts or (LOOK,))
    return Group(name, "a group", scenarios, lowers=tuple(lowers), options=options, needs=needs)


def alone(operation: Operation, _: Names) -> Sequence[Operation]:
    return (operation,)


def whole(*groups: Group) -> list[Selection]:
    return [(group, tuple(range(1, len(group.scenarios) + 1))) for group in groups]


def names(shares: Sequence[Share]) -> list[str]:
    """The tops of each share in a word, with a mark of those that rotate."""
    return ["+".join(turn.top for turn in share.turns) + ("=N" if share.rotating else "") for share in shares]


# Who shares with whom -----------------------------------------------------------------------------


def test_groups_that_are_alike_share_a_union() -> None:
    two, on, off = (Directory(), Directory()), (("index", "on"),), (("index", "off"),)
    selection = whole(
        group("a"), group("two", lowers=two), group("opt", options=on), group("b"),
        group("two-b", lowers=two), group("other", options=off), group("opt-b", options=on),
    )  # fmt: skip
    shares = plan(Configuration(), selection)
    assert names(shares) == ["a+b", "two+two-b", "opt+opt-b", "other"]
    assert [share.options for share in shares] == [(), (), on, off]


def test_all_groups_of_a_run_are_planned_once_and_in_order() -> None:
    shares = plan(Configuration(), whole(*GROUPS))
    assert sorted(turn.group.name for share in shares for turn in share.turns) == sorted(g.name for g in GROUPS)
    for share in shares:
        order = [GROUPS.index(turn.group) for turn in share.turns]
        assert order == sorted(order)
        assert {turn.group.options for turn in share.turns} == {share.options}
        assert len({len(turn.group.lowers) or 1 for turn in share.turns}) == 1
    assert len(plan(Configuration(), whole(*PARITY))) == 1, "the classical groups fit on one union"


def test_a_group_that_is_named_twice_gets_a_directory_each_time() -> None:
    one, other = group("one", LOOK, LOOK), group("other")
    (share,) = plan(Configuration(), [(one, (1,)), (other, (1,)), (one, (1, 2)), (one, (2,))])
    assert [(turn.top, turn.numbers) for turn in share.turns] == [
        ("one", (1,)), ("other", (1,)), ("one.1", (1, 2)), ("one.2", (2,)),
    ]  # fmt: skip
    assert [list(tree.entries) for tree in share.trees()] == [["one", "other", "one.1", "one.2"]]


def test_the_trees_of_a_share_lie_side_by_side_in_each_layer() -> None:
    upper, lower = Directory({"upper": File()}), Directory({"lower": File()})
    (share,) = plan(Configuration(), whole(group("a", lowers=(upper, lower)), group("b", lowers=(lower, upper))))
    assert share.trees() == [Directory({"a": upper, "b": lower}), Directory({"a": lower, "b": upper})]


# What a rotating run does -------------------------------------------------------------------------


def test_a_rotating_run_goes_twice_and_who_remounts_goes_alone() -> None:
    selection = whole(group("a"), group("m", MAKE), group("b"), group("n", LOOK, MAKE))
    assert names(plan(ROTATING, selection)) == ["m=N", "n=N", "a+b=N", "a+m+b+n"]
    assert names(plan(Configuration(rotations=0), selection)) == ["m=N", "n=N", "a+b=N", "a+m+b+n"]
    assert names(plan(Configuration(), selection)) == ["a+m+b+n"]


@pytest.mark.parametrize(
    "configuration",
    [Configuration(kind="no", rotations=2), Configuration(rotations=2, detach=True, xino="nofollow")],
    ids=["no union", "detach"],
)
def test_without_a_union_to_rotate_it_goes_once(configuration: Configuration) -> None:
    assert names(plan(configuration, whole(group("a"), group("m", MAKE)))) == ["a+m"]


def test_only_the_chosen_scenarios_count_and_only_what_succeeds_and_may_remount() -> None:
    mixed = group("mixed", LOOK, MAKE)
    assert names(plan(ROTATING, [(mixed, (1,))])) == ["mixed=N", "mixed"]
    assert not Turn("mixed", mixed, (1,)).remounts and Turn("mixed", mixed, (2,)).remounts
    for operation in (
        mkdir(Name("dir"), 17),
        mkdir(Name("dir"), cycle=False),
        rename(Name("dir"), Name("other"), 2),
        open_file(Name("file"), R),
    ):
        assert not Turn("top", group("g", operation), (1,)).remounts
    assert Turn("top", group("g", rename(Name("dir"), Name("other"))), (1,)).remounts


def test_as_many_classical_groups_remount_as_were_counted_in_the_original() -> None:
    shares = plan(ROTATING, [s for s in select(["parity"]) if s[0].name not in ("rename-exdev", "dir-weird-open-dir")])
    alone = [share for share in shares if share.rotating and any(turn.remounts for turn in share.turns)]
    assert all(len(share.turns) == 1 for share in alone)
    assert len(alone) == 21
    assert [len(share.turns) for share in shares if share not in alone] == [58 - 21, 58]


# What cannot run ----------------------------------------------------------------------------------


def need(words: str, why: str | None, asked: list[tuple[Path, Path]] | None = None) -> Need:
    def probe(lower: Path, upper: Path) -> str | None:
        if asked is not None:
            asked.append((lower, upper))
        return why

    return Need(words, probe)


def test_needs_that_are_not_met_skip_with_all_reasons() -> None:
    asked: list[tuple[Path, Path]] = []
    acls, flags, met = need("ACLs", "EOPNOTSUPP", asked), need("flags", "ENOTTY"), need("xattrs", None)
    poor = group("poor", LOOK, MAKE, needs=(acls, met, flags))
    same = group("same", needs=(acls,))
    told: list[Event] = []
    (share,) = plan(Configuration(), whole(poor, group("plain"), same, group("rich", needs=(met,))))
    left = share.able(HERE, [HERE], lambda event: told.append(event))
    assert [turn.top for turn in left.turns] == ["plain", "rich"]
    assert asked == [(HERE, HERE)], "each need is found out once, on both filesystems"
    skipped = [event for event in told if isinstance(event, ScenarioEnded)]
    assert told == skipped
    assert [(e.selector, e.outcome, e.complaints) for e in skipped] == [
        ("poor:1", Outcome.SKIPPED, ("ACLs: EOPNOTSUPP", "flags: ENOTTY")),
        ("poor:2", Outcome.SKIPPED, ("ACLs: EOPNOTSUPP", "flags: ENOTTY")),
        ("same:1", Outcome.SKIPPED, ("ACLs: EOPNOTSUPP",)),
    ]


def test_met_needs_skip_nothing() -> None:
    told: list[Event] = []
    (share,) = plan(ROTATING, whole(group("m", MAKE, needs=(need("xattrs", None),))))[:1]
    assert share.able(HERE, [HERE], lambda event: told.append(event)) == share
    assert (told, share.rotating) == ([], True)


def test_a_share_of_which_nothing_is_left_says_so() -> None:
    told: list[Event] = []
    (share,) = plan(Configuration(), whole(group("poor", needs=(need("ACLs", "EOPNOTSUPP"),))))
    with pytest.raises(NothingLeft):
        share.able(HERE, [HERE], lambda event: told.append(event))
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["no", "ov", "ovov"])
def test_an_empty_selection_needs_no_union(kind: Kind) -> None:
    assert plan(Configuration(kind=kind), []) == []


def test_a_need_must_be_met_by_every_kind_of_upper() -> None:
    first, second = Path("one"), Path("two")
    only = Need("something", lambda _lower, upper: None if upper == first else "not on this one")
    (share,) = plan(Configuration(), whole(group("poor", needs=(only,))))
    assert share.able(HERE, [first], lambda event: None) == share
    for uppers in ([first, second], [second, first]):
        with pytest.raises(NothingLeft):
            share.able(HERE, uppers, lambda event: None)
