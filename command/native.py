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
from union import syscalls
from union.configuration import Configuration
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.layers import enter_private_namespace
from union.overlay import accepts
from union.runner import Runner
from union.scenario import Group, When

COMMAND = "OVL_DETACH_COMMAND"  # in a guest: the command line given on the host, for reproducer lines
MOUNTPOINT = Path("/mnt")


def chosen(options: Options) -> bool:
    """Whether the run goes to the running kernel; raises Unsupported if it was asked for and cannot."""
    if options.kernel == "native":
        reasons = unsuitable(options.configuration)
        if reasons:
            raise Unsupported(f"the running kernel cannot do this: {'; '.join(reasons)}")
        return True
    return options.kernel == "auto" and not unsuitable(options.configuration)


def unsuitable(configuration: Configuration) -> list[str]:
    """Every reason why the running kernel cannot carry out `configuration`; empty if it can.

    Found out by doing. A fault of our own is no reason: it is raised as the HarnessError that it is.
    """
    if os.geteuid() != 0:
        return [f"mounting needs root, this is uid {os.geteuid()}"]
    try:
        return in_child(lambda: _lacking(configuration))
    except Unsupported as error:
        return [str(error)]


def _lacking(configuration: Configuration) -> list[str]:
    enter_private_namespace()
    release = os.uname().release
    wanted = ("overlay", "tmpfs", "xfs") if configuration.detach else ("overlay", "tmpfs")
    reasons = [f"kernel {release} has no {name}" for name in wanted if not syscalls.knows_filesystem(name)]
    if configuration.detach and not reasons:
        refusal = accepts(("xino", configuration.xino))
        reasons += [f"kernel {release} refuses xino={configuration.xino}: {refusal}"] if refusal else []
    return reasons


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """What `work` answers, done in a child process: its namespaces and mounts go with it.

    A HarnessError of `work` is raised here again, anything else it raises as a SetupError.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = SetupError.exit_code
        try:
            os.close(reader)
            lines, status = _answer(work)
            with os.fdopen(writer, "w") as pipe:
                pipe.write("\0".join(lines))
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        kinds = {kind.exit_code: kind for kind in (UsageError, Unsupported)}
        raise kinds.get(code, SetupError)(text or "a child process of the run died without an answer")
    return text.split("\0") if text else []


def _answer(work: Callable[[], list[str]]) -> tuple[list[str], int]:
    try:
        return work(), 0
    except HarnessError as error:
        return [str(error)], error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the parent as our fault
        return [f"{type(error).__name__}: {error}"], SetupError.exit_code


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
