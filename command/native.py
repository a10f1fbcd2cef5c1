# SPDX-License-Identifier: GPL-2.0-only
"""A run on the kernel we are running on, in a mount namespace of its own."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from command import output
from command.options import Options
from mount_union import mount_union
from report.events import Listener, Outcome
from report.terminal import Terminal
from tests.union import Selection, default_groups, select
from union.configuration import Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.layers import enter_private_namespace
from union.overlay import accepts
from union.runner import Runner
from union.scenario import Group, When

COMMAND = "OVL_DETACH_COMMAND"  # in a guest: the command line given on the host, for reproducer lines
MOUNTPOINT = Path("/mnt")
FILESYSTEMS = Path("/proc/filesystems")


def chosen(options: Options) -> bool:
    """Whether the run goes to the running kernel; raises Unsupported if it was asked for and cannot."""
    if options.kernel == "native":
        reasons = unsuitable(options.configuration)
        if reasons:
            raise Unsupported(f"the running kernel cannot do this: {'; '.join(reasons)}")
        return True
    return options.kernel == "auto" and not unsuitable(options.configuration)


def unsuitable(configuration: Configuration) -> list[str]:
    """Every reason why the running kernel cannot carry out `configuration`; empty if it can."""
    reasons = []
    if os.geteuid() != 0:
        return [f"mounting needs root, this is uid {os.geteuid()}"]
    known = {line.split()[-1] for line in FILESYSTEMS.read_text().splitlines()}
    wanted = ("overlay", "tmpfs", "xfs") if configuration.detach else ("overlay", "tmpfs")
    reasons += [f"kernel {os.uname().release} has no {name}" for name in wanted if name not in known]
    if "overlay" in known and configuration.detach:
        reasons += in_child(lambda: _refusal(configuration))
    return reasons


def _refusal(configuration: Configuration) -> list[str]:
    enter_private_namespace()
    refusal = accepts(("xino", configuration.xino))
    return [f"kernel {os.uname().release} refuses xino={configuration.xino}: {refusal}"] if refusal else []


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """What `work` answers, done in a child process: its namespaces and mounts go with it."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            try:
                lines = work()
                status = 0
            except HarnessError as error:
                lines = [str(error)]
            with os.fdopen(writer, "w") as pipe:
                pipe.write("\0".join(lines))
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status and not text:
        raise SetupError("a child process of the run died without an answer")
    return text.split("\0") if text else []


def run(options: Options) -> int:
    """Carry the run out here and print it; returns the exit code."""
    if options.configuration.detach and COMMAND not in os.environ:
        ensure_programs()
    with output.text(sys.stdout, options.log_dir) as out:
        terminal = Terminal(os.environ.get(COMMAND) or options.command(), verbose=options.verbose, out=out)
        carry_out(options.configuration, options.selectors, terminal)
        terminal.summary()
    return exit_code(terminal)


def ensure_programs() -> None:
    """Get the programs of a detach run; in a guest that was seen to on the host, whose root is read-only there."""
    from kernel import requirements
    from kernel.paths import new_log

    if requirements.missing(requirements.RUN):
        requirements.ensure(requirements.RUN, new_log("install"))


def carry_out(configuration: Configuration, selectors: tuple[str, ...], tell: Listener) -> None:
    """One union, all selected groups on it; raises HarnessError for what is our own fault."""
    selection = selected(configuration, selectors)
    gc.disable()  # a run is short and makes few cycles, but going through the model over and over takes time
    enter_private_namespace()
    os.umask(0o022)
    os.setgroups([])
    # A group named twice runs in a directory of its own each time: nothing is left over from the first.
    tops = [f"{group.name}.{turn}" if turn else group.name for turn, group in _turns([g for g, _ in selection])]
    sizes = {top: group.sets() for top, (group, _) in zip(tops, selection, strict=True)}
    with mount_union(configuration, sizes, MOUNTPOINT, tell) as union:
        runner = Runner(union.judge, union.log, tell)
        for top, (group, numbers) in zip(tops, selection, strict=True):
            runner.run_group(group, numbers, f"./run {configuration.how()}", top)
        union.finish(runner.spoiled)


def selected(configuration: Configuration, selectors: Sequence[str]) -> list[Selection]:
    """The scenarios that `selectors` pick, or the default ones; raises UsageError for a word that picks none."""
    groups = default_groups(configuration.directory_renames)
    selection = select(selectors or [group.name for group in groups], groups)
    for group, _ in selection:
        if group.when not in (When.ALWAYS, When.BY_NAME) and group not in groups:
            flag = "--xdev" if group.when is When.NO_DIRECTORY_RENAMES else "a run without --xdev"
            raise UsageError(f"{group.name} expects {group.when.value}: it belongs to {flag}")
    return selection


def _turns(groups: list[Group]) -> list[tuple[int, Group]]:
    return [(groups[:index].count(group), group) for index, group in enumerate(groups)]


def exit_code(terminal: Terminal) -> int:
    """3 if we erred or nothing ran, 1 if anything failed, else 0."""
    counts = terminal.counts
    if counts[Outcome.ERROR] or not sum(counts.values()):
        return 3
    return 1 if counts[Outcome.FAILED] else 0
