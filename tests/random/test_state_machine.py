# SPDX-License-Identifier: GPL-2.0-only
"""Any history of a union: operations, listings, remounts and rotations, until nothing needs the lower and beyond
(D2-D11, D13, D15, D19).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.random import PROFILE
from tests.random.machine import Machine
from tests.random.places import Place
from tests.random.reproducer import reproducer
from union.history import History

RUNS = {"quick": 210, "nightly": 3000, "soak": 100_000}[PROFILE]
STEPS = 15
LAYERS = (1, 2, 3)


def held(place: Place, history: History) -> None:
    """Play it; all that is wrong fails the test, with the steps up to there and how to do it again."""
    played = place.play(history)
    if played.complaints:
        pytest.fail("\n".join([*played.complaints, *played.steps, reproducer(history)]), pytrace=False)


def run(
    play: Callable[[History], None], layers: int = 1, runs: int = RUNS // len(LAYERS), detaches: bool = True
) -> None:
    """Draw `runs` histories and have them played."""

    class Drawn(Machine):
        def __init__(self) -> None:
            super().__init__(layers, play, detaches)

    run_state_machine_as_test(Drawn, settings=settings(max_examples=runs, stateful_step_count=STEPS))


@pytest.mark.parametrize("layers", LAYERS)
def test_a_history_is_as_the_model_says(place: Place, layers: int) -> None:
    run(lambda history: held(place, history), layers)
