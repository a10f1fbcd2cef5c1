# SPDX-License-Identifier: GPL-2.0-only
"""QEMU as a guest: any kernel for this machine's architecture, in the form of a bzImage.

    guest = QemuGuest(Path("arch/x86/boot/bzImage"))
    result = guest.run(["/bin/echo", "hello"], on_stdout=sys.stdout.buffer.write)

Like a User-mode Linux guest (see `uml.py`) but for how it is started: the host's root comes in by virtiofs, served by a
daemon beside QEMU, status and input go over virtio consoles, and stdout and stderr are virtio ports, no terminals. So
the kernel needs virtio-pci, virtio-fs and a serial console built in; everything else may be modules (see `modules.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel import bzimage, requirements
from kernel.accelerator import Accelerator, accelerators, gave_up
from kernel.build import build_lock
from kernel.console import Console
from kernel.errors import SetupError, UsageError
from kernel.guest import GuestResult, Outcome, Sink
from kernel.held import Held, close_all
from kernel.modules import Modules
from kernel.paths import new_log
from kernel.private import Private, console_log, orders, private_dir, write_boot_files
from kernel.progress import Progress
from kernel.watch import Use, Watch, discard

STATUS = "hvc0"
"""The guest's name of the terminal on which process 1 reports, and a command may set a limit (see `init.py`)."""

# A console of QEMU drops what the host does not read at once; a port does not, but is no terminal.
_CONSOLES = ("status", "answers")  # hvc0 and hvc1; the last one takes the command's input too
_PORTS = ("out", "err")
_MARK = 24  # bytes that no command writes by chance
_MOST_CPUS = 8


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class QemuGuest:
    """Runs commands on the bzImage `kernel`; each `run` is a boot of its own, several at once are fine.

    `memory` is the guest's, like `512M` or `1G`, `cpus` how many CPUs it has. `modules` are the kernel's, by default
    those that are installed for it or lie beside it. Without a usable KVM the CPU is emulated, after `say` was told so,
    and all limits are longer (see `accelerator.py`). Consoles are written to `log_dir`, by default in the user's cache.
    Raises `UsageError` for what is no bzImage, or for so many CPUs; `SetupError` when QEMU cannot be had.
    """

    status = STATUS

    def __init__(
        self,
        kernel: Path,
        memory: str = "1G",
        log_dir: Path | None = None,
        *,
        cpus: int | None = None,
        modules: Modules | None = None,
        say: Callable[[str], object] = _complain,
    ) -> None:
        self.kernel = Path(kernel).absolute()
        self.memory = memory
        self._log_dir = log_dir
        self._say = say
        self._cpus = 1 if cpus is None else cpus
        if not re.fullmatch(r"[1-9]\d*[MG]", memory):
            raise UsageError(f"{memory}: not a size of memory, like 512M or 1G")
        if not 1 <= self._cpus <= _MOST_CPUS:
            raise UsageError(f"{cpus} CPUs: a QEMU guest can have {_MOST_CPUS}")
        self._release = bzimage.release(self.kernel)
        self._modules = modules or Modules.of(self.kernel, self._release)
        if requirements.missing(requirements.QEMU):
            with build_lock(Progress(sys.stderr)):  # two guests at once must not install at once
                requirements.ensure(requirements.QEMU, new_log("qemu-install"), say)

    def release(self) -> str:
        """The kernel's release, as the bzImage says it."""
        return self._release

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
        shown = {"root": Path("/"), **{f"shared{n}": Path(host).resolve() for n, (host, _) in enumerate(shared)}}
        end = os.urandom(_MARK)
        spec: dict[str, Any] = {
            **orders(argv, cwd, env, visible),
            "host": "virtiofs",
            "shared": [(f"shared{n}".encode(), os.fsencode(guest)) for n, (_, guest) in enumerate(shared)],
            "cpus": self._cpus,
            "status": STATUS,
            "out": "port:out",
            "err": "port:err",
            "end": end,
            "feed": "" if stdin is None else "hvc1",
        }
        use = Use(time_limit, boot_limit, on_stdout or discard, on_stderr or discard, stdin, end_at_fault, end=end)
        first, *others = accelerators(self._say)
        result = self._boot(spec, shown, first, use)
        for how in others:
            if result.outcome is not Outcome.NOT_BOOTED or not gave_up(result.console_tail):
                break
            self._say(f"guest: it does not boot with {first.name}, trying {how.name}: {result.explain()}")
            result = self._boot(spec, shown, how, use)
        return result

    def _boot(self, spec: dict[str, Any], shown: dict[str, Path], how: Accelerator, use: Use) -> GuestResult:
        """One boot, to its end."""
        use = replace(use, scale=how.scale)
        with contextlib.ExitStack() as stack:
            private = stack.enter_context(private_dir())
            log = console_log(self._log_dir, private.path.name)
            console = stack.enter_context(Console(log))
            program = self._modules.write_program(private.path) if self._modules else ""
            write_boot_files(private.path, {**spec, "modules": os.fsencode(program)})
            held = stack.enter_context(self._start(private, shown, how))
            watch = Watch(held, console, use)
            watch.until_over()
            return watch.result()

    def _start(self, private: Private, shown: dict[str, Path], how: Accelerator) -> Held:
        """The guest's processes: a daemon per directory of the host, and QEMU; with the last one all end."""
        pipes, far = _sockets(private.path, shown)
        daemons = [_daemon(far[f"{tag}-server"], path) for tag, path in shown.items()]
        script = "".join(f"{shlex.join(daemon)} & " for daemon in daemons)
        qemu = shlex.join(self._argv(private.path, shown, how, far))
        return Held(
            ["/bin/sh", "-c", f"{script}exec {qemu}"],
            pipes,
            far.values(),
            console=far["console"],
            lock=private.lock,
            memory_dir=str(private.path),
            cpus=tuple(sorted(os.sched_getaffinity(0))),
        )

    def _argv(self, private: Path, shown: dict[str, Path], how: Accelerator, far: dict[str, int]) -> list[str]:
        words = [requirements.find_program("qemu-system-x86_64") or "qemu-system-x86_64"]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"]
        words += [*how.options, "-smp", str(self._cpus), "-m", self.memory]
        # What the daemons read and write is the guest's own memory.
        words += ["-object", f"memory-backend-memfd,id=memory,size={self.memory},share=on"]
        words += ["-numa", "node,memdev=memory"]
        for tag in shown:
            words += ["-chardev", f"socket,id={tag},fd={far[tag]}"]
            words += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        # Without ioeventfd what was written has arrived when the guest goes on.
        words += ["-device", "virtio-serial-pci,ioeventfd=off"]
        for number, name in enumerate((*_CONSOLES, *_PORTS)):
            kind = f"virtserialport,name={name}" if name in _PORTS else "virtconsole"
            words += ["-chardev", f"socket,id={name},fd={far[name]}", "-device", f"{kind},chardev={name},nr={number}"]
        words += ["-chardev", f"socket,id=console,fd={far['console']}", "-serial", "chardev:console"]
        return [*words, "-kernel", str(self.kernel), "-append", self._command_line(private)]

    def _command_line(self, private: Path) -> str:
        return " ".join(
            [
                "console=ttyS0",
                "root=root",
                "rootfstype=virtiofs",
                "ro",
                "panic=-1",
                # Every unmount waits for a grace period, of one or two ticks if nobody hurries.
                "rcupdate.rcu_expedited=1",
                f"init={private}/python",
                "--",
                f"-I -S -B {private}/init.pyc {private}/spec",
            ]
        )


