# SPDX-License-Identifier: GPL-2.0-only
"""A layer that is loaded lazily, migrated away while it is in use, and dies: one union, from its mount to its end.

The lower is a FUSE filesystem that knows all names from the start and gets the content by and by. A workload runs in
the union from the first moment on. What befalls the daemon, and when, is the variant.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from union import filesystems, syscalls
from union.children import ended
from union.configuration import UpperFs, Xino
from union.errors import SetupError
from union.fuse.log import Asked
from union.fuse.server import Action, Rule
from union.fuse.wire import Op
from union.kernellog import KernelLog
from union.layers import LOWER_NAME, UPPER_NAME, LayerStack
from union.lazy.audit import Audit, Top, attempt, audit
from union.lazy.background import Background
from union.lazy.crew import LAST_WILL, Account, Crew, kill_group
from union.lazy.image import Image
from union.lazy.plan import Rate, Variant
from union.lazy.population import Population
from union.lazy.workload import owner
from union.lowerfuse import LowerFuse
from union.overlay import Overlay
from union.together import kernel_stack
from union.upper import ROOT, opaque_state
from union.workspace import scratch_directory

POPULATE: Final = Rule(Action.POPULATE, frozenset({Op.OPEN}))
MIDWAY: Final = 0.5
_DELAY: Final = 0.002  # seconds, of each request to a slow lower
_PATIENCE: Final = 300.0  # seconds for what takes its time
_STEP: Final = 30.0  # seconds for one step of a worker that hangs after that
_STUCK: Final = 2.0  # seconds without an answer after which a process is killed to see whether it can be
_BEFORE: Final = 0.3  # seconds that a workload has before its daemon is hurt
_STALLED: Final = ".w-stalled"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Of `kill` there may be many, each at a `moment`: up to 1 when this share is copied up, before 0 and
    after 1 so much before the migration and after the detach. `rules` go before those of the lower, for controls.
    """

    image: Path
    variant: Variant = "story"
    rate: Rate = field(default_factory=Rate)
    upper_fs: UpperFs = "tmpfs"
    workers: int = 3
    seed: int = 1
    pause: float = 0.1  # seconds between two steps of a worker
    goes_on: float = 3.0  # seconds that the workload goes on after whatever befell it
    xino: Xino = "nofollow"
    moment: float = MIDWAY
    rules: tuple[Rule, ...] = ()


@dataclass(slots=True)
class Told:
    """All that was seen. Times are those of time.monotonic()."""

    plan: Plan
    image: Image
    began: float
    events: dict[str, float] = field(default_factory=dict)
    phase: str = ""  # in which the daemon was hurt
    complaints: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    population: Population | None = None
    migrated: list[tuple[float, float]] = field(default_factory=list)
    migrator: int = 0
    requests: list[Asked] = field(default_factory=list)
    after_detach: list[Asked] = field(default_factory=list)
    upper: dict[str, int] = field(default_factory=dict)  # the files of the image in upper when it was detached: sizes
    account: Account | None = None
    errors: int = 0  # of the workload's steps
    wrong: int = 0  # objects or steps that gave wrong data

    def at(self, event: str) -> None:
        """It happens now."""
        self.events[event] = time.monotonic()


def play(plan: Plan, image: Image, say: Callable[[str], object] = lambda _: None) -> Told:
    """Carry it out; what is not as it must be is among the complaints. `say` is told how it goes.

    Must run in a private mount namespace. Raises HarnessError for what is our own fault, or when the kernel refuses.
    """
    with ExitStack() as stack:
        log = stack.enter_context(KernelLog())
        run = _Run(stack, plan, image, say)
        _PLAYS[plan.variant](run)
        told = run.told
        told.complaints += [f"kernel log: {line}" for line in log.trouble()]
    return told


