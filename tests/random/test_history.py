# SPDX-License-Identifier: GPL-2.0-only
"""Histories that somebody chose: what the model says of coverage, and what must not pass when one is played."""

from __future__ import annotations

import os

import pytest

from datasets.tree import Directory, File, HardLink, Node, Symlink
from tests.random.places import Place
from tests.union_server import Here
from union import replay
from union.coverage import is_detached, list_whole, uncovered
from union.example import TOP
from union.history import (
    DropCaches,
    Fence,
    Forge,
    History,
    ListAll,
    ListAround,
    ListRest,
    ListStart,
    Migrate,
    Remount,
    Step,
    foresee,
)
from union.inodes import DirectoryInode
from union.model import Model
from union.namecalls import Cookie
from union.names import Name
from union.operations import ListDirectory, MakeDirectory, OpenFile, Rename, RenameFlags, SetXattr, Unlink, W

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
FILE = File(b"lower")
DEEP = Directory({"d": Directory({"e": Directory({"f": FILE})})})


def name(path: str) -> Name:
    return Name(f"{TOP}/{path}")


def whole(path: str) -> ListDirectory:
    return ListDirectory(path=Name(path))


def copy_up(path: str) -> OpenFile:
    return OpenFile(path=name(path), flags=W)


def after(*steps: Step, lower: Node = DEEP, options: tuple[tuple[str, str], ...] = ()) -> Model:
    """The model of a union of one lower layer after these steps."""
    assert isinstance(lower, Directory)
    model = History((lower,), options=options).model()
    for step in steps:
        foresee(model, step)
    return model


def directory(model: Model, path: str) -> DirectoryInode:
    place = model.find(path)
    assert place is not None and isinstance(place.inode, DirectoryInode)
    return place.inode


def opaque(model: Model) -> set[str]:
    return {path for path, inode in model.walk() if isinstance(inode, DirectoryInode) and inode.opaque}


# What the model says.


def test_a_directory_turns_opaque_when_it_is_listed_and_all_in_it_is_covered() -> None:
    assert opaque(after(copy_up("d/e/f"))) == opaque(after(whole("t/d/e"))) == set()
    assert opaque(after(copy_up("d/e/f"), whole("t/d/e"))) == {"t/d/e"}
    assert opaque(after(copy_up("d/e/f"), whole("t/d"), whole("t/d/e"))) == {"t/d/e"}
    model = after(copy_up("d/e/f"), whole("t/d/e"), whole("t/d"), whole("t"), whole(""))
    assert opaque(model) == {"", "t", "t/d", "t/d/e"} and is_detached(model)


def test_from_the_root_down_one_level_turns_opaque_at_a_time() -> None:
    steps: list[Step] = [copy_up("d/e/f")]
    for count in range(1, 5):
        assert len(opaque(after(*steps))) == count - 1
        steps.append(ListAll())
    assert is_detached(after(*steps)) and not is_detached(after(*steps[:-1]))


def test_one_name_that_is_not_covered_keeps_all_above_it_merged() -> None:
    tree = Directory({"d": Directory({"e": Directory({"f": FILE, "g": FILE})}), "x": FILE})
    steps = [copy_up("d/e/f"), copy_up("x"), *(whole(path) for path in ("t/d/e", "t/d", "t", ""))]
    model = after(*steps, lower=tree)
    assert opaque(model) == set() and list(uncovered(directory(model, "t/d/e"))) == ["g"]
    assert opaque(after(Unlink(path=name("d/e/g")), *steps, lower=tree)) == {"", "t", "t/d", "t/d/e"}


def test_each_name_of_a_hard_link_is_to_be_covered_even_with_an_index() -> None:
    tree = Directory({"a": FILE, "b": HardLink("a")})
    for options in ((), (("index", "on"),)):
        assert opaque(after(copy_up("a"), whole("t"), lower=tree, options=options)) == set()
        assert opaque(after(copy_up("a"), copy_up("b"), whole("t"), lower=tree, options=options)) == {"t"}


def test_a_part_of_a_listing_covers_nothing_and_neither_does_another_xino() -> None:
    for step in (ListStart("t/d/e", 9), ListRest("t/d/e", 0), ListAround("t/d/e", 1, Unlink(path=name("x")))):
        assert opaque(after(copy_up("d/e/f"), step)) == set()
    model = History((DEEP,), xino="on").model()
    for path in ("t/d/e/f", "t/d/e"):
        foresee(model, OpenFile(path=Name(path), flags=W) if path.endswith("f") else whole(path))
    assert opaque(model) == set()


def test_after_a_remount_the_root_alone_is_to_be_listed_again() -> None:
    model = after(Migrate(), Remount())
    assert opaque(model) == {"t", "t/d", "t/d/e"} and not is_detached(model)
    list_whole(model, model.root)
    assert is_detached(model)


def test_after_a_rotation_everything_is_in_a_lower_again() -> None:
    model = after(Migrate(), Remount(rotates=True))
    assert opaque(model) == set() and list(uncovered(model.root)) == ["t"]
    foresee(model, Migrate())
    assert is_detached(model)


