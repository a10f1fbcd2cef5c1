# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios: every group, in the order of the classical suite, then what it lacks."""

from __future__ import annotations

from tests import mounts
from tests.union import (
    beyond,
    directory_opens,
    file_opens,
    hard_links,
    impermissible,
    mkdir,
    readlink,
    rename_file,
    rename_lower_dir,
    rename_mass,
    rename_move_dir,
    rename_new_dir,
    rename_new_pop_dir,
    rmdir,
    truncate,
    unlink,
)
from union.scenario import Group

PARITY: tuple[Group, ...] = (
    *file_opens.GROUPS,
    *truncate.GROUPS,
    *directory_opens.GROUPS,
    *readlink.GROUPS,
    *mkdir.GROUPS,
    *rmdir.GROUPS,
    *hard_links.GROUPS,
    *unlink.GROUPS,
    *rename_file.GROUPS,
    *rename_new_dir.GROUPS,
    *rename_new_pop_dir.GROUPS,
    *rename_mass.GROUPS,
    *impermissible.GROUPS,
    *rename_lower_dir.GROUPS,
    *rename_move_dir.GROUPS,
    rename_lower_dir.REFUSED,
    *directory_opens.BY_NAME,
)
"""The classical suite's groups; their names and the numbers of their scenarios stay."""

GROUPS: tuple[Group, ...] = (*PARITY, *beyond.GROUPS, *mounts.GROUPS)

MODULES = (
    *(file_opens, truncate, directory_opens, readlink, mkdir, rmdir, hard_links, unlink, rename_file, rename_new_dir),
    *(rename_new_pop_dir, rename_mass, impermissible, rename_lower_dir, rename_move_dir, *beyond.MODULES),
    *mounts.MODULES,
)


def _families() -> dict[str, str]:
    """The modules that declare the groups; the first one counts. By identity: to compare groups takes long."""
    declared: dict[int, str] = {}
    for module in MODULES:
        for value in vars(module).values():
            for one in value if isinstance(value, tuple) else (value,):
                declared.setdefault(id(one), module.__name__.rpartition(".")[2])
    return {group.name: declared[id(group)] for group in GROUPS}


FAMILIES = _families()
"""Per group the name of its family."""
