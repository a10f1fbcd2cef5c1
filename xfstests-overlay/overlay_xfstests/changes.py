# SPDX-License-Identifier: GPL-2.0-only
"""Changes to files of a checkout, all or none: also when the disk is full half way, or we are killed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlay_xfstests.suite import File
from union.errors import SetupError, UsageError

# Beside the files, so that a rename puts them in place; hidden, so that xfstests' .gitignore covers it.
STAGE = ".ovl-detach.tmp"
JOURNAL = "journal"


@dataclass(frozen=True)
class Change:
    """The file at `path` below the top is `old` and shall be `new`; None is no file."""

    path: str
    old: File | None
    new: File | None


@contextmanager
def alone(top: Path) -> Iterator[None]:
    """Keeps others like us out of the checkout `top`.

    Raises:
        UsageError: somebody is at work there.
    """
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another install is at work in {top}") from error
        yield
    finally:
        os.close(descriptor)


def apply(top: Path, changes: Sequence[Change]) -> None:
    """Makes all of them below `top`, or none if anything is raised.

    Raises:
        SetupError: a file could not be written, a directory not be changed.
    """
    try:
        _stage(top, changes)
        for index, change in enumerate(changes):
            if change.new is None:
                os.unlink(top / change.path)
            else:
                os.replace(_new(top, index), top / change.path)
        os.unlink(top / STAGE / JOURNAL)  # from here on they stay
    except OSError as error:
        undo(top)
        raise SetupError(f"{top}: {error.strerror}; nothing was changed") from error
    except BaseException:
        undo(top)
        raise
    undo(top)


def is_unfinished(top: Path) -> bool:
    """Whether one who was killed has left something to undo."""
    return (top / STAGE).exists()


def undo(top: Path) -> None:
    """Takes back what the journal lists, then removes it and all else that was kept for that."""
    journal = top / STAGE / JOURNAL
    if journal.exists():
        for index, (path, replaces) in enumerate(json.loads(journal.read_text())):
            if _new(top, index).exists():
                continue  # not yet in place
            if not replaces:
                (top / path).unlink(missing_ok=True)
            elif _old(top, index).exists():  # else it is back already
                os.replace(_old(top, index), top / path)
    shutil.rmtree(top / STAGE, ignore_errors=True)


def _stage(top: Path, changes: Sequence[Change]) -> None:
    """Writes what is new and keeps what is old, so that only renames are left to be done."""
    (top / STAGE).mkdir()
    for index, change in enumerate(changes):
        if change.old is not None:
            os.link(top / change.path, _old(top, index))
        if change.new is not None:
            _write(_new(top, index), change.new, owner=(top if change.old is None else top / change.path).stat())
    journal = [(change.path, change.old is not None) for change in changes]
    (top / STAGE / "unfinished").write_text(json.dumps(journal))
    os.replace(top / STAGE / "unfinished", top / STAGE / JOURNAL)


def _write(path: Path, file: File, owner: os.stat_result) -> None:
    path.write_bytes(file.data)
    if os.geteuid() == 0:  # in somebody else's checkout, all stays theirs
        os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(file.mode)


def _new(top: Path, index: int) -> Path:
    return top / STAGE / f"{index}.new"


def _old(top: Path, index: int) -> Path:
    return top / STAGE / f"{index}.old"
