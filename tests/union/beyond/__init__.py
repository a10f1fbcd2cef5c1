# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import (
    acls,
    flags,
    listings,
    nodes,
    odd_names,
    owners,
    rename_flags,
    several_layers,
    times,
    xattrs,
)
from union.scenario import Group

GROUPS: tuple[Group, ...] = (
    *acls.GROUPS,
    *flags.GROUPS,
    *listings.GROUPS,
    *nodes.GROUPS,
    *odd_names.GROUPS,
    *owners.GROUPS,
    *rename_flags.GROUPS,
    *several_layers.GROUPS,
    *times.GROUPS,
    *xattrs.GROUPS,
)
