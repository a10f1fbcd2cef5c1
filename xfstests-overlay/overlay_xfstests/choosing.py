# SPDX-License-Identifier: GPL-2.0-only
"""Which tests of a checkout are meant by words and groups, and whether it is built. A test's name is `overlay/031`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from overlay_xfstests.checkout import Checkout
from union.errors import SetupError, UsageError

OURS: Final = "overlay/nofollow"
DIRECTORIES: Final = ("generic", "overlay")
"""Below tests/: those with tests that `./check -overlay` runs."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+@,-]+")  # its scripts take no others in a path
_NUMBER: Final = re.compile(r"\d{3,4}")
_BUILT: Final = ("include/builddefs", "ltp/fsstress", "ltp/fsx", "tests/overlay/group.list")


class Choosing:
    """Chooses among the tests of `checkout`. Raises SetupError if that is not built: its groups are not known then."""

    def __init__(self, checkout: Checkout) -> None:
        self._top = checkout.top
        self._checkout = checkout
        if absent := next((name for name in _BUILT if not (self._top / name).exists()), ""):
            raise SetupError(f"{self._top} is not built, it has no {absent}; xfstests-overlay/build {self._top}")

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Every test that the group lists name, with its groups."""
        found: dict[str, list[str]] = {}
        for directory in DIRECTORIES:
            listing = self._top / "tests" / directory / "group.list"
            lines = listing.read_text().splitlines() if listing.exists() else []
            for line in lines:
                number, *groups = line.partition("#")[0].split() or [""]
                if _NUMBER.fullmatch(number):
                    found[f"{directory}/{number}"] = groups
        return found

    def named(self, word: str) -> list[str]:
        """The tests that a word means: `overlay/031`, `031`, a pattern of these, or a name of ours.

        Raises UsageError if it means none.
        """
        record = self._checkout.record()
        numbers = record.tests if record else {}
        pattern = f"overlay/{numbers[word]:03}" if word in numbers else word
        pattern = pattern if "/" in pattern else f"overlay/{pattern}"
        found = [name for name in fnmatch.filter(self.groups, pattern) if (self._top / "tests" / name).is_file()]
        if not found and re.fullmatch(r"[a-z][a-z0-9-]*", word):
            raise UsageError(f"{word}: {self._top} has no such test; those of the suite get there by "
                             f"xfstests-overlay/install {self._top}")
        if not found:
            raise UsageError(f"{word}: {self._top} has no such test")
        return found

    def group(self, word: str) -> list[str]:
        """The tests of a group: `overlay/quick`, or `quick` of all directories. Raises UsageError if it has none."""
        directory, _, group = word.rpartition("/")
        found = [
            name
            for name, groups in self.groups.items()
            if (group in groups or group == "all") and (not directory or name.startswith(f"{directory}/"))
        ]
        if not found and word == OURS:
            raise UsageError(f"{self._top} has none of the suite's tests; they get there by "
                             f"xfstests-overlay/install {self._top}")
        if not found:
            raise UsageError(f"{word}: {self._top} has no such group")
        return found

    def chosen(
        self, words: Iterable[str], groups: Sequence[str], without_groups: Iterable[str], without: Iterable[str]
    ) -> tuple[str, ...]:
        """The tests that these choose, each once, in the order in which `./check` runs them; ours if nothing does.

        Raises UsageError for what chooses nothing, and if nothing is left.
        """
        words = list(words)
        groups = groups or ([] if words else [OURS])
        found = {name for word in words for name in self.named(word)}
        found |= {name for group in groups for name in self.group(group)}
        found -= {name for group in without_groups for name in self.group(group)}
        found -= {name for word in without for name in self.named(word)}
        if not found:
            raise UsageError("no test is left to run")
        return tuple(sorted(found))


def plain(path: Path) -> Path:
    """The absolute path, if xfstests can do with it; raises UsageError."""
    path = path.absolute()
    if not _PLAIN.fullmatch(str(path)):
        raise UsageError(f"{path}: xfstests takes no blanks and no special characters in a path")
    return path
