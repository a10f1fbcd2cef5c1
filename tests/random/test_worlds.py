# SPDX-License-Identifier: GPL-2.0-only
"""Small worlds searched through: every short sequence of operations at every moment of the detach (D8-D10, D13).

Those of one operation, and some long ones; `./run --search` goes through all of two.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.random import PROFILE
from tests.random.places import Place
from tests.random.reproducer import reproducer
from tests.union_server import Here
from union.operations import MakeDirectory, Unlink
from union.worlds import WORLDS, Batch, batches, operations

SIZE = 1000
SHOWN = 5  # of what is wrong in a batch
LONG = {"quick": 2, "nightly": 50, "soak": 1000}[PROFILE]


@pytest.mark.parametrize("batch", batches(1, SIZE), ids=str)
def test_nothing_is_wrong_in_a_small_world(place: Place, batch: Batch) -> None:
    nothing_wrong(place, batch)


def nothing_wrong(place: Place, batch: Batch) -> None:
    wrong = place.search(batch)
    lines = [line for one in wrong[:SHOWN] for line in one.complaints]
    again = [reproducer(one.example) for one in wrong[:1] if one.example]
    assert not wrong, "\n".join([f"{len(wrong)} sequences of {batch}", *lines, *again])


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("world", WORLDS)
def test_nothing_is_wrong_with_long_sequences(place: Place, world: str, cold: bool) -> None:
    """Too long for all of them: some, another seed each day."""
    seed = int(time.time()) // 86400
    for number in range(LONG):
        nothing_wrong(place, Batch(world, 12, number % 13, cold, 0, 100, seed=seed + number * 1000))


def test_a_search_is_complete_and_says_nothing_twice() -> None:
    count = len(operations())
    assert len(set(map(repr, operations()))) == count > 150
    found = [(batch.world, batch.before, batch.cold, one) for batch in batches(1, 50) for one in batch.sequences()]
    assert len(found) == len(set(map(repr, found))) == count * len(WORLDS) * 2 * 2
    assert sum(batch.last - batch.first for batch in batches(2, SIZE)) == count**2 * len(WORLDS) * 3 * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
def test_a_kernel_that_does_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unlink, "call", lambda *more: None)
    [batch] = [one for one in batches(1, SIZE) if one.world == "two layers" and one.before == 1 and one.cold]
    here = Here()
    wrong = here.search(batch._replace(detach=False))
    here.close()
    kinds = {type(operation) for one in wrong if one.example for operation in one.example.before}
    assert kinds == {Unlink} and MakeDirectory not in kinds
