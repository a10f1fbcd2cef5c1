# SPDX-License-Identifier: GPL-2.0-only
"""Trouble made on purpose: what a scenario does instead of its operations, and a copy of the program in which it does.

`PLANTED` is the text of a module that changes the runner when it is imported, in a guest too.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from command.guest import PACKAGES
from union import mountinfo

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds for one run
MODULE = "planted"

PLANTED = '''
import ctypes, os, signal, subprocess, sys
sys.path.insert(0, "{checkout}")
import mount_union
from command import native
from report.events import Checked, Outcome
from union import cycle, runner

PLAN = {plan}
run, replay = runner.Runner._run_scenario, runner.Runner._replay

def write(name, data):
    fd = os.open(name, os.O_WRONLY | os.O_NOCTTY)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)

def panic():
    try:
        write("/proc/sysrq-trigger", b"c")
    except FileNotFoundError:  # a kernel panics as well when process 1 dies
        with open("/proc/1/maps") as maps, open("/proc/1/mem", "r+b", buffering=0) as memory:
            for line in maps:
                if " r-xp " in line and "/" in line:
                    start, end = (int(number, 16) for number in line.split()[0].split("-"))
                    memory.seek(start)
                    memory.write(bytes(end - start))
        subprocess.run(["/bin/sh", "-c", "/bin/sleep 0 &"])  # an orphan: process 1 wakes up to bury it
        signal.pause()

def taint():
    write("/proc/sys/kernel/tainted", b"64")

def garbage():
    # The line about the end comes behind all this.
    for name in ("/dev/console", "/dev/kmsg", "/dev/tty1"):
        for piece in (bytes(range(256)), b"\\xff\\0" * 99, b"limit ", b"\\nexi"):
            write(name, piece)

WORK = {{
    "panic": panic,
    "fault": lambda: write("/dev/kmsg", b"BUG: made up by a test\\n"),
    "hang": signal.pause,
    "exit": lambda: os._exit(1),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "taint": taint,
    "garbage": garbage,
    "leaked mount": lambda: ctypes.CDLL(None).mount(b"leaked", b"/mnt/mkdir", b"tmpfs", 0, None),
    "covered mount": lambda: ctypes.CDLL(None).mount(b"leaked", b"/mnt", b"tmpfs", 0, None),
    "mount elsewhere": lambda: ctypes.CDLL(None).mount(b"leaked", b"/dev/shm", b"tmpfs", 0, None),
}}

def run_scenario(self, group, number, top):
    self.now = f"{{group.name}}:{{number}}"
    run(self, group, number, top)

def replay_unless_planned(self, operations):
    what = PLAN.get(self.now)
    if what in Outcome.__members__:
        raise runner.Disagreement(Outcome[what], ["made up by a test"])
    if what:
        WORK[what]()
    replay(self, operations)

if "after a group" in PLAN:
    native.remounted = lambda *more: ["made up by a test"]
if "after an operation" in PLAN:
    cycle.Cycler.after = lambda *more: ["made up by a test"]
if "the end" in PLAN:
    check = Checked("D7", "a check", ("made up by a test",))
    mount_union.Union.finish = lambda self, spoiled: self.tell(check)
runner.Runner._run_scenario = run_scenario
runner.Runner._replay = replay_unless_planned
'''


def plant(module: Path, plan: Mapping[str, str], more: str = "", checkout: Path = CHECKOUT) -> None:
    """Write the module, for the program in `checkout`: what happens in which scenario, and more code."""
    module.write_text(PLANTED.format(plan=dict(plan), checkout=checkout) + textwrap.dedent(more))


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of its output."""
        return self.out.rstrip("\n").rpartition("\n")[2]


class Program:
    """A copy of the program with trouble planted in it; its kernel, its cache and its temporary directory are its own,
    so that what it leaves behind is told from what others do at the same time.
    """

    def __init__(self, path: Path, kernel: Path, plan: Mapping[str, str] | None = None, more: str = "") -> None:
        self.path = path
        self.kernel = path / "linux"
        self.temporary = path / "tmp"
        self.temporary.mkdir(parents=True)
        self.kernel.symlink_to(kernel)
        for name in (*PACKAGES, "run", "mount_union.py", "pyproject.toml"):
            source, target = CHECKOUT / name, path / "checkout" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
        for source in (CHECKOUT / "tests").glob("*.py"):
            shutil.copy2(source, path / "checkout/tests" / source.name)
        self.plan(plan or {}, more)
        run = path / "checkout/run"
        text = run.read_text()
        first = "    from command.main import main\n"
        assert first in text
        run.write_text(text.replace(first, f"    import {MODULE}\n{first}"))
        self._mounts = self._mounted()

    def plan(self, plan: Mapping[str, str], more: str = "") -> None:
        """Plant other trouble."""
        checkout = self.path / "checkout"
        plant(checkout / f"{MODULE}.py", plan, more, checkout)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UNIONMOUNT_")}
        ours = {"XDG_CACHE_HOME": str(self.path / "cache"), "TMPDIR": str(self.temporary)}
        return {**kept, **ours, "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, *words: str | Path, **more: str) -> subprocess.Popen[str]:
        """Start a run with the words and more variables."""
        return subprocess.Popen(
            [sys.executable, str(self.path / "checkout/run"), *map(str, words)],
            env={**self.environment(), **more}, cwd=self.path, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def run(self, *words: str | Path, **more: str) -> Done:
        """A whole run."""
        with self.start(*words, **more) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
        return Done(process.returncode, out, err)

    def guest(self, *words: str | Path, **more: str) -> Done:
        """A run on a plain overlay in a guest with its own kernel."""
        return self.run("--ov", f"--kernel={self.kernel}", *words, **more)

    def processes(self) -> list[int]:
        """Those whose command line names a file of this program."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if os.fsencode(self.path) in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def kill_guests(self) -> None:
        """Kill all processes of its kernel."""
        for pid in self.processes():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == os.fsencode(self.kernel):
                    os.kill(pid, signal.SIGKILL)

    def gone(self) -> bool:
        """Wait until all of its processes are; false if that takes too long."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    if not select.select([fd], [], [], 10)[0]:
                        return False
                finally:
                    os.close(fd)
        return self.processes() == []

    def ended(self) -> list[int]:
        """Its processes that were still there; they are killed now."""
        found = self.processes()
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def left(self) -> list[str]:
        """Everything that is still there and must not be: processes, mounts, files."""
        found = [f"process {pid}" for pid in self.processes()]
        found += [f"mount {line}" for line in self._mounted() - self._mounts]
        for directory in (self.temporary, self.path / "cache/ovl-detach/guests"):
            found += map(str, directory.iterdir()) if directory.exists() else []
        return found

    def _mounted(self) -> set[str]:
        return {f"{mount.source} on {mount.point}" for mount in mountinfo.mounts()}


def loops(pid: int) -> Iterator[tuple[Path, str]]:
    """The loop devices mounted by the process `pid`: where the kernel tells of each, and which use of it this is."""
    for name in set(re.findall(r" /dev/(loop\d+) ", Path(f"/proc/{pid}/mountinfo").read_text())):
        device = Path("/sys/block") / name
        yield device, (device / "diskseq").read_text()


def in_use(device: Path, sequence: str) -> bool:
    """Whether a loop device is still put to this very use."""
    try:
        return (device / "loop/backing_file").exists() and (device / "diskseq").read_text() == sequence
    except FileNotFoundError:
        return False
