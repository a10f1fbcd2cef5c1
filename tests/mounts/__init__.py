# SPDX-License-Identifier: GPL-2.0-only
"""Trials: scenarios about mounting, and about layers that no union of a run has, a file per family."""

from tests.mounts import (
    case_folding,
    in_use,
    lacking_uppers,
    layer_paths,
    module_parameters,
    refused_options,
    remounts,
    root_marks,
    shown_options,
    user_namespaces,
    uuids,
    volatile_errors,
    work_directories,
)
from union.scenario import Group

MODULES = (
    shown_options,
    refused_options,
    layer_paths,
    remounts,
    work_directories,
    in_use,
    lacking_uppers,
    user_namespaces,
    module_parameters,
    uuids,
    case_folding,
    volatile_errors,
    root_marks,
)

GROUPS: tuple[Group, ...] = tuple(group for module in MODULES for group in module.GROUPS)
