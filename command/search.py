# SPDX-License-Identifier: GPL-2.0-only
"""`--search[=LENGTH]`: all short sequences of operations in the small worlds, some guests at a time.

What was played is kept in the cache as it goes. A search that was interrupted goes on from there, unless the kernel,
or anything of ours that has a say in what comes out, is another one by now.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tqdm import tqdm

from command import bootstrap
from command.options import Options
from kernel.paths import cache_dir, made
from tests.guest_unions import InGuest
from tests.random.places import Place
from tests.scenario_kernel import Kernel, choose
from tests.scopes import stages
from tests.union_server import Here
from union.errors import Unsupported
from union.example import Example
from union.spelling import read, spelled
from union.worlds import Batch, Wrong, batches

SIZE: Final = 500
"""Sequences on one union: more cost less each, and more are lost when the search is interrupted."""
LIMIT: Final = 300  # seconds for one union
SHOWN: Final = 10  # sequences that went wrong, told in full
SOURCES: Final = ("datasets", "union", "mount_union.py")

Search = Callable[[Batch], list[Wrong]]
_Answer = tuple[Batch, list[Wrong]] | BaseException


def run(options: Options, length: int) -> int:
    """Search through all sequences of `length` operations; prints what was wrong, and returns 1 if anything was."""
    kernel = choose(stages("ov-xino"), None if options.kernel == "auto" else options.kernel, collecting=False)
    _check_option(kernel)
    number, of = options.choice.shard
    tasks = batches(length, SIZE)[number - 1 :: of]
    record = Record(made(cache_dir() / "searches") / f"{_key(kernel, tasks)}.jsonl")
    left = [batch for batch in tasks if str(batch) not in record.done]
    count, played = (sum(batch.last - batch.first for batch in some) for some in (tasks, left))
    if len(left) < len(tasks):
        print(f"goes on after {count - played} sequences")
    started = time.monotonic()
    with _bar(count, count - played) as advance:
        for batch, wrong in everywhere(left, options.jobs, lambda: _place(kernel)):
            record.add(batch, wrong)
            advance(batch.last - batch.first)
    seconds = time.monotonic() - started
    for one, file in zip(record.wrong[:SHOWN], _files(), strict=False):
        print("\n".join(["", *(f"FAILED {line}" for line in one.complaints), *_again(one, file, options)]))
    words = "" if (number, of) == (1, 1) else f", part {number} of {of}"
    print(
        f"{count} sequences of {length} operation{'s' * (length > 1)}{words}, before and after the detach and across "
        f"it, warm and cold, on {kernel.release}: {len(record.wrong)} wrong"
    )
    print(f"{played} of them now, in {seconds:.0f} s, {played / max(seconds, 1):.0f} a second")
    record.remove()
    return 1 if record.wrong else 0


class Record:
    """What a search has done so far, a line of JSON for each batch. Raises OSError when that cannot be kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: set[str] = set()
        self.wrong: list[Wrong] = []
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if line.endswith("\n"):  # the last one may have been cut off
                self._take(*json.loads(line))
        path.write_text("".join(line for line in lines if line.endswith("\n")))

    def add(self, batch: Batch, wrong: Sequence[Wrong]) -> None:
        """The batch is done."""
        found = [[spelled(one.example) if one.example else None, one.complaints] for one in wrong]
        with self._path.open("a") as file:
            file.write(json.dumps([str(batch), found]) + "\n")
        self._take(str(batch), found)

    def remove(self) -> None:
        """The search is over: the next one begins anew."""
        self._path.unlink()

    def _take(self, batch: str, wrong: Sequence[Sequence[object]]) -> None:
        self.done.add(batch)
        for text, complaints in wrong:
            assert isinstance(complaints, list | tuple)
            example = read(str(text)) if text else None
            assert example is None or isinstance(example, Example)
            self.wrong.append(Wrong(example, tuple(complaints)))


def everywhere(
    tasks: Sequence[Batch], jobs: int, start: Callable[[], Place]
) -> Iterator[tuple[Batch, list[Wrong]]]:
    """Search the batches at `jobs` places at a time, and yield each with what was wrong as it is done.

    Raises what goes wrong at a place. All places are closed at the end, by whatever exit.
    """
    waiting, answers = deque(tasks), SimpleQueue[_Answer]()
    places = [start() for _ in range(min(jobs, len(tasks)))]
    threads = [threading.Thread(target=_work, args=(place, waiting, answers)) for place in places]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        waiting.clear()
        for place in places:
            place.close(for_good=True)
        for thread in threads:
            thread.join()


def _work(place: Place, waiting: deque[Batch], answers: SimpleQueue[_Answer]) -> None:
    try:
        while waiting:
            batch = waiting.popleft()
            answers.put((batch, narrowed(batch, place.search)))
    except IndexError:  # another one took the last
        pass
    except BaseException as error:  # noqa: BLE001 - it goes on in the thread that waits for answers
        answers.put(error)


def narrowed(batch: Batch, search: Search) -> list[Wrong]:
    """What is wrong in the batch. A complaint about all of it is followed down to the sequences that bring it about."""
    wrong = search(batch)
    if all(one.example for one in wrong):
        return wrong
    if batch.last - batch.first == 1:
        [sequence] = batch.sequences()
        return [Wrong(batch.example(sequence), tuple(line for one in wrong for line in one.complaints))]
    edges = (batch.first, (batch.first + batch.last) // 2, batch.last)
    parts = [narrowed(batch._replace(first=first, last=last), search) for first, last in pairwise(edges)]
    return [one for part in parts for one in part] or wrong  # which may take all of them together


def _check_option(kernel: Kernel) -> None:
    place = InGuest(Path(kernel.program), LIMIT) if kernel.program else Here()
    try:
        if why := place.facts().options.get("xino=nofollow"):
            raise Unsupported(f"kernel {kernel.release} refuses xino=nofollow: {why}")
    finally:
        place.close()


def _place(kernel: Kernel) -> Place:
    return Place(lambda: InGuest(Path(kernel.program), LIMIT) if kernel.program else Here())


def _key(kernel: Kernel, tasks: Sequence[Batch]) -> str:
    """Stands for all that has a say in what comes out."""
    key = hashlib.sha256(repr((kernel.release, tasks)).encode())
    files = [Path(kernel.program)] if kernel.program else []
    for name in SOURCES:
        path = bootstrap.CHECKOUT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for file in files:
        key.update(file.read_bytes())
    return key.hexdigest()[:16]


@contextmanager
def _bar(total: int, initial: int) -> Iterator[Callable[[int], object]]:
    """On a terminal a bar, elsewhere a line for each tenth."""
    tty = sys.stdout.isatty()
    with tqdm(total=total, initial=initial, unit="sequence", file=sys.stdout, disable=not tty, ncols=100) as bar:
        done = initial

        def advance(count: int) -> None:
            nonlocal done
            bar.update(count)
            if not tty and done * 10 // total != (done + count) * 10 // total:
                print(f"{done + count} of {total} sequences", flush=True)
            done += count

        yield advance


def _files() -> Iterator[Path]:
    """Where the sequences that went wrong are kept, for `--play`."""
    directory = made(cache_dir() / "searches")
    for number in range(1, SHOWN + 1):
        yield directory / f"wrong-{number}"


def _again(wrong: Wrong, file: Path, options: Options) -> list[str]:
    """The line that repeats it."""
    if not wrong.example:
        return []
    file.write_text(spelled(wrong.example))
    kernel = "" if options.kernel == "auto" else f" --kernel={options.kernel}"
    return [f"reproduce: ./run --play {file}{kernel}"]

