# SPDX-License-Identifier: GPL-2.0-only
"""What the judge lets pass in some unions only: each allowance ends where it should."""

from __future__ import annotations

import pytest

from datasets.tree import Directory, File, HardLink
from tests.harness.test_judge import LOWER, UNION, UPPER, S, StagedWitness, staged
from union.inodes import Inode
from union.judge import DeviceRule, Judge
from union.model import Model
from union.names import Name
from union.operations import Result, W, open_file, shows


def inode_of(model: Model, path: str) -> Inode:
    place = model.find(path)
    assert place is not None and place.inode is not None
    return place.inode


def listing_with_another_parent(judge: Judge, path: str) -> list[str]:
    """What is said of a directory whose `..` has another number than its parent."""
    witness = judge.witness
    entries = witness.listing(path)
    witness.staged_listing[path] = [  # type: ignore[attr-defined]
        entry._replace(ino=1) if entry.name == ".." else entry for entry in entries
    ]
    return judge.listing(path)


@pytest.mark.parametrize(
    ("index_all", "copied_up", "more", "fine"),
    [(True, True, 1, True), (True, True, 2, False), (True, False, 1, False), (False, True, 1, False)],
)
def test_an_index_entry_may_count_as_one_link_where_everything_is_indexed(
    index_all: bool, copied_up: bool, more: int, fine: bool
) -> None:
    judge, witness = staged(*([open_file(S.reg, W)] if copied_up else []))
    judge.model.index_all = index_all
    witness.staged[S.reg] = witness.true(S.reg, nlink=1 + more)
    assert any("links instead of 1" in line for line in judge.names([S.reg])) != fine


@pytest.mark.parametrize(
    ("index_all", "copied_up", "given", "fine"),
    [
        (True, True, "f 0644 1:1 x2 12", True),
        (True, True, "f 0644 1:1 x1 12", True),
        (True, True, "f 0644 1:1 x3 12", False),
        (True, True, "f 0600 1:1 x2 12", False),
        (True, False, "f 0644 1:1 x2 12", False),
        (False, True, "f 0644 1:1 x2 12", False),
    ],
)
def test_an_operation_may_show_one_link_more_where_everything_is_indexed(
    index_all: bool, copied_up: bool, given: str, fine: bool
) -> None:
    judge, _ = staged(*([open_file(S.reg, W)] if copied_up else []))
    judge.model.index_all = index_all
    looks = shows(S.reg, "f 0644 1:1 x1 12")
    assert judge.agrees(looks, Result(0, "f 0644 1:1 x1 12"), Result(0, given)) == fine
    assert not judge.agrees(looks, Result(0, "f 0644 1:1 x1 12"), Result(5, None))


@pytest.mark.parametrize(
    ("origins", "copied_up", "fine"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_only_a_copied_up_object_without_an_origin_may_get_another_number(
    origins: bool, copied_up: bool, fine: bool
) -> None:
    judge, witness = staged(*([open_file(S.reg, W)] if copied_up else []))
    judge.origins = origins
    witness.numbers[inode_of(judge.model, S.reg)] = 77
    assert any("became" in line for line in judge.names([S.reg])) != fine


@pytest.mark.parametrize(
    ("namespace", "path", "fine"), [("user", S.sym, True), ("user", S.reg, False), ("trusted", S.sym, False)]
)
def test_with_user_xattrs_only_what_can_hold_none_has_no_origin(namespace: str, path: str, fine: bool) -> None:
    judge, witness = staged()
    witness.namespace = namespace
    inode = inode_of(judge.model, path)
    inode.in_upper = True
    witness.numbers[inode] = 77
    assert any(line.startswith(f"{path}: inode") for line in judge.names([path])) != fine


def test_a_parent_has_its_own_number_but_in_a_directory_that_is_not_in_upper_after_a_rotation() -> None:
    judge, _ = staged()
    assert any("/..: d_ino" in line for line in listing_with_another_parent(judge, S.dir))
    judge.remounted(judge.devices, "", rotated=True)
    assert judge.tree("top") == [] and listing_with_another_parent(judge, S.dir) == []
    inode_of(judge.model, S.dir).in_upper = True
    assert any("/..: d_ino" in line for line in listing_with_another_parent(judge, S.dir))


@pytest.mark.parametrize(
    ("renumbers", "linked", "in_upper", "fine"),
    [(True, True, False, True), (False, True, False, False), (True, False, False, False), (True, True, True, False)],
)
def test_a_name_in_lower_of_an_object_that_is_in_upper_may_keep_its_number_in_a_listing(
    renumbers: bool, linked: bool, in_upper: bool, fine: bool
) -> None:
    model = Model(Directory({"d": Directory({"a": File()}), "b": HardLink("d/a")}), indexed=True, renumbers=renumbers)
    witness = StagedWitness(model)
    judge = Judge(model, witness, DeviceRule(True, UNION, frozenset()), renumbers=renumbers)
    assert judge.tree() == []
    if linked:
        model.apply(open_file(Name("b"), W))
    assert judge.names(["b"]) == []
    inode_of(model, "d").in_upper = in_upper
    witness.staged_listing["d"] = [entry._replace(ino=77) for entry in witness.listing("d") if entry.name == "a"]
    assert any("d/a: d_ino 77" in line for line in judge.listing("d")) != fine


@pytest.mark.parametrize(
    ("free", "is_directory", "fine"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_only_a_non_directory_over_a_nested_lower_may_have_any_device(
    free: bool, is_directory: bool, fine: bool
) -> None:
    rule = DeviceRule(False, UNION, frozenset({LOWER, UPPER}), free=free)
    assert (not list(rule.complaints("x", is_directory, LOWER))) == fine
