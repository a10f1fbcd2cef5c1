# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import (
    held_directories,
    held_files,
    nodes,
    open_flags,
    owners,
    rename_flags,
    syncing,
    temporary_files,
    times,
)
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *nodes.GROUPS,
    *owners.GROUPS,
    *rename_flags.GROUPS,
    *times.GROUPS,
    *held_files.GROUPS,
    *held_directories.GROUPS,
    *open_flags.GROUPS,
    *temporary_files.GROUPS,
    *syncing.GROUPS,
)
