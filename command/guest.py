# SPDX-License-Identifier: GPL-2.0-only
"""A run inside a guest: get a kernel, boot it, and let the same command run in there."""

from __future__ import annotations

import compileall
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from command import bootstrap, native, results
from command.options import Options
from command.output import Sink, copied, to_descriptor
from command.underway import UnderWay
from kernel import choice
from kernel.guest import GuestResult, Outcome
from union.errors import KernelFault, SetupError

BOOT_LIMIT = 30  # seconds
DEFAULT = "6.12"  # the kernel that `auto` takes when the running one will not do
PACKAGES = ("command", "datasets", "kernel", "report", "tests/mounts", "tests/union", "union")
SHARED = "/tmp/results"  # in the guest: the directory of --results
KILLED = 128  # and the number of the signal: the exit status of a command that one ended
FAULTS = (Outcome.PANIC, Outcome.OOPS)
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(options: Options) -> int:
    """Carry the run out in a guest with the kernel `options` asks for; returns its exit code.

    Raises KernelFault when the kernel came to harm, SetupError when the guest was lost in another way, UsageError for a
    bad kernel.
    """
    code = 0
    try:
        with results.written(options.results, options.command()):
            code = carry(options)
    except results.CannotWrite:
        if code != SetupError.exit_code:  # else the run itself has said so
            raise
    return code


def carry(options: Options, more: Sequence[str] = (), visible: Sequence[Path] = ()) -> int:
    """The same without reports, with `more` words on the guest's command line.

    It sees the directories `visible` of the host, wherever they lie.
    """
    arguments = [*options.words, "--kernel=native", *options.choice.words, *more]
    with copied(to_descriptor(sys.stdout.fileno()), options.log_dir) as out:
        under_way = UnderWay(out)
        result = _boot(options, flavour(options), arguments, under_way, to_descriptor(sys.stderr.fileno()),
                       visible)  # fmt: skip
        if result.outcome is not Outcome.EXITED:
            _mourn(result, under_way, options.command())
        return _status(result)


def flavour(options: Options) -> str:
    """The name of a kernel that can be built, or the path of a binary."""
    return DEFAULT if options.kernel == "auto" else options.kernel


def capture(options: Options, kernel: str, arguments: list[str]) -> tuple[int, str]:
    """Run `./run ARGUMENTS` in a guest; its exit code and all it printed."""
    text = bytearray()
    result = _boot(options, kernel, arguments, text.extend, text.extend)
    if result.outcome is not Outcome.EXITED:
        raise SetupError(f"guest: {result.explain()}")
    return _status(result), text.decode(errors="replace")


def _boot(
    options: Options, kernel: str, arguments: list[str], out: Sink, err: Sink, visible: Sequence[Path] = ()
) -> GuestResult:
    """Raises SetupError when there can be no guest, UsageError for a bad kernel."""
    file = choice.kernel_file(kernel, options.kernel_source)
    guest = choice.guest_of(file, options.log_dir, cpus=options.cpus)
    if options.configuration.detach or options.action == "controls":
        native.ensure_programs()
    compile_packages()
    sys.stdout.flush()
    command = [sys.executable, "-B", str(bootstrap.CHECKOUT / "run"), *arguments]
    shared = [(options.results, SHARED)] if options.results else []
    environment = {native.COMMAND: options.command(), "PATH": SEARCH, "LC_ALL": "C.UTF-8", **dict(options.variables)}
    if shared:
        environment[results.VARIABLE] = f"{SHARED}/{results.EVENTS}"
    result = guest.run(
        command,
        cwd=bootstrap.CHECKOUT,
        env=environment,
        time_limit=options.time_limit,
        boot_limit=min(BOOT_LIMIT, options.time_limit),
        on_stdout=out,
        on_stderr=err,
        shared=shared,
        visible=[*visible, *(Path(path) for path in sys.path if os.path.isabs(path))],
    )
    if result.outcome is Outcome.NOT_BOOTED:
        guest.release()  # a better complaint if it is no kernel at all
    return result


def _mourn(result: GuestResult, under_way: UnderWay, command: str) -> None:
    """Say what the console said last and, unless the run came to its end all the same, what it was at."""
    print(f"\nthe guest's console ends with:\n{result.console_tail}")
    scenario = under_way.scenario()
    if scenario and result.status is None:
        selector, label = scenario
        word = "FAILED" if result.outcome in FAULTS else "ERROR"
        print(f"\n{word} {selector}: {label}\n    {result.verdict()}\n    reproduce: {command} {selector}")
    sys.stdout.flush()


def _status(result: GuestResult) -> int:
    """The exit code of a run that came to its end on a sound kernel; raises KernelFault or SetupError for others."""
    if result.outcome is Outcome.EXITED and result.status is not None:
        if result.status > KILLED and result.status != KILLED + signal.SIGINT:
            raise SetupError(f"guest: signal {result.status - KILLED} ended the run, for want of memory or by a bug")
        return result.status
    # A run that had erred by itself has, whatever its kernel said.
    faulty = result.outcome in FAULTS and result.status != SetupError.exit_code
    raise (KernelFault if faulty else SetupError)(f"guest: {result.explain()}")


def compile_packages() -> None:
    """The guest sees a read-only root, so byte code must be there before it starts."""
    for package in PACKAGES:
        compileall.compile_dir(bootstrap.CHECKOUT / package, quiet=2)
    compileall.compile_dir(bootstrap.CHECKOUT / "tests", maxlevels=0, quiet=2)
    compileall.compile_file(bootstrap.CHECKOUT / "mount_union.py", quiet=2)
