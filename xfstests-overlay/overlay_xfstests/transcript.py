# SPDX-License-Identifier: GPL-2.0-only
"""What `./check` prints, as far as we read it: which test it is at."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Transcript:
    """Takes the output as it comes, cut anywhere; `started` are the tests that were begun, in order.

    A test's line begins with its name when it starts; the verdict follows on the same line.
    """

    def __init__(self, tests: Iterable[str]) -> None:
        self.started: list[str] = []
        self._names = [re.escape(test).encode() for test in tests]
        self._begin = re.compile(b"(" + b"|".join(self._names) + rb")\s(?! *- unknown test)")
        self._line = b""
        self._found = False  # a test on this line

    def add(self, data: bytes) -> bool:
        """Take the next bytes; whether a test has started in them."""
        before = len(self.started)
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._look(line + b"\n")
            self._line, self._found = b"", False
        self._look(rest)
        return len(self.started) > before

    @property
    def line_is_open(self) -> bool:
        """Whether the last line lacks its end."""
        return bool(self._line)

    def _look(self, more: bytes) -> None:
        self._line += more
        if not self._found and (found := self._begin.match(self._line)):
            self._found = True
            self.started.append(found[1].decode())
