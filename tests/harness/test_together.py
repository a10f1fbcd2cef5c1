# SPDX-License-Identifier: GPL-2.0-only
"""Processes that do their steps at the same time: what each says, and what becomes of one that does not get on."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from union import together as module
from union.errors import SetupError
from union.together import Job, Refused, Step, Verdict, together

PATIENCE = 20.0  # seconds


def steps(*calls: Callable[[], Iterable[str]]) -> Iterator[Step]:
    return (Step(f"call {number}", call) for number, call in enumerate(calls))


def job(*calls: Callable[[], Iterable[str]]) -> Job:
    return partial(steps, *calls)


def fine() -> Iterable[str]:
    return ()


def wrong() -> Iterable[str]:
    return ("this is", "not so")


def refused() -> Iterable[str]:
    raise Refused


def fails() -> Iterable[str]:
    raise OSError(errno.EIO, "made up", "x")


def faulty() -> Iterable[str]:
    raise KeyError("mine")


def dies() -> Iterable[str]:
    os.kill(os.getpid(), signal.SIGKILL)
    return ()


def waits() -> Iterable[str]:
    select.select([os.pipe()[0]], [], [])
    return ()


@pytest.fixture(autouse=True)
def no_children() -> Iterator[None]:
    """Whatever comes of it, nothing stays. Guests of other tests may be children of this process, too."""
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    """The processes that this thread has forked and that are not waited for yet."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def test_each_does_its_steps_up_to_the_one_that_complains() -> None:
    first, second, third = together([job(fine, refused, fine), job(fine, wrong, fine), job()], PATIENCE)
    assert first == Verdict((), ("call 0", "call 1 (refused)", "call 2"), frozenset({2}))
    assert second == Verdict(("step 2: this is", "step 2: not so"), ("call 0", "call 1"))
    assert third == Verdict(())


def test_an_error_of_the_kernel_is_a_complaint_and_another_one_is_our_fault() -> None:
    [verdict] = together([job(fails)], PATIENCE)
    assert verdict.complaints == ("step 1: [Errno 5] made up: 'x'",)
    with pytest.raises(SetupError, match="KeyError: 'mine', after 2 steps"):
        together([job(fine, faulty), job(fine)], PATIENCE)


def test_one_that_dies_says_what_it_was_at() -> None:
    first, second = together([job(fine, dies, fine), job(fine)], PATIENCE)
    assert first.complaints == ("the process ended while it was at step 2: call 1",)
    assert second == Verdict((), ("call 0",))


def test_one_that_hangs_is_told_and_ended() -> None:
    first, second = together([job(fine, waits), job(fine)], 0.5)
    [complaint] = first.complaints
    assert re.match(r"hangs: after 0\.5 s it is still at step 2: call 1, in state S( at |$)", complaint)
    assert not first.left and second == Verdict((), ("call 0",))


def test_one_that_cannot_be_ended_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    kill = os.kill
    monkeypatch.setattr(module, "LAST_WILL", 0.1)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    [verdict] = together([job(waits)], 0.1)
    assert verdict.left and verdict.complaints[0].startswith("hangs: ")
    kill(killed[0], signal.SIGKILL)
    os.waitpid(killed[0], 0)


def test_all_run_at_the_same_time() -> None:
    here, there = os.pipe(), os.pipe()

    def meet(mine: int, theirs: int) -> Iterable[str]:
        os.write(mine, b"x")
        os.read(theirs, 1)
        return ()

    verdicts = together([job(partial(meet, here[1], there[0])), job(partial(meet, there[1], here[0]))], PATIENCE)
    for fd in (*here, *there):
        os.close(fd)
    assert verdicts == [Verdict((), ("call 0",))] * 2
