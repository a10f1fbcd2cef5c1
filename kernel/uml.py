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
import mmap
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel.console import Console
from kernel.cpus import Try, own_cpus, tries
from kernel.errors import SetupError, UsageError
from kernel.feed import LINE
from kernel.guest import GuestResult, Outcome, Sink
from kernel.held import Held, close_all
from kernel.paths import guests_dir
from kernel.private import console_log, orders, private_dir, write_boot_files
from kernel.watch import Use, Watch, discard

STATUS = "tty1"
"""The guest's name of the terminal on which process 1 reports, and a command may set a limit (see `init.py`)."""

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

    status = STATUS

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
            **orders(argv, cwd, env, visible),
            "host": "hostfs",
            "shared": [(os.fsencode(Path(host).resolve()), os.fsencode(guest)) for host, guest in shared],
            "modules": b"",
            "status": STATUS,
            "out": "tty2",
            "err": "tty3",
            "end": b"",
            "feed": "" if stdin is None else LINE,
        }
        use = Use(time_limit, boot_limit, on_stdout or discard, on_stderr or discard, stdin, end_at_fault)
        *others, last = self._tries
        for how in others:
            result = self._boot(spec, how, use)
            if result.outcome is not Outcome.NOT_BOOTED:
                return result
            self._say(f"guest: it does not boot with {how}, trying {last}: {result.explain()}")
        return self._boot(spec, last, use)

    def _boot(self, spec: dict[str, Any], how: Try, use: Use) -> GuestResult:
        """One boot, to its end."""
        with contextlib.ExitStack() as stack:
            private = stack.enter_context(private_dir())
            log = console_log(self._log_dir, private.path.name)
            console = stack.enter_context(Console(log))
            write_boot_files(private.path, {**spec, "cpus": how.cpus})
            host_cpus = stack.enter_context(own_cpus(how.cpus if self._spread else 1))
            memory_dir = self.memory_dir()
            pipes, far = _channels()
            held = Held(
                self._argv(private.path, how, far),
                pipes,
                far.values(),
                console=far["console"],
                lock=private.lock,
                memory_dir=memory_dir,
                cpus=host_cpus,
            )
            process = stack.enter_context(held)
            watch = Watch(process, console, use)
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

    def _argv(self, private: Path, how: Try, far: dict[str, int]) -> list[str]:
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
            f"con0=null,fd:{far['console']}",
            f"con1=null,fd:{far['status']}",
            f"con2=null,fd:{far['out']}",
            f"con3=null,fd:{far['err']}",
            "ssl=null",
            f"ssl0=fd:{far['feed']},fd:{far['answers']}",
            f"init={private}/python",
            "--",
            "-I",
            "-S",
            "-B",
            f"{private}/init.pyc",
            f"{private}/spec",
        ]


_NAMES = ("console", "status", "out", "err", "answers", "feed")


def _channels() -> tuple[dict[str, int], dict[str, int]]:
    """Our ends of the pipes to a guest, by name, and its ends."""
    pipes: dict[str, int] = {}
    far: dict[str, int] = {}
    try:
        for name in _NAMES:
            ends = os.pipe()
            # All lead from the guest to us but one.
            pipes[name], far[name] = ends if name != "feed" else ends[::-1]
    except OSError as error:
        close_all(pipes)
        close_all(far)
        raise SetupError(f"cannot start a guest: {error}") from error
    return pipes, far


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
