# SPDX-License-Identifier: GPL-2.0-only
"""What not every kernel has, asked for by a trial."""

from __future__ import annotations

from union.overlay import accepts
from union.stand import Missing

_RECENT = ("xino=nofollow", "fsync=strict")


def recent(options: str) -> None:
    """Raises Missing if one of these mount options is too new for the kernel."""
    for option in _RECENT:
        key, _, value = option.partition("=")
        if option in options and (refusal := accepts((key, value))):
            raise Missing(f"a kernel with {option}: {refusal}")