class _Run:
    """The union, its daemon, its workload and its migrator."""

    def __init__(self, stack: ExitStack, plan: Plan, image: Image, say: Callable[[str], object]) -> None:
        self._plan, self._image, self._say, self._stack = plan, image, say, stack
        scratch = scratch_directory(stack)
        for name in ("lower", "upper", "union", "cache", "logs"):
            (scratch / name).mkdir()
        home = filesystems.make(stack, plan.upper_fs, scratch / "upper", scratch, UPPER_NAME)
        for name in ("u", "w"):
            (home.root / name).mkdir()
        self._check_room(scratch, home.root)
        self.population = Population(image, scratch / "cache", plan.rate)
        self.lower = LowerFuse(stack, plan.image, scratch / "lower", LOWER_NAME, content=self.population)
        self.lower.rules(*plan.rules, POPULATE, *([Rule(Action.DELAY, value=_DELAY)] if plan.variant == "slow" else []))
        lower = self.lower.layer
        self.upper, self.union = home.root / "u", scratch / "union"
        layers = LayerStack(lower, home, home, (lower.root,), self.upper, home.root / "w", self.union, scratch)
        self.told = Told(plan, image, time.monotonic(), population=self.population)
        stack.enter_context(Overlay(layers, [("xino", plan.xino)]).mounted())
        self.told.at("mounted")
        self._crew = Crew(
            self.union, image, scratch / "logs", count=plan.workers, seed=plan.seed, pause=plan.pause
        )
        stack.callback(self._crew.kill)
        self._migrator: Background | None = None
        self._tops: list[Top] = []
        self._said = 0
        stack.callback(self._release)

    def _check_room(self, scratch: Path, upper: Path) -> None:
        size = sum(entry.size for entry in self._image.values() if entry.is_file)
        for place in (scratch, upper):
            room = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            if size * 1.3 > room:
                least = f"the image has {size >> 20} MB, and there is room for {int(room / 1.3) >> 20} MB"
                raise SetupError(f"{least} on {place}: take a smaller one (--image)")

    def _release(self) -> None:
        """Nothing must keep the union busy, or wait for a daemon that does not answer."""
        with suppress(ProcessLookupError):
            self.lower.go_on()
        if self._migrator:
            self._migrator.end()
        for _, fd in self._tops:
            os.close(fd)
        self._tops.clear()

    # parts of all plays

    def go_on(self, seconds: float, *, hangs: bool = False) -> None:
        """Let the workload run; that it gets stuck is a complaint, unless it `hangs` as it may."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            stuck = self._crew.step_on(left if hangs else _STEP)
            if stuck and not hangs:
                self.told.complaints += [f"the workload hangs: {line}" for line in stuck]
                return

    def migrate(self, share: float = 2.0) -> None:
        """Begin to migrate, and return when that share is copied up, or all is over."""
        if self._migrator is None:
            self.told.at("migration begins")
            self._migrator = Background(self.union, self.upper, len(self._image) - 1)
            self.told.migrator = self._migrator.pid
        deadline = time.monotonic() + _PATIENCE
        while not self._migrator.until(share, 1.0):
            if fault := self.population.fault():
                raise SetupError(fault)
            if time.monotonic() > deadline:
                raise SetupError(f"the migration takes longer than {_PATIENCE:g} s")
            self._tell()
        self.told.migrated = self._migrator.told

    def _tell(self) -> None:
        """A line for each tenth of what there is to do."""
        arrived = len(self.population.arrived()) / max(1, len(self.population.files))
        migrated = self._migrator.told[-1][1] if self._migrator and self._migrator.told else 0
        if int((arrived + migrated) * 5) > self._said:
            self._said = int((arrived + migrated) * 5)
            self._say(f"{time.monotonic() - self.told.began:.0f} s: populated {arrived:.0%}, migrated {migrated:.0%}")

    def detach(self) -> None:
        """Migrate to the end, verify it by the marks of the upper layer, and see that nothing is asked from then on.

        What a process had begun before may still ask: a program that runs has its file mapped.
        """
        self.migrate()
        if not self.verify():
            return
        self.told.at("detached")
        files = [path for path, entry in self._image.items() if entry.is_file]
        self.told.upper = {path: size for path in files if (size := self._size(path)) is not None}
        self._crew.step_on(_STEP)
        self.lower.settle()
        position = self.lower.log.position
        self.go_on(self._plan.goes_on)
        self.lower.settle()
        self.told.after_detach = list(self.lower.log.since(position))
        kinds = sorted({str(asked) for asked in self.told.after_detach})
        self.told.complaints += [f"asked of the lower after the detach: {line}" for line in kinds[:5]]

    def verify(self) -> bool:
        """Whether no directory of upper looks into the lower any more. The root need not say so (D11)."""
        state = opaque_state(self.upper, data=True)
        needy = state.needy - {ROOT}
        self.told.notes.append(("directories opaque", f"{len(state.opaque)} of {state.directories}"))
        if needy:
            self.told.complaints.append(f"not detached: {len(needy)} objects need the lower, {sorted(needy)[:3]}")
        kept = [path for path, entry in self._image.items() if not entry.is_file or owner(path, 1) is None]
        absent = [path for path in kept if not os.path.lexists(self.upper / path)]
        if absent:
            self.told.complaints.append(f"not detached: {len(absent)} objects are not in upper, {absent[:3]}")
        return not (needy or absent)

    def _size(self, path: str) -> int | None:
        try:
            return os.lstat(self.upper / path).st_size
        except OSError:
            return None  # it was removed or renamed

    def kill(self) -> None:
        """The daemon dies, with all that is going on."""
        self.told.at("killed")
        self.lower.kill()

    def hold(self) -> None:
        """Open all directories: who is in one that is detached can go on there when the way to it is no more."""
        for path, entry in self._image.items():
            if entry.is_directory:
                with suppress(OSError):
                    self._tops.append((path, os.open(self.union / path, os.O_RDONLY | os.O_DIRECTORY)))

    def detached_tops(self) -> list[Top]:
        """The held directories that are detached as a whole, but not what they are in."""
        opaque = opaque_state(self.upper).opaque
        return [(path, fd) for path, fd in self._tops if path in opaque and _parent(path) not in opaque]

    def check_detached(self, account: Account | None) -> None:
        """The detached parts must be whole and give no error at all; while the workload works only what is shared."""
        tops = self.detached_tops()
        found = audit(tops, self._image, account.changes if account else None, _PATIENCE)
        self._note_audit(found, f"{len(tops)} detached subtrees, no daemon", strict=True)
        if not found.right and self._plan.variant != "kill":
            self.told.complaints.append("nothing was detached midway")

    def check_all(self, account: Account, *, strict: bool) -> None:
        """The whole union; unless `strict` it may give clean errors, but nothing that is wrong."""
        syscalls.drop_caches()
        fd = os.open(self.union, os.O_PATH | os.O_DIRECTORY)
        try:
            self._note_audit(audit([(".", fd)], self._image, account.changes, _PATIENCE), "the whole union",
                             strict=strict)  # fmt: skip
        finally:
            os.close(fd)

    def _note_audit(self, found: Audit, what: str, *, strict: bool) -> None:
        told = f"{found.right} objects right, {found.errors} errors, {found.wrong} wrong"
        self.told.notes.append((what, "hangs" if found.hung else told))
        self.told.wrong += found.wrong
        if found.hung or found.wrong or (strict and found.errors):
            self.told.complaints += [f"{what}: {line}" for line in found.told or ("it hangs",)]

    def finish(self, *, hurt: bool, strict: bool) -> Account:
        """Stop the workload and look at what it has seen. Before the daemon was `hurt` there must be no error, nor
        after that if it is `strict`, as it is when all was detached.
        """
        self.told.complaints += [f"does not end: {line}" for line in self._crew.stop()]
        if self._migrator:
            self._migrator.end()
            self.told.migrated = self._migrator.told
        account = self.told.account = self._crew.account()
        self.told.complaints += [f"worker {number} ended without an account" for number in account.silent]
        when = self.told.events.get("killed", float("inf")) if hurt else float("inf")
        bad = [result for result in account.results if result.verdict == "wrong"]
        self.told.wrong += len(bad)
        errors = [result for result in account.results if result.verdict == "error"]
        self.told.errors = len(errors)
        bad += [result for result in errors if strict or result.ended < when]
        began = self.told.began
        self.told.complaints += [
            f"{one.verdict}: {one}, from {one.began - began:.2f} to {one.ended - began:.2f} s" for one in bad[:10]
        ]
        self.told.requests = list(self.lower.log.since())
        return account

    # the plays

    def story(self) -> None:
        self.detach()
        if "detached" in self.told.events:
            self.kill()
            self.go_on(self._plan.goes_on)
        account = self.finish(hurt=True, strict=True)
        if not self.told.complaints:
            self.check_all(account, strict=True)

    def crash_before(self) -> None:
        self.go_on(_BEFORE)
        self.kill()
        self._crash("before the migration")

    def crash_midway(self) -> None:
        self.migrate(MIDWAY)
        self.hold()
        self.kill()
        self._crash("midway")

    def _crash(self, phase: str) -> None:
        self.told.phase = phase
        self.go_on(self._plan.goes_on)
        account = self.finish(hurt=True, strict=False)
        if phase == "midway":
            self.check_detached(account)
        self.check_all(account, strict=False)
        if not self.told.errors:
            self.told.complaints.append("the daemon is dead, and the workload got no error: it did not need the lower")

    def hang_before(self) -> None:
        self.go_on(_BEFORE)
        self._hang("before the migration")

    def hang_midway(self) -> None:
        self.migrate(MIDWAY)
        self.hold()
        self._hang("midway")

    def hang_after(self) -> None:
        self.detach()
        if "detached" in self.told.events:
            self._hang("detached")
        else:
            self.finish(hurt=False, strict=True)

    def _hang(self, phase: str) -> None:
        """Stop the daemon, look what stalls and that it can be killed, and let the daemon go on."""
        self.told.phase = phase
        asked_before = self._ask_and_stall() if phase != "detached" else None
        self.lower.stop()
        self.told.at("stopped")
        self.go_on(self._plan.goes_on, hangs=phase != "detached")
        stuck = self._crew.stuck(_STUCK)
        self.told.notes.append(("workers that stall", f"{len(stuck)} of {self._plan.workers}"))
        if bool(stuck) != (phase != "detached"):
            self.told.complaints.append("the daemon hangs, and the workload does not stall" if not stuck else stuck[0])
        if phase == "midway":
            self.check_detached(None)
        left = self._kill_stalled(expected=phase != "detached")
        if asked_before:
            # The kernel waits for the answer to what a daemon has taken, and it cannot take that it is not wanted.
            kill_group(asked_before)
            died = ended(asked_before, _STUCK)
            self.told.notes.append(("killed while its request is with the daemon", "dies" if died else "waits for it"))
            left += [] if died else [asked_before]
        self.lower.go_on()
        self.lower.rules(*self._plan.rules, POPULATE)
        self.told.at("goes on")
        for pid in left:
            if not ended(pid, LAST_WILL):
                line = f"a process that was killed does not die when the daemon goes on{kernel_stack(pid)}"
                self.told.complaints.append(line)
        (self.union / _STALLED).unlink(missing_ok=True)
        if phase != "detached":
            self.detach()
        self.go_on(self._plan.goes_on)
        account = self.finish(hurt=False, strict=True)
        self.check_all(account, strict=True)

    def _ask_and_stall(self) -> int:
        """A process whose request the daemon has taken and not answered: its pid."""
        path = next(path for path, entry in self._image.items() if entry.is_file and path not in self._migrated())
        self.lower.rules(*self._plan.rules, Rule(Action.STALL, frozenset({Op.OPEN}), path), POPULATE)
        position = self.lower.log.position
        pid, _ = attempt(lambda: (self.union / path).read_bytes(), 0)
        deadline = time.monotonic() + _STEP
        while not any((asked.pid, asked.operation) == (pid, "OPEN") for asked in self.lower.log.since(position)):
            if time.monotonic() > deadline:
                raise SetupError(f"nobody asks the lower for {path}")
            os.sched_yield()
        return pid

    def _migrated(self) -> set[str]:
        return {os.path.relpath(os.path.join(top, name), self.upper)
                for top, _, names in os.walk(self.upper) for name in names}  # fmt: skip

    def _kill_stalled(self, *, expected: bool) -> list[int]:
        """Processes that ask a daemon which is stopped: SIGKILL ends them (or they do not stall at all).

        Those that it does not end wait for a lock of a directory, in which another one waits for the daemon.
        """
        dice = Random(self._plan.seed)
        files = [path for path, entry in self._image.items() if entry.is_file]
        calls: dict[str, Callable[[], object]] = {
            "stat": lambda: os.lstat(self.union / dice.choice(files)),
            "listing": lambda: os.listdir(self.union),
            "read": lambda: (self.union / dice.choice(files)).read_bytes(),
            "create": lambda: (self.union / _STALLED).touch(),
        }
        stalled: list[int] = []
        for call in calls.values():
            pid, done = attempt(call, _STUCK)
            stalled += [] if done else [pid]
        for pid in stalled:
            os.kill(pid, signal.SIGKILL)
        left = [pid for pid in stalled if not ended(pid, _STUCK)]
        died = len(stalled) - len(left)
        told = f"{len(stalled)} of {len(calls)}, killed at once {died}"
        self.told.notes.append(("further processes that stall", told))
        if bool(stalled) != expected:
            self.told.complaints.append(f"{len(stalled)} of {len(calls)} processes stall with the daemon stopped")
        if stalled and not died:
            self.told.complaints.append("no process that stalls can be killed")
        self.told.notes += [("one that was killed waits on", kernel_stack(pid)) for pid in left]
        return left

    def kill_once(self) -> None:
        """At the moment of the plan."""
        moment = self._plan.moment
        if moment < 0:
            self.go_on(_BEFORE * (1 + moment))
        elif moment <= 1:
            self.migrate(moment)
            self.hold()
        else:
            self.detach()
            self.go_on(self._plan.goes_on * (moment - 1))
        complete = self.population.complete
        self.kill()
        detached = "detached" in self.told.events
        self.told.phase = "detached" if detached else "populated" if complete else "populating"
        self.go_on(self._plan.goes_on)
        account = self.finish(hurt=True, strict=detached)
        if self._tops:
            self.check_detached(account)
        self.check_all(account, strict=detached)


_PLAYS: Final[dict[Variant, Callable[[_Run], None]]] = {
    "story": _Run.story,
    "slow": _Run.story,
    "crash-before": _Run.crash_before,
    "crash-midway": _Run.crash_midway,
    "crash-after": _Run.story,
    "hang-before": _Run.hang_before,
    "hang-midway": _Run.hang_midway,
    "hang-after": _Run.hang_after,
    "kill": _Run.kill_once,
}


def _parent(path: str) -> str:
    return "" if path == "." else path.rpartition("/")[0] or "."
