# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import (
    copied_ranges,
    file_space,
    held_directories,
    held_files,
    mapped_files,
    open_flags,
    syncing,
    temporary_files,
)
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *held_files.GROUPS,
    *held_directories.GROUPS,
    *open_flags.GROUPS,
    *temporary_files.GROUPS,
    *syncing.GROUPS,
    *mapped_files.GROUPS,
    *file_space.GROUPS,
    *copied_ranges.GROUPS,
)
