# SPDX-License-Identifier: GPL-2.0-only
"""User-mode Linux as a guest: one kernel as an ordinary program, no root and no KVM needed.

    guest = UmlGuest(Path("linux"))
    result = guest.run(["/bin/echo", "hello"], on_stdout=sys.stdout.buffer.write)

Host side of three parts: `keeper.py` holds the processes of the guest together, `init.py` is process 1 inside.
Three virtual terminals lead from the guest to the host: status, stdout and stderr of the command. What the command
is to read comes in on a serial line, see `feed.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import mmap
import os
import py_compile
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.console import Console
from kernel.cpus import Try, own_cpus, tries
from kernel.errors import SetupError, UsageError
from kernel.feed import LINE, Feed
from kernel.guest import GuestResult, Outcome, Sink
from kernel.paths import guests_dir, made, new_log

COVERED = ("/tmp", "/run", "/var/tmp", "/dev/shm")
"""Directories of the guest that are fresh, empty and writable."""
STATUS = "tty1"
"""The guest's name of the terminal on which process 1 reports, and a command may set a limit (see `init.py`)."""

_HERE = Path(__file__).resolve().parent
_POWER_OFF_LIMIT = 10.0  # seconds that a guest gets to power off, and a killed one to be gone
_FAULT_LIMIT = 0.3  # seconds for the rest of what the kernel has to say about a fault
_UNITS = {"M": 1 << 20, "G": 1 << 30}


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class UmlGuest:
    """Runs commands on the UML kernel `binary`; each `run` is a boot of its own, several at once are fine.

    `memory` is the guest's, like `512M` or `1G`. `cpus` is how many CPUs it has: by default two if the kernel can, else
    one. A guest that does not boot with two of its own accord gets one, after `say` was told so; one that
    does not with the number asked for does not boot. They take turns on one CPU of the host, unless `spread` gives each
    its own, for work that is done at the same time (see `cpus.py`). Consoles are written to `log_dir`, by default in
    the user's cache. Raises `UsageError` when `binary` cannot be executed, or when it cannot have so many CPUs.
    """

    def __init__(
        self,
        binary: Path,
        memory: str = "1G",
        log_dir: Path | None = None,
        *,
        cpus: int | None = None,
        spread: bool = False,
        say: Callable[[str], object] = _complain,
    ) -> None:
        self.binary = Path(binary).absolute()
        self.memory = memory
        self._log_dir = log_dir
        self._say = say
        self._spread = spread
        if not re.fullmatch(r"[1-9]\d*[MG]", memory):
            raise UsageError(f"{memory}: not a size of memory, like 512M or 1G")
        if not self.binary.is_file():
            raise UsageError(f"{binary}: no such kernel")
        if not os.access(self.binary, os.R_OK | os.X_OK):
            raise UsageError(f"{binary}: not readable and executable")
        most = self.most_cpus()
        if cpus is not None and not 1 <= cpus <= most:
            raise UsageError(f"{cpus} CPUs: this kernel can have {most}")
        self._tries = tries(cpus, most)

    def release(self) -> str:
        """The kernel's release (`6.12.117`), as `linux --version` prints it; `UsageError` for anything else."""
        said = self._ask("--version")
        if not (found := re.fullmatch(rb"(\d+\.\d+\S*)\s*", said)):
            raise UsageError(f"{self.binary}: not a User-mode Linux kernel")
        return found[1].decode(errors="replace")

    def most_cpus(self) -> int:
        """How many CPUs a guest of this kernel can have, by the configuration that it prints; one if it prints none."""
        said = self._ask("--showconfig")
        found = re.search(rb"^CONFIG_NR_CPUS=(\d+)$", said, re.M) if b"\nCONFIG_SMP=y\n" in said else None
        return int(found[1]) if found else 1

    def _ask(self, option: str) -> bytes:
        """What the kernel prints when it is called with `option` alone; nothing if it is no such program."""
        try:
            done = subprocess.run(
                [self.binary, option], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return b""
        return done.stdout if done.returncode == 0 else b""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str = "/",
        env: Mapping[str, str] | None = None,
        time_limit: float | None = None,
        boot_limit: float = 30,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        shared: Sequence[tuple[Path, str]] = (),
        visible: Sequence[Path] = (),
        stdin: int | None = None,
        end_at_fault: bool = False,
    ) -> GuestResult:
        """Boot, run `argv`, power off; see `kernel.guest.Guest.run`. `SetupError` when the host cannot do it."""
        spec: dict[str, Any] = {
            "argv": [os.fsencode(word) for word in argv],
            "cwd": os.fsencode(cwd),
            "env": {os.fsencode(k): os.fsencode(v) for k, v in (os.environ if env is None else env).items()},
            "covered": [os.fsencode(name) for name in COVERED],
            "visible": [os.fsencode(path) for path in _kept([*visible, Path(cwd), *_interpreter()])],
            "shared": [(os.fsencode(Path(host).resolve()), os.fsencode(guest)) for host, guest in shared],
            "status": STATUS,
            "out": "tty2",
            "err": "tty3",
            "feed": "" if stdin is None else LINE,
        }
        use = _Use(time_limit, boot_limit, on_stdout or _discard, on_stderr or _discard, stdin, end_at_fault)
        # A directory that must stay visible itself cannot be covered.
        spec["covered"] = [name for name in spec["covered"] if name not in spec["visible"]]
        *others, last = self._tries
        for how in others:
            result = self._boot(spec, how, use)
            if result.outcome is not Outcome.NOT_BOOTED:
                return result
            self._say(f"guest: it does not boot with {how}, trying {last}: {result.explain()}")
        return self._boot(spec, last, use)

    def _boot(self, spec: dict[str, Any], how: Try, use: _Use) -> GuestResult:
        """One boot, to its end."""
        with contextlib.ExitStack() as stack:
            private = stack.enter_context(private_dir())
            log = _console_log(self._log_dir, private.path.name)
            console = stack.enter_context(Console(log))
            _write_boot_files(private.path, {**spec, "cpus": how.cpus})
            host_cpus = stack.enter_context(own_cpus(how.cpus if self._spread else 1))
            argv = self._argv(private.path, how)
            process = stack.enter_context(_Process(argv, self.memory_dir(), host_cpus, private.lock))
            watch = _Watch(process, console, use)
            watch.until_over()
            return watch.result()

    def memory_dir(self) -> str:
        """Where the guest's memory can live as a file; `SetupError` when no directory will do."""
        need = int(self.memory[:-1]) * _UNITS[self.memory[-1]]
        tried = dict.fromkeys(["/dev/shm", tempfile.gettempdir(), "/tmp", "/var/tmp", str(guests_dir())])
        for name in tried:
            if _can_hold_memory(name, need):
                return name
        raise SetupError(f"no directory with {self.memory} free where memory may be executed: {', '.join(tried)}")

    def _argv(self, private: Path, how: Try) -> list[str]:
        return [
            str(self.binary),
            f"mem={self.memory}",
            *([f"ncpus={how.cpus}"] if how.cpus > 1 else []),
            *(["seccomp=on"] if how.seccomp else []),
            f"uml_dir={private}/",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "panic=-1",
            # Every unmount waits for a grace period, of one or two ticks if nobody hurries.
            "rcupdate.rcu_expedited=1",
            "con=null",
            "con0=null,fd:{console}",
            "con1=null,fd:{status}",
            "con2=null,fd:{out}",
            "con3=null,fd:{err}",
            "ssl=null",
            "ssl0=fd:{feed},fd:{answers}",
            f"init={private}/python",
            "--",
            "-I",
            "-S",
            "-B",
            f"{private}/init.pyc",
            f"{private}/spec",
        ]


