# SPDX-License-Identifier: GPL-2.0-only
"""Trials: scenarios about mounting, and about layers that no union of a run has, a file per family."""

from tests.mounts import (
    full_upper,
    half_way,
    idmapped_layers,
    layer_failures,
    memory_copy_up,
    memory_detach,
    memory_files,
    memory_handles,
    memory_mounts,
    memory_names,
    memory_reading,
    opaque_marks,
    refused_copies,
    shown_options,
)
from union.scenario import Group

MODULES = (
    full_upper,
    half_way,
    idmapped_layers,
    layer_failures,
    memory_copy_up,
    memory_detach,
    memory_files,
    memory_handles,
    memory_mounts,
    memory_names,
    memory_reading,
    opaque_marks,
    refused_copies,
    shown_options,
)

GROUPS: tuple[Group, ...] = tuple(group for module in MODULES for group in module.GROUPS)
