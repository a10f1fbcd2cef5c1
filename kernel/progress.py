# SPDX-License-Identifier: GPL-2.0-only
"""What the user sees while a kernel is built: a bar on a terminal, one plain line per phase elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from tqdm import tqdm

Advance = Callable[[int], object]
"""Called with the number of units done since the last call."""


class Progress:
    """Phases one after the other in the making of `what`, on `stream`, by default stdout at the time of use."""

    def __init__(self, stream: TextIO | None = None, what: str = "kernel") -> None:
        self._stream = stream
        self._what = what

    @contextlib.contextmanager
    def phase(self, text: str, total: int | None = None, unit: str = "it", scale: bool = False) -> Iterator[Advance]:
        """Announce `text`; yields the function that moves its bar. `scale` writes big numbers short (MB)."""
        stream = self._stream or sys.stdout
        if not stream.isatty():
            self.say(text)
            yield lambda _: None
            return
        size = shutil.get_terminal_size()
        layout = None if total else "{desc}: {elapsed}"
        with tqdm(
            total=total,
            desc=f"{self._what}: {text}",
            unit=unit,
            unit_scale=scale,
            bar_format=layout,
            file=stream,
            # tqdm on its own shows nothing on a terminal that does not know its size.
            ncols=size.columns,
            nrows=size.lines,
        ) as bar:
            yield bar.update

    def say(self, text: str) -> None:
        """One line."""
        print(f"{self._what}: {text}", file=self._stream or sys.stdout, flush=True)


class Silent(Progress):
    """Says nothing, for tests and for callers with an output of their own."""

    @contextlib.contextmanager
    def phase(self, text: str, total: int | None = None, unit: str = "it", scale: bool = False) -> Iterator[Advance]:
        yield lambda _: None

    def say(self, text: str) -> None:
        pass
