# SPDX-License-Identifier: GPL-2.0-only
"""What a lazy run can be asked for; apart from what carries it out, as the command line needs no more than this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Variant = Literal[
    "story", "crash-before", "crash-midway", "crash-after", "hang-before", "hang-midway", "hang-after", "slow", "kill"
]
VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast content comes: `size` bytes a second, or so many `files` if that takes longer. 0: no limit."""

    size: float = 0
    files: float = 0

    def seconds(self, size: int) -> float:
        """How long a file of so many bytes takes."""
        return max(size / self.size if self.size else 0, 1 / self.files if self.files else 0)
