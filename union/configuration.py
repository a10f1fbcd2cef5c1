# SPDX-License-Identifier: GPL-2.0-only
"""What a run is asked to do: one value, handed from the command line to the union."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Xino = Literal["off", "on", "nofollow"]
MigrateWay = Literal["mail", "dfs", "none"]

EVERYTHING = "*"  # leave_unlisted: no directory is listed


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of one union and what happens to it before the operations."""

    detach: bool = False  # lower on XFS, migrated and fenced before the operations
    xino: Xino = "off"
    migrate: MigrateWay = "none"
    fence: bool = False
    directory_renames: bool = True
    leave_uncopied: str | None = None  # a control: this file is not copied up
    leave_unlisted: str | None = None  # a control: this directory, or EVERYTHING, is never listed

    def how(self) -> str:
        """The banner's words: settings in effect, in the classical suite's order."""
        words = ["--ov"]
        if not self.directory_renames:
            words.append("--xdev")
        if self.xino != "off":
            words.append("--xino")
        if self.detach and self.migrate != "mail":
            words.append(f"--migrate={self.migrate}")
        if self.detach and not self.fence:
            words.append("--no-fence")
        return " ".join(words)
