# SPDX-License-Identifier: GPL-2.0-only
"""Errors of this package: the harness's own three, and one that carries the log of a build.

`UsageError` (exit 2), `SetupError` (exit 3) and `Unsupported` (exit 4) are those of `union.errors`, so
that one `except HarnessError` in `run` catches everything; each text is one line for the user.
"""

from pathlib import Path

from union.errors import HarnessError, SetupError, Unsupported, UsageError

__all__ = ["BuildError", "HarnessError", "SetupError", "Unsupported", "UsageError"]


class BuildError(SetupError):
    """A kernel could not be built; `log` is the file that has the whole output, also named in the text."""

    def __init__(self, text: str, log: Path | None = None) -> None:
        super().__init__(text if log is None else f"{text}; log: {log}")
        self.log = log
