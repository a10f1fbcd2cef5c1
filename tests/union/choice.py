# SPDX-License-Identifier: GPL-2.0-only
"""Picking scenarios: by name, number, pattern or set, less what is excluded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from datasets.layers import PRIVATE
from datasets.tree import walk
from report.events import Listener, Outcome, ScenarioEnded
from tests import mounts
from tests.union import GROUPS, PARITY, beyond
from union.configuration import Configuration
from union.errors import UsageError
from union.plan import Selection
from union.scenario import Group, When

_BY_NAME = {group.name: group for group in GROUPS}
LONG = tuple(group for group in GROUPS if group.when is When.LONG)
SETS = {"parity": PARITY, "beyond": beyond.GROUPS, "mounts": mounts.GROUPS, "long": LONG}


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Scenarios that are not to run, as a word of the command line names them, and why."""

    word: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a command line picks: its words, none for the default, less what is excluded.

    `shard` is N and M: of the groups so picked only the N-th of M parts, which are all of them together.
    """

    words: tuple[str, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    shard: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Raise UsageError for a word that picks nothing in any run."""
        select(self.words)
        select([exclusion.word for exclusion in self.excluded])

    def selection(
        self, configuration: Configuration, *, redirects: bool, tell: Listener, among: Sequence[Configuration] = ()
    ) -> list[Selection]:
        """The scenarios that run with this configuration, with redirects of directories on or off.

        After a detach no directory merges with a lower one, so none needs a redirect to be renamed. What is excluded
        is reported as skipped. A word that names what only another stage of the run, one of `among`, can run picks
        nothing here; UsageError if it names what none can run.
        """
        groups = _default(configuration, redirects)
        elsewhere = {group.name for stage in among for group in _default(stage, redirects)}
        words = self.words or [group.name for group in groups]
        selection = []
        known = elsewhere | {group.name for group in groups}
        for group, numbers in select(words, [group for group in GROUPS if group.name in known]):
            why = _misplaced(group, groups, configuration, redirects)
            if not why:
                selection.append((group, numbers))
            elif group.name not in elsewhere:
                raise UsageError(f"{group.name} {why}")
        number, parts = self.shard
        return self._less_excluded(selection[number - 1 :: parts], tell)

    def _less_excluded(self, selection: Sequence[Selection], tell: Listener) -> list[Selection]:
        reasons: dict[tuple[str, int], str] = {}
        for exclusion in self.excluded:
            for group, numbers in select([exclusion.word]):
                # What follows in a sequence cannot run without it.
                upto = range(numbers[-1], len(group.labels) + 1) if group.sequence else numbers
                reasons.update({(group.name, number): exclusion.reason for number in upto})
        left = []
        for group, numbers in selection:
            for number in numbers:
                if why := reasons.get((group.name, number)):
                    label = group.labels[number - 1]
                    tell(ScenarioEnded(group.name, number, label, Outcome.SKIPPED, (f"excluded: {why}",), 0.0))
            kept = tuple(number for number in numbers if (group.name, number) not in reasons)
            left += [(group, kept)] if kept else []
        return left


def _default(configuration: Configuration, redirects: bool) -> tuple[Group, ...]:
    """What runs with this configuration when no group is named."""
    everything = default_groups(redirects or configuration.detached, detach=configuration.detach)
    return tuple(group for group in everything if not _unfit(group, configuration, redirects))


def _misplaced(group: Group, default: Sequence[Group], configuration: Configuration, redirects: bool) -> str:
    """Why a group that was named does not belong to this run; empty if it does."""
    renames = (When.DIRECTORY_RENAMES, When.NO_DIRECTORY_RENAMES)
    if group.when in renames and all(group is not one for one in default):
        flag = "--xdev" if group.when is When.NO_DIRECTORY_RENAMES else "a run without --xdev"
        return f"expects {group.when.value}: it belongs to {flag}"
    return _unfit(group, configuration, redirects)


def _unfit(group: Group, configuration: Configuration, redirects: bool) -> str:
    """Why a group cannot be part of a run with this configuration; empty if it can."""
    if group.trials and configuration.layers_are_chosen:
        return "mounts overlays of its own: run it with --ov or --ov --xino and nothing about layers or features"
    spread = configuration.detach and bool(configuration.rotations)  # over layers by copy-up, migrated or not
    if (configuration.detached or spread) and not group.detaches:
        return "has a lower that cannot be migrated: run it without detach"
    if configuration.plain and (len(group.lowers) > 1 or group.options):
        return "is about several lower layers or options of an overlay: run it with --ov"
    if not redirects and group.when is When.DIRECTORY_RENAMES and _is_marked(group):
        return "has redirects in its lower layers: run it with directory renames"
    # Symlinks and special files hold no user xattrs, so an index of them cannot be kept in any either.
    trusted = _is_marked(group) or ("index", "on") in group.options
    if ("userxattr", "") in configuration.places.options and trusted:
        return "is about an overlay's marks in the trusted namespace: run it without userxattr"
    if group.overlay_alone and (configuration.plain or configuration.nested or configuration.fuse):
        return "is about what a single overlay of the kernel does: run it with --ov"
    return ""


def _is_marked(group: Group) -> bool:
    """Whether its lower layers hold an overlay's own xattrs."""
    return any(
        key.startswith(PRIVATE)
        for lower in group.lowers
        for _, node in walk(lower)
        for key in getattr(node, "xattrs", ())
    )


def by_name(name: str) -> Group:
    """The group of this name."""
    if name not in _BY_NAME:
        raise UsageError(f"no group {name!r}{_suggestion(name)}")
    return _BY_NAME[name]


def default_groups(directory_renames: bool, *, detach: bool = False) -> tuple[Group, ...]:
    """What runs when no group is named, with directory renames on or off."""
    switch = When.DIRECTORY_RENAMES if directory_renames else When.NO_DIRECTORY_RENAMES
    now = (When.ALWAYS, switch) if detach else (When.ALWAYS, switch, When.WITHOUT_DETACH)
    return tuple(group for group in GROUPS if group.when in now)


def select(words: Sequence[str], among: Sequence[Group] = GROUPS) -> list[Selection]:
    """What the words of a command line pick, in their order; a word may stand there twice.

    A word is the name of a group, whether default or not, or a glob over the groups of `among`;
    `:3` behind it picks one scenario. `parity` are the classical suite's groups among them, `beyond` the
    others, `mounts` the trials, and `long` those trials that are never part of `among`. A word that picks nothing is
    an error.
    """
    return [selection for word in words for selection in _select(word, among)]


def _select(word: str, among: Sequence[Group]) -> list[Selection]:
    if word in SETS:
        names = {group.name for group in (*among, *(LONG if word == "long" else ()))}
        return [_selection(word, group, 0) for group in SETS[word] if group.name in names]
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
    having = [group for group in groups if number <= len(group.labels)]
    if not having:
        raise UsageError(f"{word!r}: no group that matches has so many scenarios")
    return [_selection(word, group, number) for group in having]


def _selection(word: str, group: Group, number: int) -> Selection:
    last = len(group.labels)
    if number > last:
        raise UsageError(f"{word!r}: {group.name} has no scenario above {last}")
    if not number:
        return group, tuple(range(1, last + 1))
    return group, tuple(range(1, number + 1)) if group.sequence else (number,)


def _suggestion(name: str) -> str:
    close = get_close_matches(name, _BY_NAME, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
