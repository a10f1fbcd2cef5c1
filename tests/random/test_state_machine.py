# SPDX-License-Identifier: GPL-2.0-only
"""Any history of a union: operations, listings, remounts and rotations, until nothing needs the lower and beyond
(D2-D11, D13, D15, D19).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.random import PROFILE
from tests.random.machine import Machine
from tests.random.places import Place
from tests.random.reproducer import held
from tests.union_server import Here
from union.history import SPECIAL, Forge, History, Step
from union.operations import MakeDirectory, Operation, Unlink
from union.spelling import read, spelled

RUNS = {"quick": 210, "nightly": 3000, "soak": 100_000}[PROFILE]
STEPS = 15
LAYERS = (1, 2, 3)


def run(
    play: Callable[[History], None], layers: int = 1, runs: int = RUNS // len(LAYERS), detaches: bool = True
) -> None:
    """Draw `runs` histories and have them played."""

    class Drawn(Machine):
        def __init__(self) -> None:
            super().__init__(layers, play, detaches)

    chosen = settings(max_examples=runs, stateful_step_count=STEPS)
    if not detaches:  # a control: always the same, and it is enough that it fails
        chosen = settings(chosen, derandomize=True, database=None, phases=[Phase.generate])
    run_state_machine_as_test(Drawn, settings=chosen)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_history_is_as_the_model_says(layers: int) -> None:
    run(held, layers)


def test_what_is_drawn_is_written_and_read_back() -> None:
    seen: list[Step] = []

    def play(history: History) -> None:
        seen.extend(history.steps)
        assert read(spelled(history)) == history

    run(play, runs=50)
    assert {type(step) for step in seen} >= set(SPECIAL) - {Forge}


# What must not hold.


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Unlink, "exists although it must not|success instead of E"),
        (MakeDirectory, "ENOENT although|success instead of E"),
    ],
)
def test_a_kernel_that_forgets_an_operation_is_found_out(
    monkeypatch: pytest.MonkeyPatch, kind: type[Operation], complaint: str
) -> None:
    monkeypatch.setattr(kind, "call", lambda *more: None)
    place = Place(Here)
    with pytest.raises(pytest.fail.Exception, match=complaint):
        run(lambda history: held(history, place), runs=100, detaches=False)
    place.close()
