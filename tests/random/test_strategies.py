# SPDX-License-Identifier: GPL-2.0-only
"""What hypothesis draws from: all that an upper layer may have from the start does turn up, and is described."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from datasets.layers import METACOPY, OPAQUE, REDIRECT, populated
from datasets.strategies import OPTIONS, stacks, trees
from datasets.tree import Directory, File, HardLink, Special, Symlink, Whiteout, walk
from tests.random.operations import mixed, model_of
from union.example import TOP, Example
from union.inodes import DirectoryInode

ENOUGH = settings(max_examples=20_000, suppress_health_check=list(HealthCheck), phases=[Phase.generate], deadline=None)
MARKS = {OPAQUE: "an opaque directory", REDIRECT: "a moved directory", METACOPY: "metadata alone"}


@pytest.mark.parametrize("mark", MARKS, ids=MARKS.values())
def test_an_upper_layer_may_have(mark: str) -> None:
    def has(one: Example) -> bool:
        nodes = [node for _, node in walk(one.upper or Directory())]
        return any(isinstance(node, File | Directory) and mark in node.xattrs for node in nodes)

    assert find(mixed(most=0), has, settings=ENOUGH)


def test_an_upper_layer_may_have_a_whiteout() -> None:
    find(mixed(most=0), lambda one: any(isinstance(node, Whiteout) for _, node in walk(one.upper or Directory())),
         settings=ENOUGH)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=lambda mix: ",".join("=".join(one) for one in mix) or "none")
def test_each_mix_of_options_turns_up(options: tuple[tuple[str, str], ...]) -> None:
    find(mixed(most=0), lambda one: one.options == options, settings=ENOUGH)


@pytest.mark.parametrize("kind", [File, Directory, Symlink, Special, HardLink])
def test_each_kind_of_object_turns_up(kind: type) -> None:
    find(trees(depth=6), lambda tree: any(isinstance(node, kind) for _, node in walk(tree)), settings=ENOUGH)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_number_of_layers_turns_up(count: int) -> None:
    find(stacks(), lambda layers: len(layers) == count, settings=ENOUGH)


def test_a_tree_of_six_levels_turns_up() -> None:
    find(trees(depth=6), lambda tree: any(path.count("/") == 5 for path, _ in walk(tree)), settings=ENOUGH)


@given(one=mixed(most=0))
def test_the_model_knows_what_is_in_upper(one: Example) -> None:
    """By another way than the model's own: name by name, in the tree of the upper layer."""
    model = model_of(one)
    upper = Directory({TOP: one.upper}) if one.upper else Directory()
    held = {path for path, node in walk(upper) if not isinstance(node, Whiteout)}
    found = {path for path, place in model.places(TOP) if place.in_upper}
    assert found == held


def test_what_is_below_a_directory_of_the_upper_layer() -> None:
    lower = Directory({"d": Directory({"a": File(b"1")}), "e": Directory({"b": File(b"2")}), "f": Directory()})
    upper = Directory({
        "d": Directory({"c": File()}),
        "e": Whiteout(),
        "g": Directory({"n": File()}, xattrs={REDIRECT: b"e"}),
        "f": Directory({"h": File()}, xattrs={OPAQUE: b"y"}),
    })  # fmt: skip
    shown = populated(upper, [lower])
    below = {name: node.below for name, node in shown.entries.items() if isinstance(node, Directory)}
    assert below == {"d": lower.entries["d"], "g": lower.entries["e"], "f": None}
    entries = {name: set(node.entries) for name, node in shown.entries.items() if isinstance(node, Directory)}
    assert entries == {"d": {"a", "c"}, "g": {"b", "n"}, "f": {"h"}}
    assert shown.below == lower


def test_the_model_merges_what_is_below() -> None:
    one = Example((Directory({"d": Directory({"a": File(b"1")})}),), upper=Directory({"d": Directory()}))
    place = model_of(one).find(f"{TOP}/d")
    assert place and isinstance(place.inode, DirectoryInode) and place.inode.lower
    assert set(place.inode.lower.entries) == {"a"} and place.inode.in_upper
