# SPDX-License-Identifier: GPL-2.0-only
"""`--results DIR`: the run's results as files that a CI reads, written when it ends, however it ends.

The events come first, line by line, from wherever the run is; the reports are made of them afterwards by the
process that outlives a guest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from report import junit, kcidb, ktap, lava
from report.events import Refused
from report.record import Recorder, read
from report.results import Cut, Results, collect
from tests.union import FAMILIES
from union.errors import HarnessError, KernelFault, SetupError, UsageError

EVENTS: Final = "events.jsonl"
VARIABLE: Final = "OVL_DETACH_EVENTS"  # in a guest: where the events go
ORIGIN: Final = "ovl_detach"

FORMATS: Final[dict[str, Callable[[Results], str]]] = {
    "results.xml": junit.write,
    "results.ktap": ktap.write,
    "result.txt": lava.write,
    "kcidb.json": lambda results: kcidb.write(results, ORIGIN, f"{ORIGIN}:{_kernel(results)}"),
}


class CannotWrite(SetupError):
    """There is no place for the reports."""


@contextmanager
def written(directory: Path | None, command: str) -> Iterator[Path | None]:
    """Where the events of the run go, in `directory` if there is one; when the block ends, failed or not, the reports
    are there too, and those of an earlier run never. UsageError if it cannot be made, CannotWrite if a report cannot be
    written.
    """
    if directory is None:
        yield None
        return
    events = begun(directory)
    try:
        yield events
    except HarnessError as error:
        write(directory, command, Cut(str(error), isinstance(error, KernelFault)))
        raise
    except BaseException:
        write(directory, command)
        raise
    write(directory, command)


def begun(directory: Path) -> Path:
    """An empty file for the events of a run, in `directory`, which is made if need be and has no reports any more.

    Raises UsageError, and SetupError if there is no space.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FORMATS:
            (directory / name).unlink(missing_ok=True)
        (directory / EVENTS).write_bytes(b"")
    except OSError as error:
        kind = SetupError if error.errno == errno.ENOSPC else UsageError
        raise kind(f"--results: cannot write to {directory}: {error.strerror}") from error
    return directory / EVENTS


def refused(directory: Path | None, command: str, why: str) -> None:
    """Tell in the reports, those of the guest's host if this is a guest, that the run cannot be carried out here."""
    with written(directory, command) as events:
        if record := events or os.environ.get(VARIABLE):
            Recorder(Path(record))(Refused(why))


def write(directory: Path, command: str, cut: Cut | None = None) -> None:
    """Make the reports of the events in `directory`, of a run that `cut` ended; all appear, each whole, or none does.

    Raises CannotWrite.
    """
    new = {name: directory / f".{name}.new" for name in FORMATS}
    try:
        results = collect(command, read(directory / EVENTS), FAMILIES, cut)
        for name, write_one in FORMATS.items():
            new[name].write_text(write_one(results), encoding="utf-8", errors="backslashreplace")
        for name, path in new.items():
            os.replace(path, directory / name)
    except OSError as error:
        raise CannotWrite(f"--results: cannot write to {directory}: {error.strerror}") from error
    finally:
        for path in new.values():
            path.unlink(missing_ok=True)


def _kernel(results: Results) -> str:
    """The release of the kernel that the run was on."""
    return (results.evidence.get("kernel") or ["unknown"])[0].partition(" ")[0]
