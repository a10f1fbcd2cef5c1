# SPDX-License-Identifier: GPL-2.0-only
"""`./run --matrix`: every sensible configuration as a run of its own, and a table of what they gave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tabulate import tabulate
from tqdm import tqdm

from command import bootstrap
from command.options import Options, parse
from union.errors import SetupError, Unsupported, UsageError

OPTIONS = "UNIONMOUNT_MNTOPTIONS"


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration: the words of its command line, and mount options."""

    words: tuple[str, ...]
    options: str = ""

    @property
    def name(self) -> str:
        """What selects it: its words without dashes, as one word."""
        words = [word.removeprefix("--") for word in self.words]
        return "-".join([*words, *([f"o-{self.options}"] if self.options else [])])

    def command(self) -> str:
        """The command line."""
        variable = f"{OPTIONS}={self.options} " if self.options else ""
        return f"{variable}./run {' '.join(self.words)}"


def _rows() -> Iterator[Row]:
    for layout in ("", "--samefs", "--squashfs", "--erofs"):
        for feature in ("", "--verify", "--xino --detach=off"):
            yield _row("--ov", layout, feature)
    for words in ("--no", "--no --ts=1", "--ov --ts=1", "--ov --xdev", "--ov --xdev --ts=1", "--ov --meta"):
        yield _row(words)
    for words in ("--meta --verify", "--maxfs=1", "--maxfs=1 --xino --detach=off"):
        yield _row("--ov", words)
    for lower, upper in (("xfs", "tmpfs"), ("xfs", "xfs"), ("ext4", "ext4"), ("btrfs", "btrfs"), ("tmpfs", "xfs")):
        yield _row("--ov", f"--lower-fs={lower}", f"--upper-fs={upper}")
    for words in ("--ov=3", "--ov=3 --samefs --verify", "--ov=3 --verify", "--ov=3 --maxfs=2 --xino --detach=off"):
        yield _row(words)
    yield _row("--ov=3 --meta --verify")
    for words in ("", "--samefs --verify", "--xino --verify --detach=off", "--samefs --xino --detach=off"):
        yield _row("--ovov", words)
    yield _row("--ovov --squashfs")
    for words in ("--samefs --verify", "--xino --detach=off"):
        yield _row("--ovov=3", words)
    for options in ("nfs_export=on", "userxattr", "redirect_dir=nofollow", "volatile", "xino=auto", "uuid=null"):
        yield _row("--ov", options=options)
    yield from _detach_rows()


def _detach_rows() -> Iterator[Row]:
    for upper in ("tmpfs", "xfs", "ext4", "btrfs"):
        for way in ("mail", "dfs"):
            yield _row("--ov --xino", f"--upper-fs={upper}", f"--migrate={way}")
    for lower in ("ext4", "btrfs", "fuse"):
        yield _row("--ov --xino", f"--lower-fs={lower}")
    for image in ("squashfs", "erofs"):
        yield _row("--ov --xino", f"--{image}")
    for fence in ("shutdown-flushed", "overwritten", "truncated", "counters"):
        yield _row("--ov --xino --operations=after", f"--fence={fence}")
    for fence in ("killed", "aborted", "stopped", "failing", "lying"):
        yield _row("--ov --xino --operations=after --lower-fs=fuse", f"--fence={fence}")
    yield _row("--ovov --xino --lower-fs=fuse")
    for words in ("--ov", "--ov --verify", "--ov --meta", "--ov --xdev", "--ov --ts=1", "--ov --maxfs=1"):
        yield _row(words, "--xino", "--migrate=dfs" if words == "--ov" else "")
    for words in ("--ov=2", "--ov=5 --verify", "--ovov", "--ovov --verify", "--ovov=2"):
        yield _row(words, "--xino")
    for options in ("volatile", "redirect_dir=nofollow", "userxattr"):
        yield _row("--ov --xino", options=options)


def _row(*words: str, options: str = "") -> Row:
    return Row(tuple(" ".join(words).split()), options)


