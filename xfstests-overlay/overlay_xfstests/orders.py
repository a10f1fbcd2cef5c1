# SPDX-License-Identifier: GPL-2.0-only
"""What the side that runs `./check` is told, and the words by which it answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Final

HUNG: Final = 75
"""Exit status: one test took longer than the limit. `./check` itself has 0 and 1 only."""
FAILED: Final = 76
"""Exit status: it could not be prepared; the last line on stderr says why."""


@dataclass(frozen=True)
class Orders:
    """One call of `./check`. `size` is that of each device in bytes, `limit` in seconds for each test.

    `mount_options` are as xfstests wants them: `-o xino=nofollow`, or empty. `limits` is the file that takes
    `limit SECONDS` (see `kernel/init.py`), empty where nothing does. `visible` are directories that stay as they are
    where everything in /tmp and its like is fresh.
    """

    checkout: str
    tests: tuple[str, ...]
    results: str
    suite: str
    python: str
    fs: str
    size: int
    mount_options: str
    limit: int
    limits: str = ""
    visible: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """As one word for a command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Orders:
        """The reverse."""
        told = json.loads(text)
        return Orders(**{**told, "tests": tuple(told["tests"]), "visible": tuple(told["visible"])})
