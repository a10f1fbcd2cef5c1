# SPDX-License-Identifier: GPL-2.0-only
"""The power is cut after each step of a migration: nothing is lost or hidden, and it can be resumed to its end (D12).

Upper is shut down without its log, so that what was not written out is lost. Each cut begins with the same disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EINVAL
from typing import Final

from tests.mounts.half_way import write_out
from tests.mounts.migrating import INDEX, METACOPY, VOLATILE, Bench, steps
from union.fences.disk import go_down
from union.interruption import Step
from union.scenario import Group, Trial, When
from union.stand import Stand, attempt, errno_name

RESUME_EACH: Final = 3  # cuts


def cut(bench: Bench, taken: Sequence[Step], synced: bool) -> None:
    """Take the steps and cut the power; the union is unmounted then, upper recovered.

    `synced`: all was written out before the last step.
    """
    root = os.open(bench.stand.mount(bench.options), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, (_, step) in enumerate(taken, start=1):
            if synced and number == len(taken):
                write_out(str(bench.upper.root))  # a volatile union would not
            step(root)
    finally:
        os.close(root)
    go_down(bench.upper)
    bench.stand.unmount()
    bench.upper = bench.stand.recover(bench.upper)


def unsettled(bench: Bench, taken: Sequence[Step]) -> str | None:
    """The file whose data came last after its metadata.

    Overlayfs writes the data out, and only then gives the file its mtime and capabilities back: a cut in between
    loses them, see docs/kernel-findings.md. No other name may be harmed.
    """
    if METACOPY not in bench.options:
        return None
    copied = (words.removeprefix("copy up ") for words, _ in reversed(taken))
    return next((name for name in copied if name in bench.hollow), None)


def not_refused(bench: Bench) -> list[str]:
    """A volatile union of which anything is on disk is refused after a cut, without that option and with it.

    What was not so. (Nothing is on disk before somebody syncs: then the union is as before.)
    """
    found = []
    for options in (bench.options.replace(VOLATILE, ""), bench.options):  # the latter would leave a new mark
        if (got := attempt(bench.stand.mount, options)) != EINVAL:
            found.append(f"-o {options}: {errno_name(got)} instead of EINVAL")
        if not got:
            bench.stand.unmount()
    return found


def each_step(stand: Stand, fstype: str, options: str, synced: bool) -> None:
    """Cut after each step; each time the tree is whole and nothing is hidden, and some are resumed to their end."""
    bench = Bench.prepared(stand, fstype, options)
    whole = steps(bench.original, options)
    told = len(stand.steps)
    for number in range(1, len(whole) + 1):
        taken, resume = whole[:number], number % RESUME_EACH == 0
        cut(bench, taken, synced)
        found = not_refused(bench) if VOLATILE in options else bench.left(unsettled(bench, taken), resume=resume)
        stand.complaints += [f"cut {number}, after {taken[-1][0]}: {line}" for line in found]
        if found:
            return
        bench.renewed(fenced=resume)
    del stand.steps[told:]
    stand.steps.append(f"{len(whole)} cut points{', all refused' if VOLATILE in options else ''}")


def trial(fstype: str, options: str = "", *, synced: bool = False) -> Trial:
    """Cuts of an upper on this filesystem, with these options too."""
    label = f"{fstype}{options.replace(',', ', ')}{', written out before the last step' if synced else ''}"
    return Trial(label, lambda stand: each_step(stand, fstype, options, synced))


KINDS: Final = (("", False), ("", True), (METACOPY, True), (INDEX, True), (VOLATILE, True))
GROUPS = (
    Group(
        "power-cuts",
        "Cut the power after each step of a migration, and resume it.",
        when=When.LONG,
        trials=tuple(trial(fstype, options, synced=synced) for fstype in ("xfs", "ext4") for options, synced in KINDS),
    ),
)