ROWS = tuple(dict.fromkeys(_rows()))


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave: its exit code, its last line, its evidence and its time in seconds."""

    row: Row
    code: int
    counts: str
    evidence: dict[str, str]
    said: str
    seconds: float
    failing: tuple[str, ...] = ()  # scenarios and checks that did not hold

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        passed, failed, skipped = self.number("passed"), self.number("failed"), self.number("skipped")
        numbers = (passed, failed, skipped) if self.counts else ("", "", "")
        verdict = VERDICTS.get(self.code, f"exit {self.code}")
        return (self.row.command(), verdict, *numbers, f"{self.seconds:.1f}", self.proof())

    def number(self, word: str) -> str:
        """How many scenarios had this outcome."""
        found = re.search(rf"(\d+) {word}", self.counts)
        return found[1] if found else ""

    def proof(self) -> str:
        """Of a detach run what was opaque and copied up, and the fence; of a refused one the kernel's reason; of a
        failed one what failed.
        """
        if self.failing:
            more = f" and {len(self.failing) - SHOWN} more" if len(self.failing) > SHOWN else ""
            return " ".join(self.failing[:SHOWN]) + more
        if self.code in (SetupError.exit_code, Unsupported.exit_code):
            return self.said.removeprefix("run: ")
        if "fence" not in self.evidence:
            return ""
        fence = self.evidence["fence"].partition(";")[0]
        return f"opaque {self.evidence['directories opaque']}, upper {self.evidence['objects in upper']}, {fence}"


SHOWN = 3  # failing scenarios
VERDICTS = {0: "passed", 1: "FAILED", 2: "USAGE", 3: "ERROR", 4: "unsupported"}


def run(options: Options) -> int:
    """Run the rows that the words pick, or all; the worst of their exit codes, unsupported ones aside."""
    rows = chosen(options.choice.words)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(rows), unit="run", disable=not sys.stderr.isatty(), leave=False) as bar,
    ):
        results = []
        for result in pool.map(lambda row: _carry_out(row, options.kernel), rows):
            results.append(result)
            bar.update()
    headers = ("configuration", "verdict", "passed", "failed", "skipped", "seconds", "evidence or reason")
    print(tabulate([result.cells() for result in results], headers=headers, disable_numparse=True))
    done = [result for result in results if result.code == 0]
    unsupported = [result for result in results if result.code == Unsupported.exit_code]
    bad = [result.code for result in results if result not in done and result not in unsupported]
    print(f"\n{len(done)} passed, {len(bad)} failed, {len(unsupported)} skipped")
    if not bad:
        return 0 if done else Unsupported.exit_code
    return 1 if 1 in bad else max(bad)


def chosen(patterns: Sequence[str]) -> list[Row]:
    """The rows whose name matches one of the patterns, all without any; UsageError for one that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            raise UsageError(f"no configuration matches {pattern!r}; their names are like {ROWS[1].name}")
    return [row for row in ROWS if not patterns or any(fnmatchcase(row.name, pattern) for pattern in patterns)]


def _carry_out(row: Row, kernel: str) -> Result:
    parse(row.words)  # a mistake of ours is found before it costs a run
    command = [sys.executable, str(bootstrap.CHECKOUT / "run"), *row.words, f"--kernel={kernel}"]
    environment = {**os.environ, **({OPTIONS: row.options} if row.options else {})}
    begin = time.monotonic()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    seconds = time.monotonic() - begin
    last = done.stdout.rstrip("\n").rpartition("\n")[2]
    evidence = dict(re.findall(r"^([a-z][a-z ]+?)  +(\S.*)$", done.stdout, re.MULTILINE))
    counts = last if re.search(r"\d+ passed", last) else ""
    failing = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+:\d+): ", done.stdout, re.MULTILINE))
    said = done.stderr.strip().rpartition("\n")[2]
    return Result(row, done.returncode, counts, evidence, said, seconds, failing)
