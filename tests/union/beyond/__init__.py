# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import held_directories, held_files, open_flags, syncing, temporary_files
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *held_files.GROUPS,
    *held_directories.GROUPS,
    *open_flags.GROUPS,
    *temporary_files.GROUPS,
    *syncing.GROUPS,
)
