# SPDX-License-Identifier: GPL-2.0-only
"""The scenario declarations: all there, in order, as the classical suite counts them, and selectable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV, errorcode
from pathlib import Path

import pytest

from datasets.reference import C0, C1, FIRST_SET
from tests.union import GROUPS, MODULES, PARITY
from tests.union.choice import by_name, default_groups, select
from tests.union.parity_table import UPSTREAM, added, render
from union.errors import UsageError
from union.operations import DIRECTORY, OpenFile, Operation, Rename
from union.scenario import Group, When

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "parity.md"
DECLARATIONS = CHECKOUT / "tests" / "union"
ON = tuple(group for group in default_groups(directory_renames=True) if group in PARITY)
OFF = tuple(group for group in default_groups(directory_renames=False) if group in PARITY)

# The operations of upstream's default run: all of them, and those that must fail.
OPERATIONS = {
    "open-file": (914, 250),
    "rename": (438, 72),
    "unlink": (117, 45),
    "rmdir": (98, 71),
    "mkdir": (86, 25),
    "link": (41, 27),
    "truncate": (32, 2),
    "readlink": (22, 4),
    "rmtree": (14, 0),
    "utimes": (3, 2),
}
ERRNOS = {
    ENOENT: 266,
    EEXIST: 87,
    EISDIR: 67,
    ENOTDIR: 34,
    ENOTEMPTY: 26,
    EACCES: 10,
    EINVAL: 4,
    EPERM: 2,
    ELOOP: 2,
}
# What we look at besides: 10 dangling symlinks' targets, the empty file of truncate, one target of a rename.
MORE_OPENS = (12, 10)
SIZES = 58 + 3
DIRECTORY_GROUPS = ("open", "weird-open", "sym1-open", "sym1-weird-open", "sym2-open", "sym2-weird-open")


def scenarios(groups: tuple[Group, ...] = PARITY) -> Iterator[tuple[Group, int]]:
    """Every scenario of the classical groups, or of others, as group and number."""
    for group in groups:
        for number, _ in enumerate(group.scenarios, 1):
            yield group, number


def operations(groups: tuple[Group, ...] = PARITY) -> Iterator[Operation]:
    """Every operation of every one of these scenarios."""
    for group, number in scenarios(groups):
        yield from group.operations(number)


def lines(selector: str) -> list[str]:
    """A scenario's operations in short: word, names without the top (`~` for the one under test), errno."""
    ((group, numbers),) = select([selector])
    text = []
    for operation in group.operations(numbers[-1]):
        names = (f"{'~' * name.tested}{name.removeprefix(f'{group.name}/')}" for name in operation.names())
        text.append(" ".join((operation.word, *names, *([errorcode[operation.fails]] if operation.fails else []))))
    return text


# As many as upstream, in its order ----------------------------------------------------------------


def test_groups_stand_in_upstreams_order() -> None:
    assert [group.name for group in PARITY] == [name for name, _, _ in UPSTREAM]


@pytest.mark.parametrize(("name", "subtests", "count"), UPSTREAM)
def test_each_group_has_upstreams_subtests_and_operations(name: str, subtests: int, count: int) -> None:
    group = by_name(name)
    assert len(group.scenarios) == subtests
    ours = sum(len(group.operations(number)) for _, number in scenarios((group,)))
    more = sum(added(group, number) for _, number in scenarios((group,)))
    assert ours - more == count


def test_default_lists_have_upstreams_totals() -> None:
    assert (len(ON), len(list(scenarios(ON)))) == (58, 359)
    assert (len(OFF), len(list(scenarios(OFF)))) == (55, 328)
    assert sum(count for _, _, count in UPSTREAM[:58]) == 1765
    assert sum(1 for _ in operations(ON)) == 1765 + MORE_OPENS[0] + SIZES


def test_default_lists_differ_in_directory_renames_only() -> None:
    names_on, names_off = [group.name for group in ON], [group.name for group in OFF]
    assert names_on == [name for name, _, _ in UPSTREAM[:58]]
    assert names_off == [*names_on[:54], "rename-exdev"]
    assert [group.name for group in PARITY if group.when is When.BY_NAME] == ["dir-weird-open-dir"]


def test_operations_by_kind_are_upstreams() -> None:
    total = Counter(operation.word for operation in operations(ON))
    failing = Counter(operation.word for operation in operations(ON) if operation.fails)
    assert total.pop("size") == SIZES
    total["open-file"] -= MORE_OPENS[0]
    failing["open-file"] -= MORE_OPENS[1]
    assert {word: (total[word], failing[word]) for word in total} == OPERATIONS


