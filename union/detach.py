# SPDX-License-Identifier: GPL-2.0-only
"""Migrate, fence, and look at the whole union at each step: what the contract says must hold.

A must that does not hold is a failed check; what may differ between implementations is evidence only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace

from report.events import Checked, Evidence, Listener
from union import migrate, syscalls
from union.configuration import EVERYTHING, Configuration
from union.fence import XfsShutdown
from union.inodes import DirectoryInode
from union.judge import Judge, Look
from union.layers import LOWER_NAME, tmpfs
from union.migrate import Migration
from union.overlay import Overlay

MISSING = ".never-there"  # a name that no layer has


def detach(configuration: Configuration, overlay: Overlay, judge: Judge, tell: Listener) -> None:
    """Take the union from its first mount to the fenced lower, as `configuration` says.

    Tells checks and evidence; raises SetupError when the fence cannot be raised or does not bite.
    """
    option = overlay.effective_options().get("xino")
    wrong = () if option == configuration.xino else (f"xino={configuration.xino} was asked for, {option} is shown",)
    tell(Checked("D1", f"the mount shows xino={configuration.xino}", wrong))
    tell(Checked("D2", "before copy-up the union shows the lower tree", tuple(judge.tree(look=Look.GLANCE))))
    if configuration.migrate != "none":
        _migrate(configuration, overlay, judge, tell)
    if configuration.fence:
        _fence(overlay, judge, tell)


def _migrate(configuration: Configuration, overlay: Overlay, judge: Judge, tell: Listener) -> None:
    union, upper = overlay.stack.mountpoint, overlay.stack.upperdir
    if configuration.migrate == "mail":
        migration = migrate.mail(union, upper)
    else:
        migration = migrate.dfs(union, upper, **_left(configuration, judge))
    judge.model.copy_up_all((0, 0) if configuration.migrate == "mail" else None)
    judge.model.detach()
    tell(Evidence("migration", migration.describe()))
    tell(Evidence("directories opaque", f"{migration.opaque} of {migration.directories}"))
    tell(Evidence("objects in upper", f"{migration.in_upper} of {migration.objects}"))
    if not (configuration.leave_uncopied or configuration.leave_unlisted):
        tell(Checked("D4, D5", "every directory is opaque, everything is in upper", tuple(_unmigrated(migration))))
        tell(Checked("D3, D7", "the migrated union shows the same tree", tuple(judge.tree(look=Look.GLANCE))))


def _left(configuration: Configuration, judge: Judge) -> dict[str, frozenset[str]]:
    """What a control leaves out of the migration."""
    unlisted = frozenset(filter(None, [configuration.leave_unlisted]))
    if configuration.leave_unlisted == EVERYTHING:
        directories = (path for path, inode in judge.model.walk() if isinstance(inode, DirectoryInode))
        unlisted = frozenset(path or migrate.ROOT for path in directories)
    return {"skip_copy": frozenset(filter(None, [configuration.leave_uncopied])), "skip_listing": unlisted}


def _unmigrated(migration: Migration) -> Iterator[str]:
    """Leftovers that a must forbids; where the root keeps its mark is the implementation's affair (D11)."""
    for leftover in migration.leftovers:
        if leftover.path != migrate.ROOT:
            yield f"{leftover.path}: {leftover.reason}"


def _fence(overlay: Overlay, judge: Judge, tell: Listener) -> None:
    fence = XfsShutdown(overlay.stack.lower)
    fence.fence()
    tell(Evidence("fence", fence.self_test()))
    tell(Checked("D9", "no EIO with warm caches", tuple(_missing_names(judge))))
    syscalls.drop_caches()
    # The migration has counted what is in upper.
    complaints = (*judge.tree(look=Look.CONTENT), *_missing_names(judge))
    tell(Checked("D2, D3, D9", "no EIO and the same inode numbers with cold caches", complaints))


def over_empty_lower(overlay: Overlay, judge: Judge, skip: Collection[str], tell: Listener) -> None:
    """Mount the unmounted `overlay` once more, over a lower that holds nothing: the same tree must appear (D11)."""
    with ExitStack() as stack:
        at = overlay.stack.scratch / "nothing"
        at.mkdir()
        stack.callback(at.rmdir)
        nothing = tmpfs(stack, at, LOWER_NAME)
        again = Overlay(replace(overlay.stack, lower=nothing), overlay.options)
        with again.mounted():
            judge.remounted(os.stat(again.stack.mountpoint).st_dev)
            complaints = tuple(judge.tree(look=Look.LISTED, skip=skip))
    tell(Checked("D2, D11", "mounted over an empty lower the same tree and inode numbers appear", complaints))


def _missing_names(judge: Judge) -> Iterator[str]:
    """Look up a missing name in every directory: that must not reach the lower (D9)."""
    for path, inode in judge.model.walk():
        if not isinstance(inode, DirectoryInode):
            continue
        try:
            os.lstat(f"{judge.witness.root}/{path}/{MISSING}")
        except FileNotFoundError:
            continue
        except OSError as error:
            yield f"{path or '/'}: looking up a missing name gives {errno.errorcode.get(error.errno or 0, error.errno)}"
        else:
            yield f"{path or '/'}: a name that no layer has is found"
