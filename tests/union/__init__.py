# SPDX-License-Identifier: GPL-2.0-only
"""The operation scenarios: every group, in the order of the classical suite, and how to pick some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

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
from union.errors import UsageError
from union.scenario import Group, When

Selection = tuple[Group, tuple[int, ...]]
"""A group and the numbers of its scenarios to run, ascending."""

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

GROUPS: tuple[Group, ...] = (*PARITY, *beyond.GROUPS)
_BY_NAME = {group.name: group for group in GROUPS}


def by_name(name: str) -> Group:
    """The group of this name."""
    if name not in _BY_NAME:
        raise UsageError(f"no group {name!r}{_suggestion(name)}")
    return _BY_NAME[name]


def default_groups(directory_renames: bool) -> tuple[Group, ...]:
    """What runs when no group is named, with directory renames on or off."""
    switch = When.DIRECTORY_RENAMES if directory_renames else When.NO_DIRECTORY_RENAMES
    return tuple(group for group in GROUPS if group.when in (When.ALWAYS, switch))


def select(words: Sequence[str], among: Sequence[Group] = GROUPS) -> list[Selection]:
    """What the words of a command line pick, in their order; a word may stand there twice.

    A word is the name of a group, whether default or not, or a glob over the groups of `among`;
    `:3` behind it picks one scenario. A word that picks nothing is an error.
    """
    return [selection for word in words for selection in _select(word, among)]


def _select(word: str, among: Sequence[Group]) -> list[Selection]:
    pattern, colon, digits = word.partition(":")
    if colon and not re.fullmatch("[1-9][0-9]{0,3}", digits):
        raise UsageError(f"{word!r}: behind the colon goes the number of a scenario")
    number = int(digits or 0)
    if not set(pattern) & set("*?["):
        return [_selection(word, by_name(pattern), number)]
    groups = [group for group in among if fnmatchcase(group.name, pattern)]
    if not groups:
        raise UsageError(f"no group of this run matches {pattern!r}{_suggestion(pattern)}")
    # A glob with a number means the scenario in those groups that have it.
    having = [group for group in groups if number <= len(group.scenarios)]
    if not having:
        raise UsageError(f"{word!r}: no group that matches has so many scenarios")
    return [_selection(word, group, number) for group in having]


def _selection(word: str, group: Group, number: int) -> Selection:
    last = len(group.scenarios)
    if number > last:
        raise UsageError(f"{word!r}: {group.name} has no scenario above {last}")
    if not number:
        return group, tuple(range(1, last + 1))
    return group, tuple(range(1, number + 1)) if group.sequence else (number,)


def _suggestion(name: str) -> str:
    close = get_close_matches(name, _BY_NAME, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
