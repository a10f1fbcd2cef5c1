# SPDX-License-Identifier: GPL-2.0-only
"""The events of a run in a file, a line of JSON each, so that a report can be made even when the run dies."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, cast

from report import events
from report.events import Event, Listener, Outcome
from union.errors import SetupError

_KINDS: Final = {
    kind.__name__: kind for kind in vars(events).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}
_QUIET: Final = (events.OperationStarted, events.OperationEnded)  # the transcript has them; they would be most of it


class Recorder:
    """Writes each event as it comes; what a run had written is there even if its kernel is lost the moment after."""

    def __init__(self, path: Path) -> None:
        """Begin a new file; raises OSError."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def __call__(self, event: Event) -> None:
        """Raises SetupError when there is no place for it."""
        if isinstance(event, _QUIET):
            return
        line = f"{encode(event)}\n".encode()
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            # Without its path, which in a guest is not the one that the user knows.
            raise SetupError(f"--results: the events of the run cannot be written: {error.strerror}") from error


def all_of(*listeners: Listener) -> Listener:
    """One listener that tells each of them."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def encode(event: Event) -> str:
    """One line of JSON."""
    return json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{value!r} is no part of an event")


def read(path: Path) -> Iterator[Event]:
    """The events in their order; a line that was cut off ends them. Raises OSError, ValueError for another file."""
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            yield decode(line)


def decode(line: str) -> Event:
    """The event of a line; ValueError if it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _KINDS.get(fields.pop("event", ""))
    if kind is None:
        raise ValueError(f"no event: {line[:80]!r}")
    if "outcome" in fields:
        fields["outcome"] = Outcome(fields["outcome"])
    if "complaints" in fields:
        fields["complaints"] = tuple(fields["complaints"])
    return cast(Event, kind(**fields))