@dataclass(frozen=True)
class _Use:
    """What the caller of `run` wants of the channels."""

    time_limit: float | None
    boot_limit: float
    on_stdout: Sink
    on_stderr: Sink
    stdin: int | None
    end_at_fault: bool


class _Process:
    """The guest's host processes, from start to the last one's end; `pipes` are our ends of its channels."""

    NAMES = ("console", "status", "out", "err", "answers", "feed")

    def __init__(self, argv: list[str], memory_dir: str, cpus: tuple[int, ...], lock: int) -> None:
        self.pipes: dict[str, int] = {}
        far: dict[str, int] = {}
        try:
            for name in self.NAMES:
                ends = os.pipe()
                # All lead from the guest to us but one.
                self.pipes[name], far[name] = ends if name != "feed" else ends[::-1]
            channels = ("con", "ssl")
            argv = [argv[0], *(word.format(**far) if word.startswith(channels) else word for word in argv[1:])]
            # The keeper holds the lock of the private directory too: it is ours until both of us are gone.
            keeper = [sys.executable, "-I", "-S", "-B", str(_HERE / "keeper.py")]
            self.keeper = subprocess.Popen(
                [*keeper, str(os.getpid()), ",".join(map(str, cpus)), memory_dir, *argv],
                stdin=subprocess.DEVNULL,
                stdout=far["console"],
                stderr=far["console"],
                pass_fds=[*far.values(), lock],
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            self._close()
            raise SetupError(f"cannot start a guest: {error}") from error
        finally:
            for fd in far.values():
                os.close(fd)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        try:
            self.keeper.wait(_POWER_OFF_LIMIT)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            self.keeper.wait()
        self._close()

    def kill(self) -> None:
        """Ask the keeper to end every process of the guest; harmless when they are gone."""
        self.keeper.send_signal(signal.SIGTERM)

    def _close(self) -> None:
        while self.pipes:
            os.close(self.pipes.popitem()[1])


class _Watch:
    """Reads the channels of a guest until it is over and judges how it ended."""

    def __init__(self, process: _Process, console: Console, use: _Use) -> None:
        self._process = process
        self._console = console
        self._use = use
        self._begin = time.monotonic()
        self._booted: float | None = None
        self._cpus: int | None = None
        self._status: int | None = None
        self._said = b""
        self._out_of_time = False
        self._limit: float | None = None  # when the guest must have said another one
        self._fault: float | None = None  # when the kernel reported it
        self._feed = None if use.stdin is None else Feed(use.stdin, process.pipes["feed"])
        self._sinks: dict[str, Callable[[bytes], object]] = {
            "console": self._take_console,
            "status": self._take_status,
            "out": self._take_output,
            "err": use.on_stderr,
            "answers": self._feed.acknowledged if self._feed else _discard,
        }

    def until_over(self) -> None:
        """Pass output and input on until every channel is closed; kill a guest that passes a limit."""
        # In this order: what the console tells comes before what a broken kernel lets out.
        order = {self._process.pipes[name]: place for place, name in enumerate(self._sinks)}
        # poll, as input can come from a file or the empty device, which epoll does not take.
        with selectors.PollSelector() as selector:
            for name, sink in self._sinks.items():
                selector.register(self._process.pipes[name], selectors.EVENT_READ, sink)
            killed: float | None = None
            while order:
                deadline = killed or self._deadline()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    if killed:
                        break
                    self._out_of_time = self._status is None and self._fault is None
                    self._process.kill()
                    killed = time.monotonic() + _POWER_OFF_LIMIT
                    continue
                if self._feed:
                    self._feed.listen(selector, self._booted is not None and self._status is None)
                for key, _ in sorted(selector.select(left), key=lambda event: order.get(event[0].fd, len(order))):
                    if key.fd not in order:
                        key.data()
                    elif data := os.read(key.fd, 1 << 16):
                        key.data(data)
                    else:
                        selector.unregister(key.fd)
                        del order[key.fd]
        self._console.finish()

    def result(self) -> GuestResult:
        """The verdict; panic and fault come before all else, as they explain the rest."""
        console = self._console
        reason = console.hint or ""
        if self._booted is None:
            outcome = Outcome.NOT_BOOTED
            reason = reason or console.panic or console.last()
        elif console.panic:
            outcome, reason = Outcome.PANIC, console.panic
        elif console.oops:
            outcome, reason = Outcome.OOPS, console.oops
        elif console.restarting:
            outcome, reason = Outcome.LOST, "it restarted"
        elif self._status is not None:
            outcome = Outcome.EXITED
        else:
            outcome = Outcome.HANG if self._out_of_time else Outcome.LOST
        return GuestResult(
            outcome, self._status, console.tail(), console.log, self._booted, self._since_begin(), reason, self._cpus
        )

    def _deadline(self) -> float | None:
        if self._fault is not None:
            return self._fault + _FAULT_LIMIT
        if self._status is not None:
            return self._ended + _POWER_OFF_LIMIT
        if self._booted is None:
            return self._begin + self._use.boot_limit
        limits = [self._limit] if self._limit is not None else []
        if self._use.time_limit is not None:
            limits.append(self._begin + self._booted + self._use.time_limit)
        return min(limits, default=None)

    def _take_output(self, data: bytes) -> None:
        if self._fault is None:
            self._use.on_stdout(data)

    def _take_console(self, data: bytes) -> None:
        self._console.add(data)
        if self._use.end_at_fault and self._fault is None and (self._console.oops or self._console.panic):
            self._fault = time.monotonic()
        if self._console.restarting:
            # A UML kernel that is told to restart executes itself: nobody asked for a second run.
            self._process.kill()

    def _take_status(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            if found := re.fullmatch(rb"started (\d+)", line):
                self._booted = self._since_begin()
                self._cpus = int(found[1])
            elif found := re.fullmatch(rb"limit (\d{1,6})", line):
                self._limit = time.monotonic() + int(found[1]) if int(found[1]) else None
            elif found := re.fullmatch(rb"exit (\d+)", line):
                self._status = int(found[1])
                self._ended = time.monotonic()

    def _since_begin(self) -> float:
        return time.monotonic() - self._begin


@dataclass
class Private:
    """A directory whose lock says that its owner lives."""

    path: Path
    lock: int


@contextlib.contextmanager
def private_dir() -> Iterator[Private]:
    """A directory of this guest alone, removed at the end; those of runs that were killed are removed now."""
    base = guests_dir()
    _remove_dead(base)
    path = Path(tempfile.mkdtemp(dir=base, prefix="."))
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now under a name that _remove_dead() looks at.
        path = path.rename(base / path.name[1:])
        yield Private(path, lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_dead(base: Path) -> None:
    """Remove the directories whose owner and keeper are both gone; their lock is free, whatever their ids are now."""
    for path in base.iterdir():
        try:
            if path.name.startswith(".") and time.time() - path.lstat().st_mtime < 60:
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def _write_boot_files(private: Path, spec: dict[str, Any]) -> None:
    """What the guest reads from its private directory: the interpreter, the program of process 1, its orders."""
    try:
        private.joinpath("python").symlink_to(_base_interpreter())
        # Compiled here, as compiling in the guest costs more than anything else process 1 does.
        py_compile.compile(str(_HERE / "init.py"), cfile=str(private / "init.pyc"), doraise=True)
        private.joinpath("spec").write_bytes(marshal.dumps(spec))
    except OSError as error:
        raise SetupError(f"cannot write to {private}: {error.strerror}") from error


def _console_log(log_dir: Path | None, name: str) -> Path:
    if log_dir is None:
        return new_log(f"console-{name}")
    return made(Path(log_dir)) / f"console-{name}.log"


def _interpreter() -> list[Path]:
    """Directories without which Python, or this package, does not run in the guest."""
    names = [sys.prefix, sys.base_prefix, os.path.dirname(_base_interpreter()), str(_HERE.parent)]
    return [Path(name) for name in names]


def _base_interpreter() -> str:
    """The interpreter proper: one of a virtual environment is of no use under another name."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _kept(paths: Sequence[Path]) -> list[str]:
    """Those of `paths`, also with symlinks resolved, that a fresh directory would hide; outermost only."""
    names = {os.path.abspath(path) for path in paths} | {os.path.realpath(path) for path in paths}
    hidden = sorted(name for name in names if any(_below(name, top) for top in COVERED) and os.path.isdir(name))
    # The working directory may be a covered one itself: the command then gets the fresh one.
    hidden = [name for name in hidden if name not in COVERED or name == str(_HERE.parent)]
    return [name for name in hidden if not any(_below(name, other) for other in hidden if other != name)]


def _below(name: str, top: str) -> bool:
    return name == top or name.startswith(top + "/")


def _can_hold_memory(directory: str, need: int) -> bool:
    """Whether a file of `need` bytes fits in `directory` and may be mapped executable (not on noexec)."""
    try:
        state = os.statvfs(directory)
        if state.f_bavail * state.f_frsize < need:
            return False
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True


def _discard(_: bytes) -> None:
    pass
