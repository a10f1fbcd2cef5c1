# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import nodes, owners, rename_flags, times
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *nodes.GROUPS,
    *owners.GROUPS,
    *rename_flags.GROUPS,
    *times.GROUPS,
)
