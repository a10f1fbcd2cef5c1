# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin: with `--workers-in` each worker of pytest-xdist lives in a guest of its own.

    pytest -p tests.guest_workers --workers-in=6.12 -n 2 ...

For tests that must themselves run on that kernel; scenarios need it not, see `guest_unions.py`.

A test that brings its kernel down, or hangs it, fails alone, with the end of the console in its report; the worker
is replaced by one in a fresh guest.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kernel import choice
from kernel.errors import HarnessError
from kernel.gateway import WATCHED, obituary
from kernel.private import private_dir
from kernel.recipe import NATIVE

LIMIT = 300
"""Seconds that a test may take in a guest."""

CHECKOUT = Path(__file__).resolve().parents[1]
_kernel = pytest.StashKey[tuple[str, str]]()
_obituaries = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    group = parser.getgroup("guests", "kernels for the tests")
    group.addoption(
        "--workers-in",
        metavar="KERNEL",
        help=f"Run the workers themselves in guests: {', '.join(choice.names())}, or the path of a User-mode Linux "
        f"binary or a bzImage; {NATIVE} is the running kernel.",
    )
    group.addoption(
        "--test-limit",
        type=int,
        default=LIMIT,
        metavar="SECONDS",
        help="Time that a test may take in a guest; one that takes longer hangs, and its guest is ended.",
    )


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Without `-n` one worker runs all tests: there is no other way into a guest, and none is tested here instead."""
    if config.getoption("--workers-in") not in (None, NATIVE) and WATCHED not in os.environ:
        if not config.pluginmanager.hasplugin("xdist"):
            raise pytest.UsageError("a guest for the tests needs pytest-xdist")
        if config.getoption("usepdb"):
            raise pytest.UsageError("--pdb does not reach into a guest")
        if not (config.option.numprocesses or config.option.tx):
            config.option.numprocesses = 1
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """In a guest: what was chosen on the host to be written to is not there, or cannot be written."""
    if WATCHED in os.environ:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = "/tmp/hypothesis"
        if config.option.basetemp:
            Path(config.option.basetemp).parent.mkdir(parents=True, exist_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Put the interpreters of all local workers into guests."""
    kernel: str = config.getoption("--workers-in") or NATIVE
    if kernel == NATIVE:
        return
    try:
        binary = choice.kernel_file(kernel)
        release = choice.guest_of(binary).release()
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    stack = ExitStack()
    config.add_cleanup(stack.close)
    directory = stack.enter_context(private_dir()).path
    config.stash[_obituaries] = directory
    config.stash[_kernel] = (kernel if kernel in choice.names() else release, kernel)
    program = [sys.executable, "-m", "kernel.gateway", str(binary.resolve()), f"--obituaries={directory}"]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    for spec in specs:
        if spec.popen and not spec.python:
            spec.python = shlex.join(program)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the worker which kernel it has."""
    node.workerinput["kernel"] = kernel_of(node.config)


def kernel_of(config: pytest.Config) -> tuple[str, str]:
    """The kernel of the tests: a name for ids, and what `--kernel` takes."""
    told: tuple[str, str] | None = getattr(config, "workerinput", {}).get("kernel")
    return told or config.stash.get(_kernel, (NATIVE, NATIVE))


def workers_of(config: pytest.Config) -> int:
    """How many workers share the tests, 1 without any."""
    told: int | None = getattr(config, "workerinput", {}).get("workercount")
    return told or len(getattr(config.option, "tx", None) or [0])


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    """Say in the report of a test that ended its guest what the guest said last."""
    directory = report.node.config.stash.get(_obituaries, None)
    text = obituary(directory, report.node.gateway._io.popen.pid) if directory else ""
    if text:
        report.longrepr = f"{report.longrepr}\n{text}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """In a guest: have the host end it if the test takes too long, whatever state the kernel is in by then."""
    watched = os.environ.get(WATCHED)
    if watched is None:
        return (yield)
    _limit(watched, item.config.getoption("--test-limit"))
    try:
        return (yield)
    finally:
        _limit(watched, 0)


def _limit(watched: str, seconds: int) -> None:
    # Not through a file object: it would seek.
    fd = os.open(watched, os.O_WRONLY | os.O_NOCTTY)
    try:
        os.write(fd, b"limit %d\n" % seconds)
    finally:
        os.close(fd)
