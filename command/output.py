# SPDX-License-Identifier: GPL-2.0-only
"""Where the transcript goes: stdout and, with --log-dir, a file beside the other logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from report.terminal import Writer
from union.errors import SetupError

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
    """`sink`, and the transcript file in `log_dir` if there is one. SetupError if that cannot be written."""
    if log_dir is None:
        yield sink
        return
    path = log_dir / TRANSCRIPT
    with _writing(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    keep = to_descriptor(fd)

    def both(data: bytes) -> None:
        sink(data)
        with _writing(path):
            keep(data)

    try:
        yield both
    finally:
        os.close(fd)


@contextmanager
def text(out: Writer, log_dir: Path | None) -> Iterator[Writer]:
    """`out`, and the transcript file in `log_dir` if there is one, as one text stream. SetupError as above."""
    with copied(_nowhere, log_dir) as keep:
        if keep is _nowhere:
            yield out
            return
        both = _Both(out, keep)
        try:
            yield both
        finally:
            both.flush()


def _nowhere(_: bytes) -> None:
    pass


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(f"--log-dir: cannot write {path}: {error.strerror}") from error


class _Both:
    """A text stream to `out` and, as bytes, to `keep`."""

    def __init__(self, out: Writer, keep: Sink) -> None:
        self._out = out
        self._keep = keep
        self._waiting: list[str] = []

    def write(self, text: str, /) -> None:
        self._out.write(text)
        self._waiting.append(text)

    def flush(self) -> None:
        self._out.flush()
        self._keep("".join(self._waiting).encode(errors="surrogateescape"))
        self._waiting.clear()
