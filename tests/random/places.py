# SPDX-License-Identifier: GPL-2.0-only
"""Where examples are played: a place that outlives what is done to it, one for each process.

Properties get theirs by `the_place`, not by a fixture, which fuzzers that call them directly do not set up (HypoFuzz).
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.guest_unions import GuestLost, InGuest
from tests.scenario_kernel import choose
from tests.scopes import stages
from tests.union_server import Here
from union.errors import SetupError
from union.example import Played
from union.playable import Playable
from union.race import Race
from union.rounds import Raced
from union.worlds import Batch, Wrong


class Place:
    """Plays examples at what `start` begins. A guest that is lost is the fault of the example that ran; the next gets
    a fresh one, so that an example that kills its kernel can be shrunk.
    """

    def __init__(self, start: Callable[[], Here | InGuest]) -> None:
        self._start = start
        self._place: Here | InGuest | None = None
        self._ended = False

    def play(self, example: Playable) -> Played:
        """Play one. Raises SetupError when that cannot be done."""
        try:
            return self._living().play(example)
        except GuestLost as lost:
            self.close()
            return Played((f"the guest was lost: {lost}",), (), 0)

    def search(self, batch: Batch) -> list[Wrong]:
        """Play all sequences of a batch; raises likewise."""
        try:
            return self._living().search(batch)
        except GuestLost as lost:
            self.close()
            return [Wrong(None, (f"the guest was lost: {lost}",))]

    def race(self, race: Race) -> Raced:
        """Play a race; raises likewise. What hung cannot be taken down: the next one gets a fresh place."""
        try:
            raced = self._living().race(race)
        except GuestLost as lost:
            raced = Raced((f"the guest was lost: {lost}",), (), 0, 0, (), 0, hung=True)
        if raced.hung:
            self.close()
        return raced

    def close(self, *, for_good: bool = False) -> None:
        """End it. It begins anew when it is used again, unless that is `for_good`."""
        self._ended = self._ended or for_good
        place, self._place = self._place, None
        if place:
            place.close()

    def _living(self) -> Here | InGuest:
        if self._ended:
            raise SetupError("a place for examples was closed while it was needed")
        self._place = self._place or self._start()
        return self._place


class Asked:
    """What the command line says: the kernel, and the seconds that an example may take."""

    kernel: str | None = None
    limit = 300


@cache
def the_place() -> Place:
    """A kernel with `xino=nofollow`: the one that is asked for, the running one if it has it, else a guest.

    Raises HarnessError.
    """
    kernel = choose(stages("ov-xino"), Asked.kernel, collecting=False)
    place = Place(lambda: InGuest(Path(kernel.program), Asked.limit) if kernel.program else Here())
    atexit.register(place.close)
    return place
