# SPDX-License-Identifier: GPL-2.0-only
"""What the classical suite does not look at, a file per family."""

from tests.union.beyond import (
    acls,
    copied_ranges,
    file_handles,
    file_space,
    flags,
    handle_kinds,
    held_directories,
    held_files,
    layer_clashes,
    listings,
    lower_links,
    mapped_files,
    metadata_copies,
    nodes,
    odd_names,
    open_flags,
    owners,
    rename_flags,
    several_layers,
    syncing,
    temporary_files,
    times,
    watched,
    xattrs,
)
from union.scenario import Group

MODULES = (
    nodes,
    owners,
    times,
    rename_flags,
    odd_names,
    xattrs,
    acls,
    flags,
    listings,
    lower_links,
    several_layers,
    layer_clashes,
    metadata_copies,
    held_files,
    held_directories,
    open_flags,
    temporary_files,
    syncing,
    mapped_files,
    copied_ranges,
    file_space,
    file_handles,
    handle_kinds,
    watched,
)

GROUPS: tuple[Group, ...] = tuple(group for module in MODULES for group in module.GROUPS)
