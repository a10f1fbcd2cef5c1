# SPDX-License-Identifier: GPL-2.0-only
"""Migrations of any tree that are interrupted anywhere: nothing is lost, and they can be resumed (D12)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.strategies import OPTIONS, stacks
from datasets.tree import Directory, File
from tests.random.reproducer import held
from tests.union_server import Here
from union import interruption, migrate
from union.interruption import HOWS, How, Interrupted

TREE = (Directory({"a": File(b"lower"), "d": Directory({"e": File(b"x" * 5000)})}),)
MIXES = tuple(options for options in OPTIONS if not {"userxattr", "volatile"} & set(dict(options)))

interruptions = st.builds(
    Interrupted, stacks(), st.integers(0, 30), st.sampled_from(HOWS), st.booleans(), st.sampled_from(MIXES)
)


@given(one=interruptions)
def test_an_interrupted_migration_is_whole_and_can_be_resumed(one: Interrupted) -> None:
    held(one)


# What must not hold.


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """The running kernel, on unions that never detach."""
    if os.geteuid() != 0:
        pytest.skip("mounting on the running kernel needs root")
    monkeypatch.setattr(interruption, "XINO", ("xino", "on"))
    place = Here()
    yield place
    place.close()


@pytest.mark.parametrize("how", HOWS)
def test_a_union_that_never_detaches_is_found_out(here: Here, how: How) -> None:
    played = here.play(Interrupted(TREE, 3, how))
    assert "D12: resumed, t/d: still merged with the lower layer after listing" in played.complaints
    assert any("behind the fence" in line for line in played.complaints)
    assert played.steps[:3] == ("copy up t", "copy up t/a", "copy up t/d")


@pytest.mark.parametrize("how", HOWS)
def test_a_migration_that_loses_a_file_is_found_out(here: Here, how: How, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "copy_up", _losing("t/a"))
    [complaint] = here.play(Interrupted(TREE, 3, how)).complaints
    assert complaint.startswith("D12: after it was interrupted: t/a: missing instead of ")


def _losing(lost: str) -> Callable[..., None]:
    def copy_up(path: str, kind: int, root_fd: int) -> None:
        real(path, kind, root_fd)
        if path == lost:
            os.unlink(path, dir_fd=root_fd)
            os.sync()  # or a power cut brought it back

    real = migrate.copy_up
    return copy_up


def test_a_tree_with_a_directory_that_is_not_copied_is_found_out(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate._Migrator, "_copy_up", lambda *_: None)
    complaints = here.play(Interrupted(TREE, 2, "power")).complaints
    assert any("objects are in upper" in line for line in complaints)


def test_a_full_upper_takes_no_copy(here: Here) -> None:
    steps = here.play(Interrupted(TREE, 3, "full")).steps
    assert steps[3:] == ("upper is full", "copy up t/d/e: No space left on device")


def test_a_listing_that_a_full_upper_makes_fail_is_found_out(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(name: str) -> Callable[[int], object]:
        def work(root: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

        return work

    monkeypatch.setattr(interruption, "_list", no_room)
    complaints = here.play(Interrupted(TREE, 3, "full")).complaints
    assert any(line.startswith("D12, D15: list t/d, with a full upper: ") for line in complaints)
