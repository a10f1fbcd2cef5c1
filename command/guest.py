# SPDX-License-Identifier: GPL-2.0-only
"""A run inside a guest: get a kernel, boot it, and let the same command run in there."""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

from command import bootstrap, native, results
from command.options import Options
from command.output import Sink, copied, to_descriptor
from kernel import choice
from kernel.guest import Guest, GuestResult, Outcome
from union.errors import SetupError

TIME_LIMIT = 900.0  # seconds for the whole run; a detach run takes a few
DEFAULT = "6.12"  # the kernel that `auto` takes when the running one will not do
PACKAGES = ("command", "datasets", "kernel", "report", "tests/mounts", "tests/union", "union")
SHARED = "/tmp/results"  # in the guest: the directory of --results
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(options: Options) -> int:
    """Carry the run out in a guest with the kernel `options` asks for; returns its exit code."""
    arguments = [*options.words, "--kernel=native", *options.choice.words]
    with (
        copied(to_descriptor(sys.stdout.fileno()), options.log_dir) as out,
        results.written(options.results, options.command()),
    ):
        return _boot(options, flavour(options), arguments, out, to_descriptor(sys.stderr.fileno()))


def flavour(options: Options) -> str:
    """The name of a kernel that can be built, or the path of a binary."""
    return DEFAULT if options.kernel == "auto" else options.kernel


def capture(options: Options, kernel: str, arguments: list[str]) -> tuple[int, str]:
    """Run `./run ARGUMENTS` in a guest; its exit code and all it printed."""
    text = bytearray()
    status = _boot(options, kernel, arguments, text.extend, text.extend)
    return status, text.decode(errors="replace")


def _boot(options: Options, kernel: str, arguments: list[str], out: Sink, err: Sink) -> int:
    """Raises SetupError when the guest does not bring its command to an end, UsageError for a bad kernel."""
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
        time_limit=TIME_LIMIT,
        on_stdout=out,
        on_stderr=err,
        shared=shared,
        visible=[Path(path) for path in sys.path if os.path.isabs(path)],
    )
    return _status(result, guest)


def _status(result: GuestResult, guest: Guest) -> int:
    if result.outcome is Outcome.EXITED and result.status is not None:
        return result.status
    if result.outcome is Outcome.NOT_BOOTED:
        guest.release()  # a better complaint if it is no kernel at all
    print(f"\nthe guest's console ends with:\n{result.console_tail}", flush=True)
    raise SetupError(f"guest: {result.explain()}")


def compile_packages() -> None:
    """The guest sees a read-only root, so byte code must be there before it starts."""
    for package in PACKAGES:
        compileall.compile_dir(bootstrap.CHECKOUT / package, quiet=2)
    compileall.compile_dir(bootstrap.CHECKOUT / "tests", maxlevels=0, quiet=2)
    compileall.compile_file(bootstrap.CHECKOUT / "mount_union.py", quiet=2)
