# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: a daemon has nothing of ours but what it needs, and ends with us."""

from __future__ import annotations

import gc
import os
import select
import signal
from collections.abc import Callable
from multiprocessing import Pipe

from union import children

PATIENCE = 10.0  # seconds


def code(work: Callable[[], None], *needed: int) -> int:
    """How a daemon that does this ends."""
    return os.waitstatus_to_exitcode(os.waitpid(children.daemon(work, needed), 0)[1])


def wait() -> None:
    signal.pause()


def test_it_ends_well_or_with_a_fault() -> None:
    def fault() -> None:
        raise ValueError("made up")

    assert code(lambda: None) == 0
    assert code(fault) == 1


def test_it_has_the_descriptors_that_it_needs_and_no_others() -> None:
    kept, closed = os.pipe()

    def work() -> None:
        os.fstat(kept)
        try:
            os.fstat(closed)
        except OSError:
            return
        raise AssertionError

    assert code(work, kept) == 0
    os.close(kept)
    os.close(closed)


def test_what_we_lost_closes_nothing_in_it() -> None:
    """A connection in a cycle that nobody collected yet, whose number the daemon's first file gets."""
    gc.collect()
    gc.disable()
    cycle: list[object] = [*Pipe()]
    numbers = {connection.fileno() for connection in cycle}  # type: ignore[attr-defined]
    cycle.append(cycle)

    def work() -> None:
        fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(max(numbers))]
        assert numbers <= set(fds)
        gc.collect()
        for fd in fds:
            os.fstat(fd)

    del cycle
    try:
        assert code(work) == 0
    finally:
        gc.enable()


def test_it_ends_with_its_parent() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        children.daemon(wait, [writer])
        os._exit(0)
    os.close(writer)
    os.waitpid(parent, 0)
    poll = select.poll()
    poll.register(reader, select.POLLHUP)
    assert poll.poll(PATIENCE * 1000), "it lives on"
    os.close(reader)


def test_it_is_ended_once_and_again() -> None:
    pid = children.daemon(wait)
    assert not children.ended(pid, 0)
    children.end(pid)
    children.end(pid)
    assert children.ended(children.daemon(lambda: None), PATIENCE)