def test_what_needs_its_lower_is_not_moved_to_where_none_is() -> None:
    tree = Directory({"d": Directory({"e": Directory()}), "n": Directory()})
    steps = (MakeDirectory(path=name("new")), Rename(path=name("d"), to=name("new/d")))
    assert after(*steps, lower=tree).find(name("new/d")).inode is None  # type: ignore[union-attr]
    assert after(Migrate(), *steps, lower=tree).find(name("new/d/e"))
    exchange = RenameFlags(path=name("new/x"), to=name("d"), flags=2)
    model = after(steps[0], MakeDirectory(path=name("new/x")), exchange, lower=tree)
    assert model.find(name("d/e")) is not None
    within = after(Rename(path=name("d"), to=name("m")), lower=tree)
    assert within.find(name("m/e")) is not None, "in its own directory it can be moved"


# What a kernel does.


def test_what_holds(place: Place) -> None:
    steps = (
        copy_up("d/e/f"), DropCaches(), ListStart("t/d", 2), ListRest("t/d", 1), whole("t/d/e"), Remount(),
        ListAround("t/d", 1, Unlink(path=name("d/e/f"))), ListAll(), Remount(rotates=True),
        SetXattr(path=name("d"), key="trusted.b", value=b"1"), Migrate(), Remount(), whole(""), Fence(),
        MakeDirectory(path=name("d/e/f")), DropCaches(), ListAll(),
    )  # fmt: skip
    played = place.play(History((DEEP,), steps))
    assert not played.complaints and "- fence" in played.steps and played.operations == 6, played


def test_an_object_that_was_replaced_below_a_symlink_may_get_another_number_by_a_rotation(place: Place) -> None:
    tree = Directory({"d": Directory({"a": Symlink(".")}), "b": Symlink("a")})
    steps = (Remount(), Rename(path=name("b"), to=name("d/a/a")), Remount(rotates=True))
    played = place.play(History((tree,), steps))
    assert not played.complaints, played


def test_there_is_no_fence_as_long_as_something_needs_the_lower(place: Place) -> None:
    played = place.play(History((DEEP,), (copy_up("d/e/f"), ListAll(), ListAll(), ListAll(), Fence())))
    assert not played.complaints and played.steps[-1] == "- no fence: a lower is needed"


# What must not hold.


def test_a_fence_while_something_needs_the_lower_is_told(place: Place) -> None:
    played = place.play(History((DEEP,), (copy_up("d/e/f"), ListAll(), Fence(unready=True))))
    assert any("EIO" in line for line in played.complaints), played


NEEDED = "opaque although the lower is needed for"
MISSING = "not opaque although it was listed to its end with all names in it covered"


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ((SetXattr(path=name("d/e"), key="trusted.b", value=b""), Forge("t/d/e", True)), f"t/d/e: {NEEDED} f in it"),
        ((copy_up("d/e/f"), Forge("t/d", True)), f"t/d: {NEEDED} e in it"),
        ((copy_up("d/e/f"), Forge("t/d/e", True)), "t/d/e: opaque although it was not listed to its end"),
        ((copy_up("d/e/f"), Forge("", True)), f"/: {NEEDED} t in it"),
        ((copy_up("d/e/f"), whole("t/d/e"), Forge("t/d/e", False)), f"t/d/e: {MISSING}"),
        ((Migrate(), Remount(), Forge("t", False)), f"t: {MISSING}"),
    ],
)
def test_a_mark_that_must_not_be_there_or_is_missing_is_told(
    place: Place, steps: tuple[Step, ...], complaint: str
) -> None:
    played = place.play(History((DEEP,), steps))
    assert [line.partition(": ")[2] for line in played.complaints] == [
        f"only what needs no lower is opaque: {complaint}"
    ]


@needs_root
@pytest.mark.parametrize(
    ("step", "complaint"),
    [(ListRest("t", 1), "in two parts"), (ListAround("t", 1, Unlink(path=name("a"))), "while names change")],
)
@pytest.mark.parametrize(("more", "trouble"), [(-1, "is not listed"), (1, "once too often")])
def test_a_listing_in_parts_that_loses_or_repeats_a_name_is_told(
    monkeypatch: pytest.MonkeyPatch, step: Step, complaint: str, more: int, trouble: str
) -> None:
    real = replay._rest

    def rest(fd: int) -> list[Cookie]:
        entries = [entry for entry in real(fd) if entry.name != "b"]
        return [*entries, *[Cookie("b", 8, 0)] * (1 + more)]

    history = History((Directory({"a": FILE, "b": FILE, "c": FILE}),), (step,), xino="off")
    here = Here()
    assert not here.play(history).complaints
    here.close()
    monkeypatch.setattr(replay, "_rest", rest)
    [line] = here.play(history).complaints
    here.close()
    assert complaint in line and line.endswith(trouble)
