# SPDX-License-Identifier: GPL-2.0-only
"""`check`: from a command line to an exit code."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from command import bootstrap
from command.guest import DEFAULT, compile_packages
from command.native import in_child
from command.output import to_descriptor
from kernel import choice
from kernel.paths import cache_dir, made
from overlay_xfstests import jobs
from overlay_xfstests.check_options import Options, parse
from overlay_xfstests.orders import Orders
from overlay_xfstests.report import Counts
from overlay_xfstests.running import Running
from overlay_xfstests.sites import PACKAGES, Here, InGuest, Site
from union import syscalls
from union.errors import HarnessError, SetupError, Unsupported
from union.overlay import accepts
from union.workspace import enter_private_namespace

_KEPT: Final = 30  # results directories in the cache


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit code. Raises HarnessError."""
    try:
        return _run(parse(argv))
    except (HarnessError, OSError):
        raise
    except Exception:  # noqa: BLE001 - a fault of ours must not look like a failed test (exit 1)
        traceback.print_exc()
        return SetupError.exit_code


def _run(options: Options) -> int:
    here = _is_here(options)
    kernel = None if here else choice.kernel_file(_kernel(options), options.kernel_source)
    results = made(options.results or _new_directory())
    try:
        counts = _side_by_side(options, kernel, results) if options.jobs > 1 else _in_turn(options, kernel, results)
        if not options.is_part:
            print(_summary(counts))
    finally:
        if not options.is_part:
            print(f"results: {results}", flush=True)
    return _code(counts)


def _side_by_side(options: Options, kernel: Path | None, results: Path) -> Counts:
    """All tests, by several processes that do with some of them what this one would do with all."""
    program = [sys.executable, str(PACKAGES / "check"), str(options.checkout), "--part"]
    words = [f"--kernel={kernel or 'native'}", f"--cpus={options.cpus}", f"--memory={options.memory}",
             f"--fs={options.fs}", f"--size={options.size >> 20}M", f"--time-limit={options.time_limit}",
             f"--mount-options={options.mount_options}"]  # fmt: skip

    def command(part: Path, tests: Sequence[str]) -> list[str]:
        return [*program, *words, f"--results={part}", *tests]

    return jobs.run(command, options.tests, options.jobs, results, to_descriptor(sys.stdout.fileno()))


def _in_turn(options: Options, kernel: Path | None, results: Path) -> Counts:
    """All tests, one after the other."""
    site: Site = Here()
    if kernel is not None:
        site = InGuest(choice.guest_of(kernel, results, cpus=options.cpus, memory=options.memory))
        compile_packages()
        compileall.compile_dir(PACKAGES / "overlay_xfstests", quiet=2)
    orders = Orders(
        checkout=str(options.checkout),
        tests=options.tests,
        results=str(results),
        suite=str(bootstrap.CHECKOUT),
        python=sys.executable,
        fs=options.fs,
        size=options.size,
        mount_options=options.mount_options,
        limit=options.time_limit,
    )
    return Running(site, orders, to_descriptor(sys.stdout.fileno())).carry_out()


def _is_here(options: Options) -> bool:
    """Whether it goes to the running kernel; raises Unsupported if it was asked for and cannot."""
    if options.kernel not in ("native", "auto"):
        return False
    reason = _unsuitable(options.fs, with_option=options.kernel == "auto")
    if reason and options.kernel == "native":
        raise Unsupported(f"--kernel=native: {reason}")
    return not reason


def _unsuitable(fs: str, *, with_option: bool) -> str:
    """Why the running kernel will not do; empty if it will. Found out by doing."""
    if os.geteuid() != 0:
        return f"mounting needs root, this is uid {os.geteuid()}"
    try:
        return "; ".join(in_child(lambda: _lacking(fs, with_option)))
    except Unsupported as error:
        return str(error)


def _lacking(fs: str, with_option: bool) -> list[str]:
    enter_private_namespace()
    release = os.uname().release
    reasons = [f"kernel {release} has no {name}" for name in ("overlay", fs) if not syscalls.knows_filesystem(name)]
    if not Path("/dev/loop-control").exists():
        reasons.append("there is no /dev/loop-control")
    if with_option and not reasons and (refusal := accepts(("xino", "nofollow"))):
        reasons.append(f"kernel {release} refuses xino=nofollow: {refusal}")
    return reasons


def _kernel(options: Options) -> str:
    return DEFAULT if options.kernel == "auto" else options.kernel


def _new_directory() -> Path:
    """A new directory for results in the cache, with the time in its name; the oldest of many go."""
    home = made(cache_dir() / "xfstests")
    old = sorted(path for path in home.iterdir() if re.fullmatch(r"\d{8}-\d{6}-\d+", path.name))
    for path in old[: -_KEPT + 1]:
        shutil.rmtree(path, ignore_errors=True)
    return made(home / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def _summary(counts: Counts) -> str:
    passed = len(counts.tests) - len(counts.failed) - len(counts.not_run)
    return f"{passed} passed, {len(counts.failed)} failed, {len(counts.not_run)} not run"


def _code(counts: Counts) -> int:
    if counts.failed:
        return 1
    return Unsupported.exit_code if len(counts.not_run) == len(counts.tests) else 0