def _sockets(private: Path, tags: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Our ends of the channels by name, and the guest's. For each of `tags` those are TAG, connected to TAG-server.

    Raises `SetupError` when they cannot be made.
    """
    pipes: dict[str, int] = {}
    far: dict[str, int] = {}
    try:
        for name in ("console", *_CONSOLES, *_PORTS):
            ours, theirs = socket.socketpair()
            pipes[name], far[name] = ours.detach(), theirs.detach()
        pipes["feed"] = os.dup(pipes["answers"])
        for tag in tags:
            server, client = _connection(private / tag)
            far[f"{tag}-server"], far[tag] = server.detach(), client.detach()
    except OSError as error:
        close_all(pipes)
        close_all(far)
        raise SetupError(f"cannot start a guest: {error}") from error
    return pipes, far


def _connection(path: Path) -> tuple[socket.socket, socket.socket]:
    """A listening socket, and one that is connected to it already, so nobody has to wait for who will listen."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        short = f"/proc/self/fd/{directory}/{path.name}"  # a socket's path must not be long
        server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        server.bind(short)
        server.listen(1)
        client.connect(short)
    finally:
        os.close(directory)
    return server, client


def _daemon(listening: int, directory: Path) -> list[str]:
    """The virtiofs daemon that serves `directory` to the one that is connected to the socket `listening`."""
    # Nothing but the guest changes what it can write to, and the host's root is expected to stay as it is.
    options = (f"source={directory}", "cache=always", "sandbox=chroot", "log_level=err")
    words = [requirements.find_virtiofsd() or "virtiofsd", f"--fd={listening}"]
    words += [word for option in options for word in ("-o", option)]
    # An ordinary user may change the root directory as root of a user namespace, which sees what the user may see.
    return words if os.geteuid() == 0 else ["unshare", "--map-root-user", *words]
