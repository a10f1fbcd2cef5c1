# SPDX-License-Identifier: GPL-2.0-only
"""Content arrives in its order, what is waited for first, and whole."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.harness.small_image import files
from union.lazy import image
from union.lazy.plan import Rate
from union.lazy.population import Population

LIMIT = 10.0  # seconds
COUNT = 20
ASKED = 4711  # a process


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree, which is the daemon's working directory."""
    found = files(tmp_path / "tree", COUNT)
    monkeypatch.chdir(found)
    return found


def population(tree: Path, rate: Rate) -> Population:
    cache = tree.parent / "cache"
    cache.mkdir()
    return Population(image.read(tree), cache, rate)


def fill(filling: Population) -> None:
    """Start it and return when all is there."""
    news = SimpleQueue[None]()
    filling.start(lambda: news.put(None))
    for _ in filling.files:
        news.get(timeout=LIMIT)


def order(filling: Population) -> list[str]:
    """The files as they came."""
    when = dict(zip(filling.files, filling._times[::3].tolist(), strict=True))
    return sorted(when, key=lambda path: when[path])


def test_files_arrive_in_order_and_whole(tree: Path) -> None:
    filling = population(tree, Rate())
    assert not filling.complete and filling.arrived() == []
    fill(filling)
    assert filling.complete and len(filling.arrived()) == COUNT
    assert order(filling) == filling.files
    for path in filling.files:
        fd = filling.open(path)
        assert os.pread(fd, 1 << 20, 0) == (tree / path).read_bytes()
        os.close(fd)
    assert filling.stalls() == [] and filling.fault() == ""


def test_what_is_waited_for_comes_first(tree: Path) -> None:
    filling = population(tree, Rate(files=100))
    last = filling.files[-1]
    assert not filling.populated(last, ASKED)
    assert not filling.populated(last, ASKED + 1)  # who asks again does not ask first
    fill(filling)
    assert order(filling) == [last, *filling.files[:-1]]
    [stall] = filling.stalls()
    assert (stall.path, stall.pid) == (last, ASKED) and 0 < (stall.seconds or 0) < LIMIT
    assert filling.stalls({ASKED}) == []
    assert filling.populated(last, ASKED)


def test_the_rate_holds(tree: Path) -> None:
    began = time.monotonic()
    fill(population(tree, Rate(files=COUNT * 5)))
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(("rate", "seconds"), [(Rate(), 0), (Rate(100), 0.5), (Rate(0, 4), 0.25), (Rate(100, 1), 1)])
def test_the_slower_rate_decides(rate: Rate, seconds: float) -> None:
    assert rate.seconds(50) == seconds


def test_a_cache_without_room_is_told(tree: Path) -> None:
    filling = Population(image.read(tree), tree / "nowhere", Rate())
    filling.start(lambda: None)
    deadline = time.monotonic() + LIMIT
    while not filling.fault() and time.monotonic() < deadline:
        os.sched_yield()
    assert filling.fault() == f"the content of the image cannot be cached: {os.strerror(errno.ENOENT)}"
