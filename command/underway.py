# SPDX-License-Identifier: GPL-2.0-only
"""What a run in a guest is at, read off its transcript as it passes: all that is known when the guest is lost."""

from __future__ import annotations

import re

from command.output import Sink
from tests.union import GROUPS

_BANNER = re.compile(r"\*\*\* .* (\S+)")
_TEST = re.compile(r"TEST [^:]+:\d+: (.*)")


class UnderWay:
    """Passes a transcript on to `sink` and knows the last scenario in it that began."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rest = b""
        self._group = ""
        self._label: str | None = None

    def __call__(self, data: bytes) -> None:
        self._sink(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="surrogateescape").rstrip("\r"))

    def _line(self, line: str) -> None:
        if found := _BANNER.fullmatch(line):
            self._group, self._label = found[1], None
        elif found := _TEST.fullmatch(line):
            self._label = found[1]

    def scenario(self) -> tuple[str, str] | None:
        """What names it on the command line, and its label; None if none began, or no scenario of ours did."""
        for group in GROUPS:
            if group.name == self._group and self._label in group.labels:
                return f"{group.name}:{group.labels.index(self._label) + 1}", self._label
        return None
