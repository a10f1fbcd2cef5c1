# SPDX-License-Identifier: GPL-2.0-only
"""An example must hold; one that does not is kept where `./run --play` finds it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.random.places import Place, the_place
from union.playable import Playable
from union.spelling import spelled


def reproducer(example: Playable) -> str:
    """The line that plays it again; it is written to a file of this process, which the next one replaces."""
    file = Path(tempfile.gettempdir(), f"ovl-detach-example-{os.getpid()}")
    file.write_text(spelled(example))
    return f"reproduce: ./run --play {file}"


def held(one: Playable, place: Place | None = None) -> None:
    """Play it, as a rule at `the_place`; all that is wrong fails the test, with the steps and how to repeat it."""
    played = (place or the_place()).play(one)
    if played.complaints:
        pytest.fail("\n".join([*played.complaints, *played.steps, reproducer(one)]), pytrace=False)
