# SPDX-License-Identifier: GPL-2.0-only
"""What has to change in a checkout so that it has our tests, or has them no more. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from overlay_xfstests import places
from overlay_xfstests.changes import Change
from overlay_xfstests.checkout import RECORD, Checkout, Record, digest
from overlay_xfstests.suite import TESTS, File, Suite, Test
from union.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """The `changes`; and for the user a row for each test: where it is, its name, what is done about it."""

    changes: tuple[Change, ...]
    rows: tuple[tuple[str, str, str], ...]


def install(suite: Suite, checkout: Checkout, first: int | None = None) -> Plan:
    """Put `suite` into `checkout`, or bring what is there up to date: tests keep their numbers.

    New ones get the first free numbers from `first` on, by default after the last one used.

    Raises:
        UsageError: no free number; or something of that name is there that is not ours, or no longer as it was put.
    """
    before = checkout.record() or Record()
    numbers = _numbers(suite, checkout, before, first)
    wanted = {path: file for test in suite.tests for path, file in test.files(numbers[test.name]).items()}
    wanted.update(suite.common)
    found = {path: checkout.read(path) for path in (*wanted, *before.files)}
    _refuse(
        path
        for path, there in found.items()
        if there is not None and not _is_as_put(there, before.files.get(path)) and not _is_same(there, wanted.get(path))
    )
    ours = {path: file for path, file in wanted.items() if found[path] is None or path in before.files}
    changes = [Change(path, found[path], ours.get(path)) for path in (*ours, *(before.files.keys() - ours.keys()))]
    names = checkout.read(places.GROUP_NAMES) or File(b"")
    described = places.describes_group(names.text)
    changes.append(
        Change(places.GROUP_NAMES, names, names if described else names.of_text(places.with_group(names.text)))
    )
    after = Record(numbers, {path: digest(file) for path, file in ours.items()}, before.group or not described)
    changes += _group_list(checkout, before, after, {test.name: test for test in suite.tests})
    changes.append(Change(RECORD, checkout.read(RECORD), after.file()))
    return _plan(changes, before, after)


def remove(checkout: Checkout) -> Plan:
    """Take out of `checkout` what we have put there.

    Raises:
        UsageError: there is nothing; or a file has been edited since.
    """
    before = checkout.record()
    if before is None:
        raise UsageError(f"{checkout.top}: not installed there, nothing to remove")
    found = {path: checkout.read(path) for path in before.files}
    _refuse(path for path, there in found.items() if there is not None and not _is_as_put(there, before.files[path]))
    changes = [Change(path, there, None) for path, there in found.items()]
    names = checkout.read(places.GROUP_NAMES)
    if names is not None and before.group:
        changes.append(Change(places.GROUP_NAMES, names, names.of_text(places.without_group(names.text))))
    changes += _group_list(checkout, before, Record(), {})
    changes.append(Change(RECORD, checkout.read(RECORD), None))
    return _plan(changes, before, Record())


def _numbers(suite: Suite, checkout: Checkout, before: Record, first: int | None) -> dict[str, int]:
    """A number for each test: the one that it has, also if it has come here by git, or a free one."""
    names = {path.name for path in (checkout.top / TESTS).iterdir()}
    listed = checkout.read(places.GROUP_LIST)
    lines = listed.text.splitlines() if listed is not None else []
    used = places.used_numbers((*names, *lines)) | set(before.tests.values())
    numbers = {test.name: before.tests[test.name] for test in suite.tests if test.name in before.tests}
    for test in suite.tests:
        if test.name not in numbers and (there := _number_there(test, checkout, used)) is not None:
            numbers[test.name] = there
    new = [test.name for test in suite.tests if test.name not in numbers]
    return numbers | dict(zip(new, places.free_numbers(used, len(new), first), strict=True))


def _number_there(test: Test, checkout: Checkout, used: Iterable[int]) -> int | None:
    """The number under which the checkout has this very test without our doing, or None."""
    for number in sorted(used):
        if all(_is_same(checkout.read(path), file) for path, file in test.files(number).items()):
            return number
    return None


def _group_list(checkout: Checkout, before: Record, after: Record, tests: Mapping[str, Test]) -> list[Change]:
    """The change of the list that make has generated, if it has."""
    there = checkout.read(places.GROUP_LIST)
    if there is None:
        return []
    rest = places.without_numbers(there.text, before.numbers().values())
    ours = {number: tests[name].groups for name, number in after.numbers().items()}
    text = places.with_numbers(rest, ours)
    if places.without_numbers(text, ours) != rest:
        raise UsageError(f"{checkout.top / places.GROUP_LIST} is not as make writes it: run make in {checkout.top}")
    return [Change(places.GROUP_LIST, there, there.of_text(text))]


def _plan(changes: Iterable[Change], before: Record, after: Record) -> Plan:
    real = tuple(change for change in changes if change.old != change.new)
    changed = {change.path: change for change in real}
    rows = []
    for name, number in sorted({**before.tests, **after.tests}.items(), key=lambda item: item[1]):
        path = f"{TESTS}/{number:03}"
        both = [changed[each] for each in (path, path + ".out") if each in changed]
        rows.append((f"overlay/{number:03}", name, _done(both, is_ours=path in before.files or path in after.files)))
    return Plan(real, tuple(rows))


def _done(changes: list[Change], *, is_ours: bool) -> str:
    if not is_ours:
        return "left as it came"
    if not changes:
        return "unchanged"
    if all(change.new is None for change in changes):
        return "removed"
    return "installed" if any(change.old is None for change in changes) else "updated"


def _refuse(paths: Iterable[str]) -> None:
    in_the_way = sorted(paths)
    if in_the_way:
        raise UsageError(f"not as install puts it, move it away first: {', '.join(in_the_way)}; nothing was changed")


def _is_as_put(there: File, put: str | None) -> bool:
    return digest(there) == put


def _is_same(there: File | None, wanted: File | None) -> bool:
    return there is not None and wanted is not None and there.data == wanted.data
