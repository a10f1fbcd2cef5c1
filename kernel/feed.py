# SPDX-License-Identifier: GPL-2.0-only
"""Input of a guest's command: a descriptor's bytes, carried to the guest over its first serial line.

A guest whose serial line has more than some 4 KiB outstanding never reads from it again. So what goes in is cut
into frames (two bytes of length, then so many bytes), of which one is under way at a time: process 1 of the guest
answers each with a byte once the command's stdin has taken it. A frame of length 0 is the end.
"""

from __future__ import annotations

import os
import selectors

FRAME = 2046
"""Bytes of payload at most; with the length they are half of what the line bears."""
LENGTH = 2
LINE = "ttyS0"
"""The guest's name of the line."""


class Feed:
    """Carries bytes from the descriptor `source` to `line`, our end of the serial line."""

    def __init__(self, source: int, line: int) -> None:
        self._source = source
        self._line = line
        self._free = True  # no frame is under way
        self._ended = False
        self._listening = False

    def listen(self, selector: selectors.BaseSelector, wanted: bool) -> None:
        """Have `selector` call `forward` when there is input, if any is `wanted` and the line is free."""
        wanted = wanted and self._free and not self._ended
        if wanted and not self._listening:
            selector.register(self._source, selectors.EVENT_READ, self.forward)
        elif self._listening and not wanted:
            selector.unregister(self._source)
        self._listening = wanted

    def forward(self) -> None:
        """Send what there is as one frame, or the end."""
        data = os.read(self._source, FRAME)
        self._free, self._ended = False, not data
        os.write(self._line, len(data).to_bytes(LENGTH, "little") + data)

    def acknowledged(self, _: bytes) -> None:
        """Take the guest's answer, a byte per frame: there is but one."""
        self._free = True
