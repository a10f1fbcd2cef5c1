# SPDX-License-Identifier: GPL-2.0-only
"""A checkout of xfstests, and the record in it of what we have put there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overlay_xfstests.suite import TESTS, File
from union.errors import SetupError, UsageError

RECORD = ".ovl-detach.json"
VERSION = 1
MARKS = ("check", "common/preamble", "doc/group-names.txt", TESTS)  # what each checkout since 2021 has


@dataclass(frozen=True)
class Record:
    """What is installed: the number of each test; the hashes of the files that are ours; whose the group is.

    A file that was there before, the same as ours, is not ours: it has come by git, and stays.
    """

    tests: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    group: bool = False

    def file(self) -> File:
        """The file RECORD that says so."""
        record = {"version": VERSION, "tests": dict(self.tests), "files": dict(self.files), "group": self.group}
        return File((json.dumps(record, indent=1) + "\n").encode())

    def numbers(self) -> dict[str, int]:
        """The tests of which the script is ours, and their numbers."""
        return {name: number for name, number in self.tests.items() if f"{TESTS}/{number:03}" in self.files}


class Checkout:
    """The checkout at `top`.

    Raises:
        UsageError: that is none.
    """

    def __init__(self, top: Path) -> None:
        if not top.is_dir():
            raise UsageError(f"{top}: no such directory")
        missing = [mark for mark in MARKS if not (top / mark).exists()]
        if missing:
            raise UsageError(f"{top}: no xfstests checkout, or one from before 2022: it has no {missing[0]}")
        self.top = top

    def read(self, path: str) -> File | None:
        """The file at `path` below the top, or None."""
        try:
            return File((self.top / path).read_bytes(), (self.top / path).stat().st_mode & 0o7777)
        except FileNotFoundError:
            return None

    def record(self) -> Record | None:
        """What is installed here, or None.

        Raises:
            SetupError: the record is damaged or of a later version.
        """
        found = self.read(RECORD)
        if found is None:
            return None
        try:
            record = json.loads(found.data)
            if record["version"] != VERSION:
                raise SetupError(f"{self.top / RECORD} is of version {record['version']}: use the suite that wrote it")
            return Record(dict(record["tests"]), dict(record["files"]), bool(record["group"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{self.top / RECORD} is damaged: {error!r}") from error


def digest(file: File) -> str:
    """The hash that a record has of a file."""
    return hashlib.sha256(file.data).hexdigest()
