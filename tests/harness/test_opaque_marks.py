# SPDX-License-Identifier: GPL-2.0-only
"""What the trials of listings over an upper that cannot be marked complain about (D15)."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable

import pytest

from datasets.tree import Directory, File
from tests.harness.isolated import isolated, needs_mounts, stand
from tests.mounts import opaque_marks
from tests.mounts.opaque_marks import FULL, LISTED, all_list, read_only
from union.stand import attempt

TREE = Directory({"d": Directory({"f": File(), "g": File(), "s": Directory()})})
names = opaque_marks.names


def lacking(path: str, size: int) -> list[str]:
    """A listing in pieces that lacks a name."""
    found = names(path, size)
    return found if size > opaque_marks.PIECE else found[1:]


def refused(path: str, size: int) -> list[str]:
    """A listing that fails for whom the marking is not allowed."""
    if os.geteuid():
        raise PermissionError(errno.EPERM, "made up", path)
    return names(path, size)


def stuck(path: str, size: int) -> list[str]:
    """A listing that waits for what never comes."""
    select.select([os.pipe()[0]], [], [])
    return []


@needs_mounts
@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        (names, {}),
        (lacking, {"root: step 2: ['..', 'f', 'g', 's'] instead of", "another user: step 2: ['..', 'f', 'g', 's']"}),
        (refused, {"another user: step 1: [Errno 1] made up"}),
        (stuck, {"root: hangs: after 0.5 s it is still at step 1", "another user: hangs: after 0.5 s"}),
    ],
)
@isolated
def test_a_listing_that_lacks_something_fails_or_hangs_is_a_complaint(
    way: Callable[[str, int], list[str]], wanted: set[str]
) -> None:
    vars(opaque_marks).update(names=way, PATIENCE=0.5)  # in a process of our own
    with stand() as made:
        made.layers(l=TREE)
        all_list(made, made.path("l/d"))
        assert len(made.complaints) == len(wanted), made.complaints
        assert all(any(line.startswith(start) for line in made.complaints) for start in wanted), made.complaints


@needs_mounts
@isolated
def test_obstacles_keep_upper_from_being_marked_and_go_away() -> None:
    with stand() as made:
        made.filesystem("up", "tmpfs", Directory({"u": TREE, "w": Directory()}))
        top = made.path("up/u/d")
        for obstacle, number in ((FULL, errno.ENOSPC), (read_only("up"), errno.EROFS)):
            obstacle.begin(made)
            assert attempt(os.setxattr, top, "trusted.mark", b"y") == number
            assert names(top) == LISTED
            obstacle.end(made)
            assert attempt(os.setxattr, top, "trusted.mark", b"y") == 0
            os.removexattr(top, "trusted.mark")
