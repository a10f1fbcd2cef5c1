# SPDX-License-Identifier: GPL-2.0-only
"""Tests that mount: each in a child process with a mount namespace of its own, so the host sees nothing."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ParamSpec

import pytest

from union.errors import HarnessError
from union.programs import find_program
from union.stand import Stand
from union.workspace import enter_private_namespace, scratch_directory

P = ParamSpec("P")


def isolated(test: Callable[P, None]) -> Callable[P, None]:
    """Run the test in a forked child in a private mount namespace; its failure or skip becomes ours."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        outcome, _, text = _in_child(lambda: test(*args, **kwargs)).partition("\0")
        if outcome == "skipped":
            pytest.skip(text)
        assert outcome == "passed", text or "the child process died"

    return run


def _in_child(work: Callable[[], None]) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "w", errors="replace") as pipe:
                pipe.write(_outcome(work))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        outcome = pipe.read()
    os.waitpid(child, 0)
    return outcome


def _outcome(work: Callable[[], None]) -> str:
    try:
        enter_private_namespace()
        work()
    except pytest.skip.Exception as skipped:
        return f"skipped\0{skipped}"
    except BaseException:  # noqa: BLE001 - whatever it is, the parent shows it
        return f"failed\0{traceback.format_exc()}"
    return "passed\0"


@contextmanager
def stand() -> Iterator[Stand]:
    """A stand for trials, in the mount namespace that the test is in."""
    with ExitStack() as stack:
        place = scratch_directory(stack) / "t"
        place.mkdir()
        yield Stand(stack, place)


def _no_mounts() -> list[str]:
    reasons = [] if os.geteuid() == 0 else [f"needs root, this is uid {os.geteuid()}"]
    if not reasons and _in_child(lambda: None) != "passed\0":
        reasons.append("root here has no CAP_SYS_ADMIN")
    return reasons


def _no_filesystem(name: str) -> list[str]:
    known = [line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()]
    return [] if name in known else [f"this kernel has no {name}"]


def _no_fuse() -> list[str]:
    device = [] if Path("/dev/fuse").exists() else ["no /dev/fuse"]
    return _no_filesystem("fuse") + device


def _no_xfs() -> list[str]:
    reasons = _no_filesystem("xfs")
    for program in ("mkfs.xfs", "xfs_io"):
        try:
            find_program(program, "xfsprogs")
        except HarnessError as error:
            reasons.append(str(error))
    if not Path("/dev/loop-control").exists():
        reasons.append("no loop driver")
    return reasons


def _unless(reasons: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(reasons), reason="; ".join(reasons) or "nothing is missing")


needs_mounts = _unless(_no_mounts())
needs_overlay = _unless(_no_mounts() + _no_filesystem("overlay"))
needs_fuse = _unless(_no_mounts() + _no_fuse())
needs_xfs = _unless(_no_mounts() + _no_filesystem("overlay") + _no_xfs())