def test_errnos_are_upstreams() -> None:
    expected = Counter(operation.fails for operation in operations(ON) if operation.fails)
    expected[ENOENT] -= MORE_OPENS[1]
    assert expected == ERRNOS
    assert [operation.word for operation in operations() if operation.fails == EXDEV] == ["rename"] * 4


# Declared well ------------------------------------------------------------------------------------


def test_families_have_names_of_their_own() -> None:
    families = [module.__name__.rpartition(".")[2] for module in MODULES]
    assert len(families) == len(set(families))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_labels_are_unique_and_the_dataset_suffices(group: Group) -> None:
    labels = Counter(group.labels)
    assert [label for label, count in labels.items() if count > 1] == []
    assert not any(sign in label for label in labels for sign in ("::", "[", "]")), "pytest could not find it by its id"
    assert group.sentence.endswith(".")
    assert group.trials or len(group.scenarios) <= group.sets() <= 30


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_name_lies_in_the_groups_directory(group: Group) -> None:
    for number in range(1, len(group.scenarios) + 1):
        for operation in group.operations(number, "elsewhere"):
            for name in operation.names():
                assert name == "elsewhere" or name.startswith("elsewhere/"), f"{group.name}:{number}"
                assert ".." not in name.split("/") and "//" not in name


@pytest.mark.parametrize("group", [group for group in PARITY if group.sets() == len(group.scenarios)])
def test_scenarios_keep_to_their_own_set(group: Group) -> None:
    for _, number in scenarios((group,)):
        own = str(FIRST_SET - 1 + number)
        for operation in group.operations(number):
            assert all(own in name or name == group.name for name in operation.names())


def test_each_scenario_says_where_it_is_declared() -> None:
    files = {group.scenarios[number - 1].origin.partition(":")[0] for group, number in scenarios(GROUPS)}
    assert files <= {path.name for path in DECLARATIONS.rglob("*.py")}


def test_every_successful_read_of_a_file_compares_the_content() -> None:
    unread = {
        group.name
        for group, number in scenarios()
        for operation in group.operations(number)
        if isinstance(operation, OpenFile)
        and not (operation.fails or operation.flags & DIRECTORY or operation.writes is not None)
        and operation.reads is None
    }
    # Directories opened without O_DIRECTORY: there is nothing to read.
    assert unread == {f"dir-{kind}" for kind in DIRECTORY_GROUPS}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("mkdir:2", ["mkdir ~foo101 EEXIST", "mkdir ~foo101 EEXIST", "open-file foo101"]),
        (
            "rename-exdev:2",
            ["rename ~empty101 dir101/empty EXDEV", "open-file dir101/empty ENOENT", "open-file ~empty101"],
        ),
        ("rename-mass:2", [f"unlink foo{n}" for n in (103, 104, 105, 106)]),
        ("rename-file:10", ["rename ~foo109 rename-file ENOTEMPTY", "open-file ~foo109"]),
        ("rmtree-new:1", ["mkdir dir100/b", "rmtree ~dir100"]),
        (
            "rename-file:3",
            [
                "rename ~foo102 ~no_foo102",
                "rmdir ~foo102 ENOENT",
                "rename ~no_foo102 ~foo102",
                "rename ~no_foo102 ~foo102 ENOENT",
                "open-file ~foo102",
                "rmdir ~foo102 ENOTDIR",
                "open-file ~foo102",
                "open-file ~no_foo102 ENOENT",
            ],
        ),
        (
            "rename-new-pop-dir:2",
            [
                "mkdir ~dir101-new",
                "open-file dir101-new/a",
                "rename ~dir101-new ~no_dir101",
                "rmdir ~dir101-new ENOENT",
                "rename ~no_dir101 ~dir101-new",
                "rename ~no_dir101 ~dir101-new ENOENT",
                "open-file ~dir101-new",
                "rmdir ~dir101-new ENOTEMPTY",
                "open-file ~dir101-new",
                "open-file ~no_dir101 ENOENT",
                "open-file dir101-new/a",
            ],
        ),
        (
            "rename-empty-dir:4",
            [
                "rmdir ~empty103",
                "rename ~empty103 ~no_dir103 ENOENT",
                "rmdir ~empty103 ENOENT",
                "rmdir ~no_dir103 ENOENT",
            ],
        ),
    ],
)
def test_samples_read_as_upstreams(selector: str, expected: list[str]) -> None:
    assert lines(selector) == expected


def test_only_the_two_renames_of_a_subdirectory_go_without_a_remount() -> None:
    uncycled = [
        f"{group.name}:{number}"
        for group, number in scenarios()
        for operation in group.operations(number)
        if isinstance(operation, Rename) and not operation.cycle
    ]
    assert uncycled == ["rename-move-dir:6", "rename-move-dir:7"]


