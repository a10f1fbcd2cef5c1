# SPDX-License-Identifier: GPL-2.0-only
"""Where the transcript goes: stdout and, with --log-dir, a file beside the other logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from report.terminal import Writer

TRANSCRIPT = "transcript.txt"

Sink = Callable[[bytes], object]


def to_descriptor(fd: int) -> Sink:
    """Write all bytes to a descriptor, whatever it takes at once."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data) :]

    return write


@contextmanager
def copied(sink: Sink, log_dir: Path | None) -> Iterator[Sink]:
    """`sink`, and the transcript file in `log_dir` if there is one."""
    if log_dir is None:
        yield sink
        return
    with open(log_dir / TRANSCRIPT, "wb", buffering=0) as file:

        def both(data: bytes) -> None:
            sink(data)
            file.write(data)

        yield both


@contextmanager
def text(out: Writer, log_dir: Path | None) -> Iterator[Writer]:
    """`out`, and the transcript file in `log_dir` if there is one, as one text stream."""
    if log_dir is None:
        yield out
        return
    with open(log_dir / TRANSCRIPT, "w", errors="surrogateescape") as file:
        yield _Both(out, file)


class _Both:
    """Writes to both streams."""

    def __init__(self, *streams: Writer) -> None:
        self._streams = streams

    def write(self, text: str, /) -> None:
        for stream in self._streams:
            stream.write(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()
