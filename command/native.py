# SPDX-License-Identifier: GPL-2.0-only
"""A run on the kernel we are running on, in a mount namespace of its own."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from command import output, results
from command.options import TIME_LIMIT, Options
from mount_union import Union, mount_union
from report.events import Aborted, Checked, Finished, Listener, Noted, Outcome, StageStarted
from report.expected import Expecting
from report.record import Recorder, all_of
from report.terminal import Terminal
from tests.union import FAMILIES
from tests.union.choice import Choice
from union import syscalls
from union.configuration import Configuration
from union.detach import reached
from union.effective import effective
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.mountinfo import mounts
from union.overlay import MountRefused, accepts
from union.plan import NothingLeft, Selection, Share, plan
from union.runner import Runner, nothing
from union.trial import run_trials
from union.workspace import enter_private_namespace

COMMAND = "OVL_DETACH_COMMAND"  # in a guest: the command line given on the host, for reproducer lines
MOUNTPOINT = Path("/mnt")


def chosen(options: Options) -> bool:
    """Whether the run goes to the running kernel; raises Unsupported if it was asked for and cannot."""
    if options.kernel == "native":
        reasons = unsuitable(options.configuration)
        if reasons:
            raise Unsupported(f"the running kernel cannot do this: {'; '.join(reasons)}")
        return _here(options)
    if options.kernel != "auto":
        _not_yours(options, f"--kernel={options.kernel} is a guest")
        return False
    reasons = unsuitable(options.configuration)
    if reasons:
        _not_yours(options, "; ".join(reasons))
    return not reasons and _here(options)


def _here(options: Options) -> bool:
    """That the run goes to the running kernel, which no limit ends."""
    if options.time_limit != TIME_LIMIT:
        raise UsageError("--time-limit ends a guest, and this run is on the running kernel: name another --kernel")
    return True


def _not_yours(options: Options, why: str) -> None:
    """A guest sees the host's directories read-only: layers in one of them need the running kernel."""
    if options.configuration.places.given:
        raise Unsupported(f"layers in a directory of yours need the running kernel, but {why}")


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
    wanted = dict.fromkeys(("overlay", "tmpfs", configuration.lower_fs, configuration.upper_fs))
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
        how = command(options)
        terminal = Terminal(how, verbose=options.verbose, out=out, families=FAMILIES)
        with results.written(options.results, how) as events:
            record = events or os.environ.get(results.VARIABLE)
            tell = all_of(Recorder(Path(record)), terminal) if record else terminal
            known = {(e.group, e.number): e.reason for e in options.expected if e.applies(how, os.uname().release)}
            try:
                carry_out(options.configuration, options.choice, Expecting(tell, known))
            except (HarnessError, OSError) as error:  # for the reports: of a guest only the exit code gets out
                tell(Aborted(str(error)))
                raise
        terminal.summary()
    return exit_code(terminal)


def command(options: Options) -> str:
    """The command line that repeats the run, without its groups; in a guest that of its host."""
    return os.environ.get(COMMAND) or options.command()


def ensure_programs() -> None:
    """Get the programs of a detach run; in a guest that was seen to on the host, whose root is read-only there."""
    from kernel import requirements
    from kernel.paths import new_log

    if requirements.missing(requirements.RUN):
        requirements.ensure(requirements.RUN, new_log("install"))


def carry_out(configuration: Configuration, choice: Choice, tell: Listener) -> None:
    """All chosen groups, on as few unions as they can share; raises HarnessError for what is our own fault."""
    gc.disable()  # a run is short and makes few cycles, but going through the model over and over takes time
    enter_private_namespace()
    before = {mount.id for mount in mounts()}
    os.umask(0o022)
    os.setgroups([])
    if configuration.xino != "off":
        tell(Noted(_meaning_of_xino(configuration)))
    stages = configuration.stages()
    for stage in stages:
        if len(stages) > 1:
            tell(StageStarted(f"--operations={stage.moment}"))
        selection = choice.selection(stage, redirects=effective(stage).redirects, tell=tell, among=stages)
        _on_unions(stage, [(group, numbers) for group, numbers in selection if not group.trials], tell)
    for group, numbers in selection:
        if group.trials:
            run_trials(group, numbers, f"./run --{configuration.kind}", tell)
    if left := [mount.describe() for mount in mounts() if mount.id not in before]:
        raise SetupError(f"still mounted at the end: {', '.join(left)}")
    tell(Finished())


def _on_unions(configuration: Configuration, selection: Sequence[Selection], tell: Listener) -> None:
    shown = effective(configuration).shown(configuration)
    for share in plan(configuration, selection):
        rotating = share.rotating or (configuration.detach and bool(configuration.rotations))
        how = f"./run {shown.how(rotating=rotating)}"
        try:
            _carry_out(configuration, share, how, tell)
        except NothingLeft:
            continue  # each was reported as skipped
        except UsageError as contradiction:  # of the share's options with those of the user
            if not share.options:
                raise
            for turn in share.turns:
                turn.skip([str(contradiction)], tell)


def _meaning_of_xino(configuration: Configuration) -> str:
    """What --xino is taken for in this run."""
    if configuration.detach:
        fenced = "" if configuration.fence else ", not fenced"
        return f"--xino: the detach run, with xino={configuration.xino}{fenced}"
    yours = ", as the layers lie in a directory of yours" if configuration.places.given else ""
    return f"--xino: plain xino=on, nothing is detached{yours}"


def _carry_out(configuration: Configuration, share: Share, how: str, tell: Listener) -> None:
    with mount_union(configuration, share, MOUNTPOINT, tell) as union:
        within = remounts_within(share)
        runner = runner_of(union, share, tell)
        for turn in union.turns:
            runner.run_turn(turn, how)
            if share.rotating and not within and not runner.lost:
                complaints = tuple(remounted(union, runner, turn.top))
                tell(Checked("-", "after a remount each group is as the model says", complaints))
        if not runner.lost:
            union.finish(runner.spoiled)


def remounts_within(share: Share) -> bool:
    """Whether the union is remounted inside of scenarios, and not between its groups."""
    return share.rotating and any(turn.remounts for turn in share.turns)


def runner_of(union: Union, share: Share, tell: Listener) -> Runner:
    """Who replays the scenarios of the share on its union, as its configuration says."""
    configuration = union.configuration
    return Runner(
        union.judge,
        union.log,
        tell,
        after=union.cycler.after if remounts_within(share) else nothing,
        slashes=configuration.slashes,
        heard=partial(reached, union.fence),
        cold=configuration.cold,
    )


def remounted(union: Union, runner: Runner, top: str) -> list[str]:
    """Mount the union again after a group and look at it; a refusal is a failure, as it is in the middle of one."""
    try:
        union.cycler.remount()
    except MountRefused as refused:
        runner.lost = "the union could not be mounted again"
        return [f"cannot be mounted again: {refused}"]
    return union.judge.tree(top, skip=runner.spoiled)


def exit_code(terminal: Terminal) -> int:
    """3 if we erred or nothing was chosen, 1 if anything failed, 4 if all was skipped, else 0."""
    counts = terminal.counts
    if counts[Outcome.ERROR] or not sum(counts.values()):
        return SetupError.exit_code
    if counts[Outcome.FAILED]:
        return 1
    return 0 if counts[Outcome.PASSED] or counts[Outcome.EXPECTED] else Unsupported.exit_code
