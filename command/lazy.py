# SPDX-License-Identifier: GPL-2.0-only
"""`--lazy[=VARIANT]`: a layer that is loaded lazily while a workload runs, is migrated away, and dies.

The run itself is in a guest, or on the running kernel if that can. It leaves what it has recorded as JSON in a
directory that it shares with us, of which the plot is drawn here: no guest needs what that takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from tabulate import tabulate

from command import bootstrap, image, native, results
from command.lazy_options import Lazy
from command.options import Options
from union.errors import SetupError, UsageError
from union.lazy import image as images
from union.lazy import run as lazily
from union.lazy.image import Image
from union.lazy.run import Plan, Told
from union.lazy.table import record, rows
from union.workspace import enter_private_namespace

RECORD: Final = "lazy.json"
_GOES_ON: Final = 1.5  # seconds, of a round
_SHOWN: Final = 10  # complaints of a run


def run(options: Options, lazy: Lazy) -> int:
    """Carry it out, print what was measured and what was wrong; 1 if anything was.

    Raises HarnessError for what is our own fault, or when nothing can run here.
    """
    here = native.chosen(replace(options, configuration=replace(options.configuration, detach=True)))
    if native.COMMAND in os.environ:
        assert lazy.image is not None
        return carry_out(options, lazy, lazy.image, Path(os.environ[results.VARIABLE]).with_name(RECORD))
    if lazy.plot:
        check_place(lazy.plot)
    tree = lazy.image or image.fetch(image.LARGE if lazy.variant == "story" else image.SMALL)
    with ExitStack() as stack:
        directory = _directory(options, stack)
        (directory / RECORD).unlink(missing_ok=True)
        if here:
            code = carry_out(options, lazy, tree, directory / RECORD)
        else:
            from command import guest

            code = guest.carry(replace(options, results=directory), [f"--image={tree}"], [tree])
        if lazy.plot and (directory / RECORD).exists():
            draw(directory / RECORD, lazy.plot)
            print(f"plot: {lazy.plot}")
    return code


def _directory(options: Options, stack: ExitStack) -> Path:
    """Where the record goes: the one of --results, or one for the time being."""
    if options.results is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovl-lazy-")))
    try:
        options.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--results: cannot write to {options.results}: {error.strerror}") from error
    return options.results


def check_place(plot: Path) -> None:
    """Raises UsageError if the plot cannot be written there, which is better known before the run than after it."""
    directory = plot.absolute().parent
    if not os.access(directory, os.W_OK):
        raise UsageError(f"--plot: {directory} cannot be written to: name another FILE")


def draw(recorded: Path, plot: Path) -> None:
    """Draw the plot of a record. Raises SetupError when that cannot be."""
    python = bootstrap.interpreter("plot")
    command = [python, "-m", "report.plot", str(recorded.absolute()), str(plot.absolute())]
    own = {"MPLCONFIGDIR": str(bootstrap.cache_directory() / "matplotlib")}  # where it keeps what it knows of fonts
    done = subprocess.run(command, cwd=bootstrap.CHECKOUT, env=os.environ | own, capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise SetupError(f"--plot: {plot} cannot be drawn: {last or f'exit status {done.returncode}'}")


def carry_out(options: Options, lazy: Lazy, tree: Path, recorded: Path) -> int:
    """The run itself, on the running kernel."""
    enter_private_namespace()
    content = images.read(tree)
    how = native.command(options)
    if lazy.variant == "kill":
        return _rounds(options, lazy, tree, content, how)
    told = lazily.play(_plan(options, lazy, tree, lazy.seed), content, _say)
    print(f"\n{tabulate(rows(told), tablefmt='plain')}\n")
    recorded.write_text(json.dumps(record(told)))
    for line in told.complaints[:_SHOWN]:
        print(f"FAILED {line}")
    if told.complaints:
        print(f"    reproduce: {how}\n\nfailed: {len(told.complaints)} complaints")
    else:
        print("passed")
    return 1 if told.complaints else 0


def _plan(options: Options, lazy: Lazy, tree: Path, seed: int) -> Plan:
    pause = 0.1 if lazy.variant == "story" else 0.03  # the whole story is long enough
    return Plan(tree, lazy.variant, lazy.rate, options.configuration.upper_fs, seed=seed, pause=pause)


def _say(line: str) -> None:
    print(line, flush=True)


def _rounds(options: Options, lazy: Lazy, tree: Path, content: Image, how: str) -> int:
    """Kill the daemon at random moments, each round with a seed of its own."""
    table = []
    failed = 0
    print(f"seed {lazy.seed}", flush=True)
    for seed in range(lazy.seed, lazy.seed + lazy.rounds):
        moment = Random(seed).uniform(-0.2, 1.4)
        told = lazily.play(replace(_plan(options, lazy, tree, seed), moment=moment, goes_on=_GOES_ON), content)
        table.append(_row(seed, moment, told))
        _say(f"seed {seed}: {told.phase}, {table[-1][-1]}")
        for line in told.complaints[:_SHOWN]:
            _say(f"FAILED {line}")
        if told.complaints:
            failed += 1
            words = " ".join(word for word in how.split(" ") if not word.startswith(("--seed=", "--rounds=")))
            _say(f"    reproduce: {words} --rounds=1 --seed={seed}")
    head = ("seed", "moment", "killed after", "phase", "steps", "errors", "wrong", "errors once detached", "outcome")
    print(f"\n{tabulate(table, headers=head)}\n\n{lazy.rounds - failed} of {lazy.rounds} rounds passed")
    return 1 if failed else 0


def _row(seed: int, moment: float, told: Told) -> tuple[object, ...]:
    assert told.account is not None
    when = told.events["killed"] - told.began
    strict = told.errors if told.phase == "detached" else "-"
    outcome = "failed" if told.complaints else "passed"
    steps = len(told.account.results)
    return seed, f"{moment:.2f}", f"{when:.2f} s", told.phase, steps, told.errors, told.wrong, strict, outcome
