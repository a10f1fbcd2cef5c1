# SPDX-License-Identifier: GPL-2.0-only
"""All that can be drawn, played in an arena, written down and played again."""

from __future__ import annotations

from union import example, interruption, replay
from union.arena import Arena
from union.example import Example, Played
from union.history import History
from union.interruption import Interrupted

Playable = Example | History | Interrupted


def play(one: Playable, arena: Arena) -> Played:
    """Play it and look at everything. Raises HarnessError for what is our own fault, or when the kernel refuses."""
    match one:
        case Example():
            return example.play(one, arena)
        case History():
            return replay.play(one, arena)
        case Interrupted():
            return interruption.play(one, arena)
