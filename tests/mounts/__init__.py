# SPDX-License-Identifier: GPL-2.0-only
"""Trials: scenarios about mounting, and about layers that no union of a run has, a file per family."""

from tests.mounts import (
    layer_paths,
    refused_options,
    shown_options,
)
from union.scenario import Group

MODULES = (shown_options, refused_options, layer_paths)

GROUPS: tuple[Group, ...] = tuple(group for module in MODULES for group in module.GROUPS)
