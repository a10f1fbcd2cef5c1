# SPDX-License-Identifier: GPL-2.0-only
"""An example must hold; one that does not is kept where `./run --play` finds it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.random.places import Place
from union.playable import Playable
from union.spelling import spelled


def reproducer(example: Playable) -> str:
    """The line that plays it again; it is written to a file of this process, which the next one replaces."""
    file = Path(tempfile.gettempdir(), f"ovl-detach-example-{os.getpid()}")
    file.write_text(spelled(example))
    return f"reproduce: ./run --play {file}"


def held(place: Place, one: Playable) -> None:
    """Play it; all that is wrong fails the test, with the operations up to there and how to do it again."""
    played = place.play(one)
    if played.complaints:
        pytest.fail("\n".join([*played.complaints, *played.steps, reproducer(one)]), pytrace=False)
