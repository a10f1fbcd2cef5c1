# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import (
    acls,
    copied_ranges,
    file_handles,
    file_space,
    flags,
    held_directories,
    held_files,
    listings,
    mapped_files,
    nodes,
    odd_names,
    open_flags,
    owners,
    rename_flags,
    syncing,
    temporary_files,
    times,
    watched,
    xattrs,
)
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *nodes.GROUPS,
    *owners.GROUPS,
    *times.GROUPS,
    *rename_flags.GROUPS,
    *odd_names.GROUPS,
    *xattrs.GROUPS,
    *acls.GROUPS,
    *flags.GROUPS,
    *listings.GROUPS,
    *held_files.GROUPS,
    *held_directories.GROUPS,
    *open_flags.GROUPS,
    *temporary_files.GROUPS,
    *syncing.GROUPS,
    *mapped_files.GROUPS,
    *file_space.GROUPS,
    *copied_ranges.GROUPS,
    *file_handles.GROUPS,
    *watched.GROUPS,
)
