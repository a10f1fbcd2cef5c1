# SPDX-License-Identifier: GPL-2.0-only
"""Where our tests go in a checkout: free numbers, and our lines in its two lists of groups. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from overlay_xfstests.suite import GROUP
from union.errors import UsageError

GROUP_NAMES = "doc/group-names.txt"
GROUP_LIST = "tests/overlay/group.list"
GROUP_LINE = f"{GROUP}\t\toverlayfs detached from lower layers (xino=nofollow)\n"
LAST_NUMBER = 999  # xfstests' names of tests have three digits


def used_numbers(names: Iterable[str]) -> set[int]:
    """The numbers that files named so occupy: 031, 031.out and 031-anything all do."""
    return {int(found[0]) for name in names if (found := re.match(r"[0-9]{3}(?![0-9])", name))}


def free_numbers(used: Collection[int], count: int, first: int | None = None) -> list[int]:
    """`count` numbers that are not `used`: from `first` on, by default after all that are.

    Raises:
        UsageError: there are not as many.
    """
    start = max(used, default=0) + 1 if first is None else first
    free = [number for number in range(start, LAST_NUMBER + 1) if number not in used][:count]
    if len(free) < count:
        raise UsageError(f"only {len(free)} of {count} numbers are free from {start:03} to {LAST_NUMBER}")
    return free


def describes_group(names: str) -> bool:
    """Whether the text of doc/group-names.txt describes our group already."""
    return re.search(rf"^{GROUP}\s", names, re.MULTILINE) is not None


def with_group(names: str) -> str:
    """That text with our group in its alphabetical place among those below the first blank line."""
    lines = names.splitlines(keepends=True)
    start = next((index for index, line in enumerate(lines) if not line.strip()), 0)
    later = (index for index in range(start, len(lines)) if _is_after_group(lines[index]))
    lines.insert(next(later, len(lines)), GROUP_LINE)
    return "".join(lines)


def without_group(names: str) -> str:
    """That text without what `with_group` puts there."""
    return "".join(line for line in names.splitlines(keepends=True) if line != GROUP_LINE)


def with_numbers(groups: str, ours: Mapping[int, str]) -> str:
    """The text of group.list with a line for each of our numbers in its place, as the checkout's make writes it."""
    lines = groups.splitlines(keepends=True)
    for number, its_groups in ours.items():
        place = (index for index, line in enumerate(lines) if (_number_of(line) or 0) > number)
        lines.insert(next(place, len(lines)), f"{number:03}{its_groups}\n")
    return "".join(lines)


def without_numbers(groups: str, ours: Collection[int]) -> str:
    """That text without the lines of these numbers."""
    return "".join(line for line in groups.splitlines(keepends=True) if _number_of(line) not in ours)


def _is_after_group(line: str) -> bool:
    """Whether a line describes a group that comes after ours, or is the ruled one below all."""
    found = re.match(r"[a-z0-9_-]+", line)
    return line.startswith("=") or (found is not None and found[0] > GROUP)


def _number_of(line: str) -> int | None:
    found = re.match(r"[0-9]{3}(?![0-9])", line)
    return int(found[0]) if found else None
