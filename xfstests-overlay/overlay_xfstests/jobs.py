# SPDX-License-Identifier: GPL-2.0-only
"""Tests side by side: the same command several times, each with a part of the tests, and one tree of results."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kernel.paths import made
from overlay_xfstests import report
from overlay_xfstests.report import Counts
from overlay_xfstests.sites import Sink
from union.errors import SetupError

LOG, TIMES = "check.log", "check.time"
_FINE: Final = (0, 1, 4)


def run(command: Callable[[Path, Sequence[str]], list[str]], tests: Sequence[str], jobs: int, results: Path,
        out: Sink) -> Counts:  # fmt: skip
    """Run `command` of a directory and some tests for each of `jobs` parts; whole lines go to `out` as they come.

    Returns what came out; `results` has it as if there had been one. Raises SetupError if a part could not be run to
    its end, which it has said itself on stderr. Ctrl-C ends all parts before it is passed on.
    """
    _forget(results)
    parts = {made(results / f"part-{n + 1}"): tests[n::jobs] for n in range(min(jobs, len(tests)))}
    try:
        statuses = _together({part: command(part, some) for part, some in parts.items()}, results, out)
    finally:
        for part in parts:
            _gather(part, results)
    if failed := [status for status in statuses if status not in _FINE]:
        raise SetupError(f"{len(failed)} of {len(parts)} jobs could not be carried out")
    return report.counts(results / report.NAME)


def _forget(results: Path) -> None:
    for part in results.glob("part-*"):
        shutil.rmtree(part)
    for old in results.glob("result*.xml"):
        old.unlink()


def _together(commands: dict[Path, list[str]], results: Path, out: Sink) -> list[int]:
    """Run the commands to their ends; returns their exit statuses. What they call their part is called `results`."""
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        stack.callback(_end, processes)
        for part, command in commands.items():
            # A session of its own: Ctrl-C comes from us, not from the terminal.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
            processes.append(process)
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, Lines(out, {str(part): str(results)}))
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                key.data(data)
                if not data:
                    selector.unregister(key.fileobj)
        return [process.wait() for process in processes]


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()
        if process.stdout:
            process.stdout.close()


class Lines:
    """Passes whole lines on to `out`, with some words replaced by others; the rest when no more bytes come."""

    def __init__(self, out: Sink, words: dict[str, str]) -> None:
        self._out = out
        self._words = {old.encode(): new.encode() for old, new in words.items()}
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        """Take the next bytes; none at the end."""
        whole, end, rest = (self._rest + data).rpartition(b"\n")
        lines, self._rest = (whole + end, rest) if data else (self._rest, b"")
        for old, new in self._words.items():
            lines = lines.replace(old, new)
        if lines:
            self._out(lines)


def _gather(part: Path, results: Path) -> None:
    """Move what is in `part` to `results`; lists are joined."""
    for path in sorted(part.rglob("*")):
        to = results / path.relative_to(part)
        if path.is_dir():
            to.mkdir(exist_ok=True)
        elif path.name == report.NAME:
            report.merge([one for one in (to, path) if one.exists()], (), {}, to)
        elif path.name == LOG:
            with to.open("ab") as file:
                file.write(path.read_bytes())
        elif path.name == TIMES:
            times = dict(line.split(" ", 1) for file in (to, path) if file.exists() for line in _lines(file))
            to.write_text("".join(f"{test} {seconds}\n" for test, seconds in sorted(times.items())))
        else:
            path.replace(to)
    shutil.rmtree(part)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if " " in line]
