# SPDX-License-Identifier: GPL-2.0-only
"""Trials: scenarios about mounting, and about layers that no union of a run has, a file per family."""

from tests.mounts import (
    acls,
    bad_marks,
    bad_origins,
    changed_underneath,
    data_layers,
    detached,
    exported_handles,
    foreign_handles,
    index_directory,
    lesser_mounter,
    listings,
    shown_options,
    two_overlays,
    unreadable_layers,
    verity,
)
from union.scenario import Group

MODULES = (
    shown_options,
    data_layers,
    bad_marks,
    bad_origins,
    index_directory,
    exported_handles,
    foreign_handles,
    verity,
    detached,
    listings,
    changed_underneath,
    lesser_mounter,
    unreadable_layers,
    acls,
    two_overlays,
)

GROUPS: tuple[Group, ...] = tuple(group for module in MODULES for group in module.GROUPS)
