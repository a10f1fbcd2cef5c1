# SPDX-License-Identifier: GPL-2.0-only
"""An upper whose quota is used up at each step of a migration (D12). Most kernels built for guests have no quota."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EDQUOT, ENOSPC
from typing import Final

from datasets.tree import Directory
from tests.mounts import needs
from tests.mounts.hindered_uppers import wrong
from tests.mounts.migrating import LAYERS, NOFOLLOW, TREE, Bench, steps, used_before
from union import quota
from union.durability import Disk, Original
from union.errors import SetupError
from union.scenario import Group, Trial, When
from union.stand import Missing, Stand, attempt
from union.syscalls import without_capabilities

PROJECT: Final = 7  # a number of ours
EXCEEDED: Final = (EDQUOT, ENOSPC)  # XFS says the latter of a project


def used_up(stand: Stand, fstype: str, options: str, features: Sequence[str], kind: int, number: int) -> None:
    """At each step the id may have no more than it has: what fails does so as a whole, and works later."""
    needs.recent(LAYERS)
    lower = stand.filesystem("l", "xfs", TREE)
    try:
        upper = stand.filesystem("up", fstype, Directory({"u": Directory(), "w": Directory()}), features, options)
    except SetupError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise Missing(f"a kernel with quota for {fstype}: {options}: {error.__cause__.strerror}") from error
    if kind == quota.PROJECT:
        for name in ("up/u", "up/w"):
            quota.set_project(stand.path(name), number)
    with without_capabilities(quota.CAP_SYS_RESOURCE):  # the mounter's credentials copy up
        used_before(stand.mount(LAYERS.removesuffix(NOFOLLOW)))
        point = stand.again(LAYERS)
    bench = Bench(stand, LAYERS, lower, upper, Disk(0, {}), Original.of(point), frozenset())
    whole, failures = steps(bench.original, ""), 0
    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for at, (words, step) in enumerate(whole):
            used = quota.usage(str(upper.root), kind, number)
            quota.limit(str(upper.root), kind, number, used.size, used.inodes)
            got = [attempt(one, root) for _, one in whole[at:]]
            found = [*wrong(whole[at:], got, EXCEEDED), *bench.losses(point, None)]
            quota.limit(str(upper.root), kind, number, 0, 0)
            failures += sum(map(bool, got))
            stand.complaints += [f"used up before step {at + 1}, {words}: {line}" for line in found]
            step(root)
    finally:
        os.close(root)
    stand.complaints += bench.finished()
    stand.holds("some steps failed", failures > 0)
    stand.steps.append(f"used up before each of {len(whole)} steps: {failures} steps failed")


def trial(label: str, fstype: str, options: str, kind: int, number: int, features: Sequence[str] = ()) -> Trial:
    """Over an upper with these mount options and arguments of its mkfs."""
    return Trial(label, lambda stand: used_up(stand, fstype, options, features, kind, number))


GROUPS = (
    Group(
        "used-up-quota",
        "Migrate while the quota of upper is used up, at each step.",
        when=When.LONG,
        trials=(
            # The mounter makes most objects as root, to whom XFS applies no user's quota.
            trial("of a project on xfs", "xfs", "prjquota", quota.PROJECT, PROJECT),
            trial("of a project on ext4", "ext4", "prjquota", quota.PROJECT, PROJECT, ("-O", "quota,project")),
            trial("of root on tmpfs", "tmpfs", "usrquota", quota.USER, 0),
        ),
    ),
)
