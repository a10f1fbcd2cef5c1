# SPDX-License-Identifier: GPL-2.0-only
"""What the trials over hindered uppers use: obstacles are ones, and a migrator that fails, dies or hangs is told."""

from __future__ import annotations

import os
import select
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path

import pytest

from datasets.tree import Directory
from tests.harness.isolated import isolated, needs_mounts, needs_xfs, stand
from tests.mounts import hindered_uppers
from tests.mounts.hindered_uppers import Migrator, empty, fill, wrong
from tests.mounts.migrating import Bench
from union import quota, syscalls
from union.durability import Disk, Original
from union.errors import SetupError
from union.interruption import Step
from union.stand import attempt


def failing(root: int) -> None:
    raise OSError(EIO, "made up")


def dying(root: int) -> None:
    os._exit(1)


def hanging(root: int) -> None:
    select.select([os.pipe()[0]], [], [])


def nothing(root: int) -> None:
    """A step that succeeds."""


def test_a_listing_may_never_fail_and_other_steps_only_as_they_may() -> None:
    taken: list[Step] = [("copy up a", nothing), ("copy up b", nothing), ("list a", nothing)]
    assert wrong(taken, [0, ENOSPC, 0], (ENOSPC,)) == []
    assert wrong(taken, [EIO, ENOSPC, ENOSPC], (ENOSPC,)) == ["copy up a: EIO", "list a: ENOSPC"]


@needs_xfs
@pytest.mark.parametrize(("fstype", "features"), [("xfs", ()), ("ext4", hindered_uppers.FEW)])
@isolated
def test_a_full_upper_takes_neither_an_inode_nor_a_block_until_it_is_emptied(
    fstype: str, features: tuple[str, ...]
) -> None:
    with stand() as made:
        layer = made.filesystem("x", fstype, Directory(), features)
        bench = Bench(made, "", layer, layer, Disk(0, {}), Original({}, {}, {}), frozenset())
        Path(made.path("x/file")).touch()
        for end, error in ((fill, ENOSPC), (empty, 0)):
            end(bench)
            assert attempt(os.mkdir, made.path("x/new")) == error
            with open(made.path("x/file"), "r+b") as file:
                assert attempt(os.posix_fallocate, file.fileno(), 0, 4096) == error


@needs_xfs
@isolated
def test_a_migrator_waits_for_the_thaw_and_goes_on() -> None:
    with stand() as made:
        made.filesystem("x", "xfs")
        taken: list[Step] = [("copy up a", nothing), ("copy up b", lambda root: os.mkdir("new", dir_fd=root))]
        root = made.opened("x", os.O_RDONLY)
        syscalls.freeze(made.path("x"))
        migrator = Migrator(root, taken)
        try:
            assert migrator.waits()
            assert migrator.at() == "copy up b"
        finally:
            syscalls.thaw(made.path("x"))
        assert migrator.ends() == []
        assert os.listdir(made.path("x")) == ["new"]


@needs_mounts
@isolated
def test_a_migrator_that_fails_dies_or_hangs_is_told() -> None:
    hindered_uppers.PATIENCE = 0.5  # type: ignore[misc] # in a process of our own
    for step, wanted in (
        (nothing, []),
        (failing, ["copy up b: EIO"]),
        (dying, ["the migrator died at copy up b"]),
        (hanging, ["the migrator hangs after the thaw, at copy up b"]),
    ):
        migrator = Migrator(0, [("copy up a", nothing), ("copy up b", step)])
        if step is not hanging:
            assert not migrator.waits()
        assert migrator.ends() == wanted


@needs_xfs
@isolated
def test_a_project_gets_no_more_than_its_quota() -> None:
    with stand() as made:
        try:
            layer = made.filesystem("x", "xfs", Directory({"d": Directory()}), options="prjquota")
        except SetupError as error:
            pytest.skip(f"no quota: {error}")
        top = made.path("x/d")
        quota.set_project(top, 7)
        os.mkdir(f"{top}/one")
        used = quota.usage(str(layer.root), quota.PROJECT, 7)
        assert used.inodes == 2
        quota.limit(str(layer.root), quota.PROJECT, 7, used.size, used.inodes)
        assert attempt(os.mkdir, f"{top}/two") in (EDQUOT, ENOSPC)
        quota.limit(str(layer.root), quota.PROJECT, 7, 0, 0)
        assert attempt(os.mkdir, f"{top}/two") == 0
