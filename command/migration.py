# SPDX-License-Identifier: GPL-2.0-only
"""`./run --migrate-tree MOUNTPOINT [--dry-run]`: migrate an overlay of the user's, where it is and as it is mounted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tqdm import tqdm

from union.errors import SetupError
from union.live import Live, find
from union.live_migration import Advance, Outcome, carry_out
from union.migrate import STILL_MERGED, Leftover
from union.survey import Survey, survey

LEFT: Final = 1  # exit code
INTERRUPTED: Final = 130


def run(point: Path, *, dry: bool) -> int:
    """Migrate the overlay on `point`, or say what that would do; the exit code.

    0: detached, or nothing is in the way; 1: something is left over. Raises HarnessError, OSError.
    """
    return _look(point) if dry else _migrate(point)


def _migrate(point: Path) -> int:
    live = find(point)
    total = _total(live)
    done = 0
    try:
        with _bar("migrate", total) as advance:

            def count(objects: int) -> None:
                nonlocal done
                done += objects
                advance(objects)

            outcome = carry_out(live, count)
    except KeyboardInterrupt:
        of = f" of {total}" if total else ""
        print(f"run: interrupted after {done}{of} objects; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return _report(point, outcome)


def _total(live: Live) -> int | None:
    """How many objects there are, for a bar that somebody sees; None if their number is not to be had."""
    if not sys.stderr.isatty():
        return None
    try:
        with _bar("count", None) as advance:
            return survey(live, advance).seen
    except SetupError:  # layers that cannot be seen from here, which only a dry run needs
        return None


def _report(point: Path, outcome: Outcome) -> int:
    causes = [one for one in outcome.leftovers if one.reason != STILL_MERGED]
    _list(causes or outcome.leftovers)
    opaque = f"{outcome.opaque} of {outcome.directories} directories opaque"
    if not outcome.detached:
        left = f"{len(causes)} object{'' if len(causes) == 1 else 's'} left over, " if causes else ""
        print(f"{point}: not detached: {left}{opaque}; the same command goes on from here")
        return LEFT
    print(f"{point}: detached: {opaque}, {outcome.objects} objects in the upper layer, none needs a lower one")
    print("what was opened before it was copied up may still use a lower layer; mount with xino=nofollow from now on")
    return 0


def _look(point: Path) -> int:
    live = find(point, changes=False)
    try:
        with _bar("count", None) as advance:
            found = survey(live, advance)
    except KeyboardInterrupt:
        print("run: interrupted; nothing was changed", file=sys.stderr)
        return INTERRUPTED
    _list(found.obstacles)
    print(_plan(point, found))
    if not found.room:
        print(f"{point}: not enough room: {found.bytes} bytes to copy up, {found.free} are free in the upper layer")
    return LEFT if found.obstacles or not found.room else 0


def _plan(point: Path, found: Survey) -> str:
    if not (found.objects or found.merged or found.obstacles):
        return f"{point}: detached already, nothing to copy up"
    left = len(found.obstacles)
    behind = f"; {left} object{' is' if left == 1 else 's are'} in the way of a detach" if left else ""
    copied = f"{found.objects} objects with {found.bytes} bytes of data"
    return f"{point}: to copy up: {copied}; to mark: {found.merged} directories and those copied{behind}"


def _list(leftovers: Iterable[Leftover]) -> None:
    for one in leftovers:
        print(f"left over: {one.path}: {one.reason}")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    """A bar on the terminal; nothing at all elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    size = shutil.get_terminal_size()  # tqdm on its own shows nothing on a terminal that does not know its size
    with tqdm(total=total, desc=what, unit=" objects", leave=False, ncols=size.columns, nrows=size.lines) as bar:
        yield bar.update
