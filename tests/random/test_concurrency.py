# SPDX-License-Identifier: GPL-2.0-only
"""Several processes in one union while it is migrated, on several CPUs: nothing is lost, stale or stuck (D14, D15).

All of a race follows from its number; what the kernel makes of it does not. The profile `quick` has few, and
OVL_DETACH_RACES=17 (or 10-20) has these alone.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from kernel.choice import guest_of
from kernel.errors import HarnessError, UsageError
from tests.guest_unions import InGuest
from tests.random import PROFILE
from tests.random.operations import model_of
from tests.random.places import Place
from tests.scenario_kernel import choose
from tests.scopes import stages
from tests.union_server import Here
from union import actors, rounds, syscalls, together
from union.actors import Scene
from union.operations import Held, Operation, Rename, Unlink
from union.race import Race, owner_of
from union.syscalls import Dirent

CPUS: Final = 2
KERNEL: Final = "7.2"  # the one of ours that can have them
CHOSEN: Final = os.environ.get("OVL_DETACH_RACES", "")
COUNTS: Final = {"quick": 5, "nightly": 300, "soak": 10_000}


def seeds() -> range:
    """The numbers of the races."""
    if not CHOSEN:
        return range(COUNTS[PROFILE])
    first, _, last = CHOSEN.partition("-")
    return range(int(first), int(last or first) + 1)


@pytest.fixture(scope="module")
def arena(pytestconfig: pytest.Config) -> Iterator[Place]:
    """A kernel with several CPUs and `xino=nofollow`: ours, unless another one was asked for."""
    asked = pytestconfig.getoption("--kernel")
    try:
        kernel = choose(stages("ov-xino"), asked or KERNEL, collecting=False)
    except HarnessError as error:
        pytest.fail(str(error))
    if not kernel.program and (os.cpu_count() or 1) < CPUS:
        pytest.skip(f"{CPUS} CPUs: the running kernel has one")
    try:
        if kernel.program:
            guest_of(Path(kernel.program), cpus=CPUS)
    except UsageError as error:
        if not asked:
            raise
        pytest.skip(str(error))
    limit = pytestconfig.getoption("--test-limit")
    where = Place(lambda: InGuest(Path(kernel.program), limit, cpus=CPUS) if kernel.program else Here())
    yield where
    where.close(for_good=True)


@pytest.mark.parametrize("seed", seeds())
def test_nothing_is_lost_or_stale_or_stuck_in_a_race(pytestconfig: pytest.Config, arena: Place, seed: int) -> None:
    raced = arena.race(Race(seed))
    words = f"tests/random/{Path(__file__).name} -k in_a_race --kernel={pytestconfig.getoption('--kernel') or KERNEL}"
    again = f"reproduce: OVL_DETACH_RACES={seed} ./run --pytest {words}"
    assert not raced.complaints, "\n".join([*raced.complaints, *raced.steps, again])
    assert raced.cpus >= CPUS
    assert any(raced.opaque[:-1]), f"no directory turned opaque while they raced: {raced}"


# What must be found out.


def forget(self: Operation, root: str, held: Held) -> None:
    """What a kernel would do that does nothing."""


def lose(scene: Scene, path: str, kind: int) -> Iterator[str]:
    """A copy-up that loses what nobody has touched."""
    if path == "t/sf":
        os.unlink(f"{scene.root}/{path}")
    yield from ()


def spoil(scene: Scene, path: str, kind: int) -> Iterator[str]:
    """A copy-up that loses the mode."""
    if kind == syscalls.DT_REG and not owner_of(path):
        os.chmod(f"{scene.root}/{path}", 0o744)
    yield from ()


def once(fd: int, size: int, *, change: Callable[[Dirent], list[Dirent]]) -> list[Dirent]:
    """Entries, each of which may be left out, or come with others."""
    return [one for entry in some_entries(fd, size) for one in change(entry)]


def hang(scene: Scene, path: str) -> Iterator[str]:
    """Waits for what never comes."""
    select.select([os.pipe()[0]], [], [])
    yield from ()


some_entries = syscalls.getdents_once
skipped = partial(once, change=lambda entry: [] if entry.name == "sf" else [entry])
doubled = partial(once, change=lambda entry: [entry, entry] if entry.name == "sf" else [entry])
unhidden = partial(once, change=lambda entry: [entry, Dirent("p9f", 1, syscalls.DT_CHR)])
SEED: Final = 5  # with all kinds of actors


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
@pytest.mark.parametrize(
    ("where", "name", "made", "complaint"),
    [
        (Unlink, "call", forget, r"round 0, owner p\d: step \d+: t/\S+: exists although it must not"),
        (Rename, "call", forget, r"round 0, owner p\d: step \d+: t/\S+: "),
        (syscalls, "getdents_once", skipped, r"round 0, \w+ p\d: step \d+: t\S*: sf is listed 0 times"),
        (syscalls, "getdents_once", doubled, r"round 0, \w+ p\d: step \d+: t\S*: sf is listed 2 times"),
        (syscalls, "getdents_once", unhidden, r"round 0, \w+ p\d: step \d+: t\S*: lists p9f, a whiteout"),
        (actors, "_copied_up", lose, r"round 0, \w+ p\d: step \d+: .*\bsf\b"),
        (actors, "_copied_up", spoil, r"after round 0, with warm caches: t\S*: mode 0744 instead of 0644"),
        (actors, "_read", lambda fd: b"stale", r"round 0, \w+ p\d: step \d+: t\S*f: 5 bytes that differ"),
        (actors, "_missing", hang, r"round 0, \w+ p\d: hangs: after 2 s it is still at step \d+: look up names that t"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, made: object, complaint: str
) -> None:
    race = Race(SEED, rounds=1, steps=40, xino="on")
    monkeypatch.setattr(rounds, "PATIENCE", 2.0 if made is hang else rounds.PATIENCE)
    monkeypatch.setattr(where, name, made)
    here = Here()
    raced = here.race(race)
    here.close()
    assert any(re.match(complaint, line) for line in raced.complaints), raced.complaints
    assert not raced.hung


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting on the running kernel needs root")
def test_what_hangs_for_good_is_told_and_the_next_race_has_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    place, race = Place(Here), Race(SEED, rounds=1, steps=10, xino="on")
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "PATIENCE", 0.5)
        patched.setattr(together, "LAST_WILL", 0.1)
        patched.setattr(os, "kill", lambda pid, number: None)
        patched.setattr(actors, "_missing", hang)
        raced = place.race(race)
    assert raced.hung and any(" hangs: after 0.5 s " in line for line in raced.complaints), raced
    assert not place.race(race).complaints
    place.close()


def test_all_of_a_race_follows_from_its_number() -> None:
    for seed in range(20):
        race = Race(seed, steps=20)
        assert 2 <= len(race.actors()) <= 8 and race.lowers() == Race(seed).lowers()
        assert drawn(race) == drawn(race) != drawn(Race(seed + 20, steps=20))
    kinds = [{actor.kind for actor in Race(seed).actors()} for seed in range(COUNTS["quick"])]
    assert set.union(*kinds) == {"owner", "reader", "user", "migrator"}


def drawn(race: Race) -> list[str]:
    """What the first owner does in the first round."""
    model = model_of(race.example())
    found = []
    for operation in actors.operations(race, 0, race.actors()[0], model):
        model.apply(operation)
        found.append(repr(operation))
    return found
