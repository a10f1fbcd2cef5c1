# SPDX-License-Identifier: GPL-2.0-only
"""Picking scenarios: sets, names, numbers, patterns, and what is left out with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from command.options import parse
from report.events import Event, Outcome, ScenarioEnded
from tests.union import GROUPS, PARITY, beyond, choice
from tests.union.choice import Choice, Exclusion, by_name, default_groups, select
from union.configuration import Configuration, Places
from union.errors import UsageError
from union.operations import R, open_file
from union.plan import Selection
from union.scenario import Group, Scenario, When

CLASSICAL = [group.name for group in PARITY]
SEQUENCE = next(group for group in PARITY if group.sequence)
ORDINARY = by_name("rename-file")


def selection(
    picked: Choice, *, renames: bool = True, detaches: bool = False, told: list[Event] | None = None
) -> list[Selection]:
    """What runs; what is told about the rest is added to `told`."""
    events = [] if told is None else told
    configuration = Configuration(detach=detaches, migrate="dfs" if detaches else "none")
    return picked.selection(configuration, redirects=renames, tell=lambda event: events.append(event))


def names(picked: list[Selection]) -> list[str]:
    return [group.name for group, _ in picked]


# Words --------------------------------------------------------------------------------------------


def test_parity_beyond_and_mounts_are_all_groups_and_share_none() -> None:
    parity, more, trials = (names(select([word])) for word in ("parity", "beyond", "mounts"))
    assert parity == CLASSICAL
    assert more == [group.name for group in beyond.GROUPS]
    assert parity + more + trials == [group.name for group in GROUPS]
    assert set(parity).isdisjoint(more)


@pytest.mark.parametrize(("renames", "number", "last"), [(True, 58, "rename-move-dir"), (False, 55, "rename-exdev")])
def test_a_set_means_those_of_its_groups_that_belong_to_the_run(renames: bool, number: int, last: str) -> None:
    picked = names(selection(Choice(("parity",)), renames=renames))
    assert (len(picked), picked[-1]) == (number, last)
    assert picked == names(selection(Choice(), renames=renames))[:number]
    assert "dir-weird-open-dir" not in picked and "dir-weird-open-dir" in names(select(["parity"]))


def test_a_set_whose_groups_do_not_detach_is_smaller_after_a_detach() -> None:
    every = names(selection(Choice(("beyond",))))
    left = names(selection(Choice(("beyond",)), detaches=True))
    assert [name for name in every if by_name(name).detaches] == left


def test_words_keep_their_order_and_may_be_repeated() -> None:
    words = ("rename-file:3", "open-plain", "rename-file", "sym?-plain:2", "open-plain")
    picked = selection(Choice(words))
    assert names(picked) == [
        "rename-file", "open-plain", "rename-file", "sym1-plain", "sym2-plain", "symx-plain", "open-plain",
    ]  # fmt: skip
    assert [numbers for _, numbers in picked[:4]] == [(3,), (1, 2, 3, 4, 5), tuple(range(1, 11)), (2,)]


BAD_WORDS = {
    "rename-flie": "did you mean rename-file",
    "Rename-file": "no group",
    "rename-file:0": "number of a scenario",
    "rename-file:x": "number of a scenario",
    "rename-file:": "number of a scenario",
    "rename-file:11": "no scenario above 10",
    "parity:3": "no group 'parity'",
    "nothing-*": "no group of this run",
    "open-*:99": "so many scenarios",
    "": "no group",
}


@pytest.mark.parametrize(("word", "why"), BAD_WORDS.items(), ids=list(BAD_WORDS))
def test_a_word_that_picks_nothing_is_a_mistake(word: str, why: str) -> None:
    for picked in (Choice((word,)), Choice(excluded=(Exclusion(word, "why"),))):
        with pytest.raises(UsageError, match=why):
            picked.check()
    Choice(("rename-file:10",)).check()


def test_a_group_of_the_other_kind_of_run_is_a_mistake() -> None:
    exdev = Choice(("rename-exdev",))
    exdev.check()  # which run it is for is known only when the union's options are
    with pytest.raises(UsageError, match="belongs to --xdev"):
        selection(exdev)
    assert names(selection(exdev, renames=False)) == ["rename-exdev"]
    with pytest.raises(UsageError, match="belongs to a run without --xdev"):
        selection(Choice(("rename-dir:1",)), renames=False)
    assert names(selection(Choice(("dir-weird-open-dir",)))) == ["dir-weird-open-dir"]


def test_a_group_whose_lower_stays_is_a_mistake_in_a_detach_run(monkeypatch: pytest.MonkeyPatch) -> None:
    staying = Group("staying", "stays", (Scenario("one", lambda n: (open_file(n.reg, R),)),), detaches=False)
    monkeypatch.setattr(choice, "GROUPS", (*GROUPS, staying))
    monkeypatch.setitem(choice._BY_NAME, "staying", staying)
    assert "staying" in names(selection(Choice()))
    assert "staying" not in names(selection(Choice(), detaches=True))
    assert names(selection(Choice(("staying",)))) == ["staying"]
    with pytest.raises(UsageError, match="cannot be migrated"):
        selection(Choice(("staying",)), detaches=True)


def test_each_stage_of_a_detach_run_takes_what_it_can_of_the_words() -> None:
    staged = Configuration(detach=True, migrate="dfs", moment="both").stages()
    choice = Choice(("metacopy", "open-plain"))
    picked = [
        names(choice.selection(stage, redirects=True, tell=lambda _: None, among=staged)) for stage in staged
    ]  # fmt: skip
    assert picked == [["metacopy", "open-plain"], ["open-plain"]]
    with pytest.raises(UsageError, match="rename-exdev"):
        Choice(("rename-exdev",)).selection(staged[0], redirects=True, tell=lambda _: None, among=staged)


def test_default_groups_are_those_of_every_run_and_of_this_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Group("lasting", "Takes long.", (Scenario("one", lambda n: (open_file(n.reg, R),)),), When.WITHOUT_DETACH)
    monkeypatch.setattr(choice, "GROUPS", (*GROUPS, long))
    monkeypatch.setitem(choice._BY_NAME, "lasting", long)
    for renames, kind in ((True, When.DIRECTORY_RENAMES), (False, When.NO_DIRECTORY_RENAMES)):
        assert {group.when for group in default_groups(renames)} == {When.ALWAYS, When.WITHOUT_DETACH, kind}
        assert {group.when for group in default_groups(renames, detach=True)} == {When.ALWAYS, kind}
    assert names(selection(Choice(("lasting",)), detaches=True)) == ["lasting"]


# A sequence ---------------------------------------------------------------------------------------


def test_a_scenario_of_a_sequence_brings_along_what_it_goes_on_from() -> None:
    last = len(SEQUENCE.scenarios)
    assert last > 1 and not ORDINARY.sequence
    assert select([f"{SEQUENCE.name}:{last}"]) == [(SEQUENCE, tuple(range(1, last + 1)))]
    assert select([f"{ORDINARY.name}:3"]) == [(ORDINARY, (3,))]


def test_what_follows_an_excluded_scenario_of_a_sequence_is_excluded_too() -> None:
    told: list[Event] = []
    first = Exclusion(f"{SEQUENCE.name}:1", "broken")
    assert selection(Choice((SEQUENCE.name,), (first,)), told=told) == []
    assert len(told) == len(SEQUENCE.scenarios)
    third = Exclusion(f"{ORDINARY.name}:3", "broken")
    ((_, left),) = selection(Choice((ORDINARY.name,), (third,)))
    assert left == (1, 2, 4, 5, 6, 7, 8, 9, 10)


# What is left out ---------------------------------------------------------------------------------


def test_what_is_excluded_is_reported_as_skipped_with_its_reason() -> None:
    told: list[Event] = []
    excluded = (Exclusion("rename-file:2", "a known bug"), Exclusion("open-*", "no time"))
    picked = Choice(("open-plain", "rename-file"), excluded)
    ((group, numbers),) = selection(picked, told=told)
    assert (group.name, numbers) == ("rename-file", (1, 3, 4, 5, 6, 7, 8, 9, 10))
    skipped = [event for event in told if isinstance(event, ScenarioEnded)]
    assert skipped == told and {event.outcome for event in skipped} == {Outcome.SKIPPED}
    assert [(event.selector, event.complaints) for event in skipped] == [
        *((f"open-plain:{number}", ("excluded: no time",)) for number in range(1, 6)),
        ("rename-file:2", ("excluded: a known bug",)),
    ]


def test_an_exclusion_of_what_does_not_run_changes_nothing() -> None:
    told: list[Event] = []
    picked = Choice(("open-plain",), (Exclusion("rename-exdev", "why"), Exclusion("beyond", "why")))
    assert selection(picked, told=told) == selection(Choice(("open-plain",)))
    assert told == []


def test_exclusions_of_the_command_line_and_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text("# what does not work\n\nrename-file:2  # a known bug\nopen-* # no time; # really\n")
    options = parse(["--ov", "-x", "mkdir", "--exclude", "rmdir", f"--exclude-file={file}"], {})
    assert options.choice.excluded == (
        Exclusion("mkdir", "on the command line"),
        Exclusion("rmdir", "on the command line"),
        Exclusion("rename-file:2", "a known bug"),
        Exclusion("open-*", "no time; # really"),
    )
    assert options.command() == f"./run --ov --exclude=mkdir --exclude=rmdir --exclude-file={file}"


@pytest.mark.parametrize(
    ("text", "why"),
    [("mkdir\n", "known:1: mkdir has no reason"), ("# a\nmkdir #\n", "known:2: mkdir"), ("mkdri # x\n", "mkdir")],
)
def test_a_mistake_in_the_file_is_told(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(text)
    with pytest.raises(UsageError, match=why):
        parse(["--ov", f"--exclude-file={tmp_path}/known"], {})
    (tmp_path / "known").write_text("mkdir # why\n")
    parse(["--ov", f"--exclude-file={tmp_path}/known"], {})


def test_what_cannot_be_copied_up_is_not_spread_over_rotated_layers() -> None:
    rotating = Configuration(detach=True, xino="nofollow", rotations=2)
    picked = Choice().selection(rotating, redirects=True, tell=lambda _: None)
    assert picked and all(group.detaches for group, _ in picked)


# Trials ------------------------------------------------------------------------------------------

BARE = (Configuration(), Configuration(detach=True, lower_fs="xfs", xino="nofollow", migrate="mail", fence="shutdown"))
CHOSEN = (
    *(Configuration(kind="no"), Configuration(kind="ovov"), Configuration(rotations=2), Configuration(samefs=True)),
    *(Configuration(lower_fs="ext4"), Configuration(upper_fs="xfs"), Configuration(xino="on")),
    *(Configuration(meta=True), Configuration(slashes=True), Configuration(places=Places(options=(("volatile", ""),)))),
    Configuration(detach=True, lower_fs="ext4", xino="nofollow", migrate="mail", fence="shutdown"),
)


@pytest.mark.parametrize("configuration", BARE + CHOSEN)
def test_trials_run_where_nothing_is_said_about_the_layers(configuration: Configuration) -> None:
    picked = Choice().selection(configuration, redirects=True, tell=lambda _: None)
    assert any(group.trials for group, _ in picked) == (configuration in BARE)
    if configuration not in BARE:
        with pytest.raises(UsageError, match="mounts overlays of its own"):
            Choice(("mount-options",)).selection(configuration, redirects=True, tell=lambda _: None)


# Shards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 7, 1000])
def test_shards_are_all_groups_together_and_share_none(parts: int) -> None:
    whole = names(selection(Choice()))
    shards = [names(selection(Choice(shard=(number, parts)))) for number in range(1, parts + 1)]
    assert sorted(name for shard in shards for name in shard) == sorted(whole)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
