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
from pathlib import Path

from report.events import Checked, Evidence, Listener
from union import fences, migrate, syscalls
from union.configuration import EVERYTHING, Configuration
from union.cycle import Cycler
from union.errors import SetupError
from union.fence import Fence
from union.filesystems import tmpfs
from union.inodes import DirectoryInode, LinkInode
from union.judge import Judge, Look
from union.layers import LOWER_NAME
from union.migrate import Migration
from union.names import Name
from union.operations import ChangeMode, Held
from union.overlay import Overlay
from union.witness import is_opaque

METACOPY = "trusted.overlay.metacopy"
_SHOWN = 3  # requests of one operation
MISSING = ".never-there"  # a name that no layer has


def detach(
    configuration: Configuration, overlay: Overlay, judge: Judge, cycler: Cycler, tell: Listener
) -> Fence | None:
    """Take the union from its first mount to the fenced lower, as `configuration` says; the fence, if there is one.

    Tells checks and evidence; raises SetupError when the fence cannot be raised or does not bite.
    """
    option = overlay.effective_options().get("xino")
    wrong = () if option == configuration.xino else (f"xino={configuration.xino} was asked for, {option} is shown",)
    tell(Checked("D1", f"the mount shows xino={configuration.xino}", wrong))
    tell(Checked("D2", "before copy-up the union shows the lower tree", tuple(judge.tree(look=Look.GLANCE))))
    if configuration.rotations:
        _spread(configuration.rotations, judge, cycler, tell)
    if configuration.migrate != "none":
        _migrate(configuration, overlay, judge, tell)
    if not configuration.fence:
        return None
    fence = fences.make(configuration.fence, overlay.stack.lower, in_process=configuration.in_process)
    _fence(fence, judge, tell)
    return fence


def _spread(rotations: int, judge: Judge, cycler: Cycler, tell: Listener) -> None:
    """Give each of the layers that will be lower ones a share of the objects, and rotate it down (D13)."""
    paths = [path for path, inode in judge.model.walk() if not isinstance(inode, LinkInode) and path]
    for turn in range(rotations):
        for path in paths[turn :: rotations + 1]:
            place = judge.model.find(path)
            assert place is not None and place.inode is not None
            same = ChangeMode(path=Name(path), mode=place.inode.mode)
            if judge.model.apply(same) != same.perform(judge.witness.root, Held()):
                raise SetupError(f"{path} cannot be copied up into layer {turn}")
        cycler.remount()
    complaints = tuple(judge.tree(look=Look.GLANCE))
    tell(Checked("D13", f"over {rotations + 1} lower layers the union shows the same tree", complaints))


def _migrate(configuration: Configuration, overlay: Overlay, judge: Judge, tell: Listener) -> None:
    union, upper = overlay.stack.mountpoint, overlay.stack.upperdir
    data_left = overlay.effective_options().get("metacopy") == "on"
    if configuration.migrate == "mail":
        migration = migrate.mail(union, upper, namespace=judge.witness.namespace)
        judge.model.copy_up_all((0, 0))
    if configuration.migrate == "mail" and data_left:
        tell(Evidence("migration without data", migration.describe()))
        tell(Checked("D6, D18", "no directory is opaque over data that only lower has", tuple(_hidden_data(upper))))
    if configuration.migrate == "dfs" or data_left:
        migration = migrate.dfs(union, upper, **_left(configuration, judge), namespace=judge.witness.namespace)
        judge.model.copy_up_all(None)
    judge.model.detach()
    tell(Evidence("migration", migration.describe()))
    tell(Evidence("directories opaque", f"{migration.opaque} of {migration.directories}"))
    tell(Evidence("objects in upper", f"{migration.in_upper} of {migration.objects}"))
    if not (configuration.leave_uncopied or configuration.leave_unlisted):
        tell(Checked("D4, D5", "every directory is opaque, everything is in upper", tuple(_unmigrated(migration))))
        tell(Checked("D3, D7", "the migrated union shows the same tree", tuple(judge.tree(look=Look.GLANCE))))


def _hidden_data(upper: Path) -> Iterator[str]:
    """Files without data in opaque directories of the upper layer: the data is lost then."""
    for directory, _, files in os.walk(upper):
        if is_opaque(directory):
            for name in files:
                if METACOPY in os.listxattr(f"{directory}/{name}", follow_symlinks=False):
                    yield f"{os.path.relpath(directory, upper)}/{name}: has no data, and its directory is opaque"


def _left(configuration: Configuration, judge: Judge) -> dict[str, frozenset[str]]:
    """What a control leaves out of the migration."""
    unlisted = frozenset(filter(None, [configuration.leave_unlisted]))
    if configuration.leave_unlisted == EVERYTHING:
        directories = (path for path, inode in judge.model.walk() if isinstance(inode, DirectoryInode))
        unlisted = frozenset(path or migrate.ROOT for path in directories)
    return {"skip_copy": frozenset(filter(None, [configuration.leave_uncopied])), "skip_listing": unlisted}


def _unmigrated(migration: Migration) -> Iterator[str]:
    """Leftovers that a must forbids; where the root keeps its mark is the implementation's affair (D11).

    What nobody tried to copy up left no complaint: it is missing in the count alone.
    """
    for leftover in migration.leftovers:
        if leftover.path != migrate.ROOT:
            yield f"{leftover.path}: {leftover.reason}"
    if migration.in_upper < migration.objects:
        yield f"{migration.objects - migration.in_upper} of {migration.objects} objects are not in the upper layer"


def _fence(fence: Fence, judge: Judge, tell: Listener) -> None:
    fence.fence()
    tell(Evidence("fence", fence.self_test()))
    fence.guard()
    tell(Checked("D9", "no EIO with warm caches", (*_missing_names(judge), *reached(fence))))
    syscalls.drop_caches()
    # The migration has counted what is in upper.
    complaints = (*judge.tree(look=Look.CONTENT), *_missing_names(judge), *reached(fence))
    tell(Checked("D2, D3, D9", "no EIO and the same inode numbers with cold caches", complaints))


def reached(fence: Fence | None) -> list[str]:
    """Complaints about what reached a lower that is listened to, since the last time (D9)."""
    heard = fence.heard() if fence else []
    more = [f"{len(heard) - _SHOWN} requests more"] if len(heard) > _SHOWN else []
    return [f"the lower was asked: {what}" for what in (*heard[:_SHOWN], *more)]


def over_empty_lower(overlay: Overlay, judge: Judge, cycler: Cycler, skip: Collection[str], tell: Listener) -> None:
    """Mount the unmounted `overlay` once more, over a lower that holds nothing: the same tree must appear (D11)."""
    if ("volatile", "") in overlay.options:
        tell(Evidence("mounted once more", "not looked at: a volatile overlay cannot be mounted again (D11)"))
        return
    with ExitStack() as stack:
        at = overlay.stack.scratch / "nothing"
        at.mkdir()
        stack.callback(at.rmdir)
        nothing = tmpfs(stack, at, LOWER_NAME)
        again = Overlay(replace(overlay.stack, lowerdirs=(nothing.root,)), overlay.options)
        with again.mounted():
            judge.remounted(cycler.devices(again), str(again.stack.upperdir))
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
