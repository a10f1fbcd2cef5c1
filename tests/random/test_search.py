# SPDX-License-Identifier: GPL-2.0-only
"""`./run --search`: complete, also when it was interrupted, and what is wrong is followed to its sequence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import search
from command.search import Record, everywhere, narrowed
from kernel.build import build
from kernel.progress import Silent
from tests.random.places import Place
from tests.scenario_kernel import Kernel
from union.errors import SetupError
from union.worlds import Batch, Wrong, batches

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds
ALL = 1344  # sequences of one operation
BATCHES = batches(1, 50)
LOST = Wrong(None, ("the guest was lost",))


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """A cache of its own with the kernels of the real one."""
    real = build("6.12", progress=Silent()).path.parents[1]
    (tmp_path / "ovl-detach").mkdir()
    for kept in real.parent.iterdir():
        if kept.name != "searches":
            (tmp_path / "ovl-detach" / kept.name).symlink_to(kept)
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}


@contextmanager
def searching(environment: Mapping[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, f"{CHECKOUT}/run", *words, "--kernel=6.12", "--jobs=1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_search_that_was_interrupted_goes_on(environment: Mapping[str, str]) -> None:
    with searching(environment, "--search=1") as process:
        assert process.stdout and process.stdout.readline() == f"168 of {ALL} sequences\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 130 and err == "run: interrupted; everything it made is undone\n", out
    with searching(environment, "--search=1") as process:
        out, err = process.communicate(timeout=LIMIT)
    first, *_, summary, speed = out.splitlines()
    assert (process.returncode, err) == (0, "") and summary.startswith(f"{ALL} sequences of 1 operation,")
    assert summary.endswith(": 0 wrong") and first.startswith("goes on after ")
    before = int(first.split()[3])
    assert 168 <= before < ALL and speed.startswith(f"{ALL - before} of them now, ")
    assert not list(Path(environment["XDG_CACHE_HOME"], "ovl-detach", "searches").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--search=4"], 2, "LENGTH is 1, 2 or 3"),
        (["--search", "--ov"], 2, "takes no type"),
        (["--ov", "--jobs=2"], 2, "--jobs goes with --search"),
        (["--search", "--kernel=stock-6.12"], 4, "refuses xino=nofollow"),
    ],
)
def test_what_cannot_be_searched(words: list[str], code: int, complaint: str) -> None:
    done = subprocess.run([sys.executable, f"{CHECKOUT}/run", *words], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == code and not done.stdout and complaint in done.stderr and done.stderr.count("\n") == 1


class Pretended(Place):
    """A place that plays nothing: `answer` says what was wrong."""

    def __init__(self, answer: Callable[[Batch], list[Wrong]]) -> None:
        super().__init__(lambda: pytest.fail("it needs none"))
        self._answer = answer
        self.ended = False

    def search(self, batch: Batch) -> list[Wrong]:
        return self._answer(batch)

    def close(self, *, for_good: bool = False) -> None:
        self.ended = for_good


def test_each_batch_is_searched_once_at_some_place() -> None:
    places: list[Pretended] = []

    def start() -> Place:
        places.append(Pretended(lambda _: []))
        return places[-1]

    found = [batch for batch, _ in everywhere(BATCHES, 3, start)]
    assert sorted(found) == sorted(BATCHES) and len(places) == 3 and all(place.ended for place in places)


def test_what_goes_wrong_at_a_place_ends_the_search() -> None:
    def broken(batch: Batch) -> list[Wrong]:
        raise SetupError("broken")

    with pytest.raises(SetupError, match="broken"):
        list(everywhere(BATCHES, 2, lambda: Pretended(broken)))


def test_a_lost_guest_is_followed_to_the_sequences_that_lose_it() -> None:
    batch = batches(2, 64)[5]
    bad = {batch.first + 3, batch.first + 40}
    asked: list[Batch] = []

    def answer(part: Batch) -> list[Wrong]:
        asked.append(part)
        return [LOST] if bad & set(range(part.first, part.last)) else []

    found = narrowed(batch, answer)
    sequences = list(batch.sequences())
    assert [one.example for one in found] == [batch.example(sequences[3]), batch.example(sequences[40])]
    assert len(asked) < 30


def test_what_no_part_brings_about_is_told_all_the_same() -> None:
    batch = batches(2, 64)[5]
    assert narrowed(batch, lambda part: [LOST] if part == batch else []) == [LOST]


def test_a_record_is_read_back_without_its_torn_end(tmp_path: Path) -> None:
    [batch, other, *_] = BATCHES
    [sequence, *_] = batch.sequences()
    wrong = Wrong(batch.example(sequence), ("a", "b"))
    record = Record(tmp_path / "record")
    record.add(batch, [wrong, LOST])
    with (tmp_path / "record").open("a") as file:
        file.write('["torn')
    again = Record(tmp_path / "record")
    assert again.done == {str(batch)} and again.wrong == [wrong, LOST]
    again.add(other, [])
    assert Record(tmp_path / "record").done == {str(batch), str(other)}


def test_what_is_wrong_fails_the_search(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from command.options import parse

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel = Kernel("x", "x", "6.12-x", "")
    monkeypatch.setattr(search, "choose", lambda *_, **__: kernel)
    monkeypatch.setattr(search, "_check_option", lambda _: None)

    def one(batch: Batch) -> list[Wrong]:
        [sequence, *_] = batch.sequences()
        return [Wrong(batch.example(sequence), ("t/a: EIO",))]

    monkeypatch.setattr(search, "_place", lambda _: Pretended(one))
    assert search.run(parse(["--search=1"]), 1) == 1
    out = capsys.readouterr().out
    assert "FAILED t/a: EIO" in out and f"reproduce: ./run --play {tmp_path}/ovl-detach/searches/wrong-1\n" in out
    assert ": 8 wrong\n" in out
