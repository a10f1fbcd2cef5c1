# SPDX-License-Identifier: GPL-2.0-only
"""What a lazy run has measured: as the rows of a table, and as numbers over time for a plot."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from union.lazy.run import Told

CLASSES: Final = {
    "names": ("LOOKUP",),
    "attributes": ("GETATTR", "GETXATTR", "LISTXATTR", "READLINK", "ACCESS", "STATFS", "STATX"),
    "listings": ("OPENDIR", "READDIR", "READDIRPLUS", "FSYNCDIR"),
    "content": ("OPEN", "READ", "LSEEK", "FLUSH", "IOCTL"),
}
"""The operations of a lower that are counted together; a further class has all others."""
_CHUNK: Final = 1 << 20  # bytes that a copy-up copies at once
OTHERS: Final = "others"
Rows = list[tuple[str, str]]


def kind_of(operation: str) -> str:
    """The class of an operation."""
    return next((name for name, operations in CLASSES.items() if operation in operations), OTHERS)


def rows(told: Told) -> Rows:
    """The table."""
    return [*_image(told), *_times(told), *_requests(told), *_copies(told), *_stalls(told), *_workload(told)]


def _image(told: Told) -> Iterator[tuple[str, str]]:
    files = [entry.size for entry in told.image.values() if entry.is_file]
    yield "kernel", f"{os.uname().release} ({os.uname().machine})"
    yield "image", f"{len(files)} files, {_mb(sum(files))}, {len(told.image)} objects"


def _times(told: Told) -> Iterator[tuple[str, str]]:
    for words, when in moments(told).items():
        yield words, f"{when - told.began:.2f} s" if when else "never"


def moments(told: Told) -> dict[str, float]:
    """What happened when; 0 for what did not happen."""
    found = {}
    results = told.account.results if told.account else []
    for words, kind in (("first byte", "read"), ("first program", "exec"), ("first import", "import")):
        ended = [result.ended for result in results if result.kind == kind and result.verdict == "ok"]
        if any(result.kind == kind for result in results):
            found[words] = min(ended, default=0.0)
    assert told.population is not None
    found["populated"] = told.population.arrived()[-1] if told.population.complete else 0.0
    found["migrated"] = next((when for when, share in told.migrated if share == 1), 0.0)
    return found | {words: when for words, when in told.events.items() if words not in ("mounted", "migration begins")}


def _requests(told: Told) -> Iterator[tuple[str, str]]:
    counts = Counter(kind_of(asked.operation) for asked in told.requests)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in (*CLASSES, OTHERS) if counts[kind])
    yield "requests of the lower", f"{len(told.requests)}: {kinds}"
    if "detached" in told.events:
        yield "requests after the detach", str(len(told.after_detach))


def _copies(told: Told) -> Iterator[tuple[str, str]]:
    if told.upper and told.account:
        needed = sum(told.image[path].size for path in told.account.read)
        copied = sum(told.upper.values())
        yield "copied up", f"{_mb(copied)}, of which the workload read {_mb(needed)}: {_mb(copied - needed)} extra"
        yield "files copied up twice", str(len(copied_twice(told)))


def copied_twice(told: Told) -> list[str]:
    """The files of the lower whose data was copied up more than once. Names of one file each get a copy of their own.

    A copy-up alone asks where data is, once for each chunk.
    """
    asked = Counter(asked.path for asked in told.requests if asked.operation == "LSEEK")
    files = {path: told.image[path] for path in asked}
    return sorted(path for path, file in files.items() if asked[path] > file.links * -(-file.size // _CHUNK))


def _stalls(told: Told) -> Iterator[tuple[str, str]]:
    assert told.population is not None
    for words, but in (("stalls of the workload", {told.migrator}), ("stalls, the migration's too", set[int]())):
        found = [stall.seconds for stall in told.population.stalls(but) if stall.seconds is not None]
        yield words, f"{len(found)}, the longest {max(found, default=0):.2f} s, in all {sum(found):.1f} s"


def _workload(told: Told) -> Iterator[tuple[str, str]]:
    results = told.account.results if told.account else []
    kinds = Counter(result.kind for result in results)
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    yield "steps of the workload", f"{len(results)}: {words}"
    late = [result for result in results if result.began > told.events.get("killed", float("inf"))]
    if late:
        longest = max(late, key=lambda result: result.seconds)
        yield "steps without the daemon", f"{len(late)}, the longest {longest.seconds:.2f} s ({longest.kind})"
    yield "errors of the workload", str(told.errors)
    yield "wrong data", str(told.wrong)
    yield from told.notes


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def record(told: Told) -> dict[str, Any]:
    """For the plot, see report/plot.py. All times are in seconds from the mount."""
    assert told.population is not None
    files = len(told.population.files)
    arrived = told.population.arrived()
    end = max([told.began, *(result.ended for result in told.account.results)] if told.account else [told.began])
    counts: dict[str, list[int]] = {kind: [0] * (int(end - told.began) + 1) for kind in (*CLASSES, OTHERS)}
    for asked in told.requests:
        second = int(asked.time - told.began)
        if 0 <= second <= end - told.began:
            counts[kind_of(asked.operation)][second] += 1
    stride = max(1, files // 200)
    return {
        "title": f"{told.plan.variant}, {os.uname().release}",
        "seconds": end - told.began,
        "requests": {kind: numbers for kind, numbers in counts.items() if any(numbers)},
        "populated": [[when - told.began, (number + 1) / files] for number, when in enumerate(arrived)
                      if not (number + 1) % stride or number + 1 == files],
        "migrated": [[when - told.began, share] for when, share in told.migrated],
        "events": {words: when - told.began for words, when in moments(told).items() if when},
    }  # fmt: skip