def test_contents_follow_what_is_written() -> None:
    seen = [operation.reads for operation in opens("open-plain", 1, 2, 3) if operation.writes is None]
    assert seen == [C0, C0, b"qxxx:yyy:zzz", b"pxxx:yyy:zzz", C0 + b"q", C0 + b"qp"]


def test_second_create_truncates_when_write_only() -> None:
    seen = [operation.reads for operation in opens("noent-creat-trunc", 2, 3, 4, 5) if operation.writes is None]
    assert seen == [b"q", b"p", b"q", b"qp", b"q", b"p", b"q", b"qp"]


def opens(name: str, *numbers: int) -> Iterator[OpenFile]:
    """The opens of some scenarios of a group."""
    for number in numbers:
        for operation in by_name(name).operations(number):
            assert isinstance(operation, OpenFile)
            yield operation


def test_rings_end_with_the_gap_where_upstream_has_it() -> None:
    held: dict[str, str | None] = {f"rename-mass-3/foo{n}": f"foo{n}" for n in range(100, 107)}
    for operation in by_name("rename-mass-3").operations(1):
        assert isinstance(operation, Rename)
        held[operation.to], held[operation.path] = held[operation.path], None
    assert list(held.values()) == ["foo102", "foo103", "foo104", None, "foo105", "foo100", "foo101"]


def test_children_of_renamed_directories_are_read() -> None:
    *_, child = by_name("rename-dir").operations(2)
    assert isinstance(child, OpenFile)
    assert (child.path, child.reads) == ("rename-dir/empty101/pop/b", C1)


# The page -----------------------------------------------------------------------------------------


def test_parity_page_is_current() -> None:
    assert PAGE.read_text() == render(), "python -m tests.union.parity_table > docs/parity.md"


def test_parity_page_maps_every_subtest_that_can_be_reached() -> None:
    mapped = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    subtests = [(name, number) for name, count, _ in UPSTREAM for number in range(1, count + 1)]
    assert len(subtests) == 373
    assert mapped == [[f" `{name}` {number} ", f" `{name}:{number}` "] for name, number in subtests]


# Selection ----------------------------------------------------------------------------------------


def picked(words: list[str], among: tuple[Group, ...] = GROUPS) -> list[tuple[str, tuple[int, ...]]]:
    """What `select` gives, with names for groups."""
    return [(group.name, numbers) for group, numbers in select(words, among)]


def test_a_name_picks_all_its_scenarios_and_may_repeat() -> None:
    words = ["rmtree", "mkdir", "rmtree"]
    assert picked(words) == [("rmtree", (1,)), ("mkdir", tuple(range(1, 12))), ("rmtree", (1,))]


def test_a_number_picks_one_scenario() -> None:
    assert picked(["rename-file:3"]) == [("rename-file", (3,))]
    assert picked(["rename-new-pop-dir:19"]) == [("rename-new-pop-dir", (19,))]


def test_a_number_brings_what_it_builds_on() -> None:
    assert picked(["rename-mass-dir:4"]) == [("rename-mass-dir", (1, 2, 3, 4))]


def test_a_glob_picks_the_groups_of_the_run() -> None:
    names = [name for name, _ in picked(["rename-*dir"], ON)]
    assert names == [
        *("rename-new-dir", "rename-new-pop-dir", "rename-mass-dir", "rename-dir"),
        *("rename-empty-dir", "rename-pop-dir", "rename-move-dir"),
    ]
    assert [name for name, _ in picked(["rename-*dir"], OFF)] == names[:3]
    assert picked(["*-dir:12"], ON) == [
        ("rename-new-dir", (12,)),
        ("rename-new-pop-dir", (12,)),
        ("rename-move-dir", (12,)),
    ]


def test_a_name_outside_the_default_list_can_be_picked() -> None:
    assert picked(["rename-exdev:1"], ON) == [("rename-exdev", (1,))]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rename-fil", "no group 'rename-fil'; did you mean rename-file or "),
        ("zzz", "no group 'zzz'"),
        ("", "no group ''"),
        ("zzz*", "no group of this run matches 'zzz*'"),
        ("rename-exd*", "no group of this run matches 'rename-exd*'; did you mean rename-exdev"),
        ("rename-file:11", "'rename-file:11': rename-file has no scenario above 10"),
        ("rename-file:0", "'rename-file:0': behind the colon goes the number of a scenario"),
        ("rename-file:", "'rename-file:': behind the colon goes the number of a scenario"),
        ("rename-file:two", "'rename-file:two': behind the colon goes the number of a scenario"),
        ("rename-*:90", "'rename-*:90': no group that matches has so many scenarios"),
    ],
)
def test_a_word_that_picks_nothing_is_an_error(word: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        select(["rmtree", word], ON)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
