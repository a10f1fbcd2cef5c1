# SPDX-License-Identifier: GPL-2.0-only
"""A lower layer that is a FUSE filesystem of ours: it logs what it is asked, and does what it is told.

Nothing of it is valid for any time in a cache of the kernel, so that each method that an overlay calls becomes a
request. The daemon is a process of its own, which can hang and die.
"""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from union import filesystems, syscalls
from union.errors import SetupError, Unsupported
from union.filesystems import Layer
from union.fuseserver import Content, Rule, Server
from union.requestlog import RequestLog

FSTYPE: Final = "fuse"
_DEVICE: Final = "/dev/fuse"
_PR_SET_PDEATHSIG: Final = 1
_OPTIONS: Final = "fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"


class LowerFuse:
    """The mounted filesystem and its daemon. `layer` is its record, `log` what it was asked, `pid` the daemon."""

    def __init__(
        self,
        stack: ExitStack,
        tree: Path,
        at: Path,
        name: str,
        *,
        content: Content | None = None,
        passthrough: bool = False,
    ) -> None:
        """Serve the directory `tree` on the directory `at`, with the mount source `name`; undone with `stack`.

        The tree must lie on one filesystem and stay as it is. With `passthrough` the kernel reads files itself, from
        where the daemon has opened them. Raises SetupError, or Unsupported if this kernel cannot.
        """
        self.log = RequestLog()
        try:
            device = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{_DEVICE}: {error.strerror}: this kernel has no fuse, or lacks its module") from error
        try:
            filesystems.mount(stack, name, at, FSTYPE, _OPTIONS.format(fd=device), syscalls.MS_RDONLY)
            self._control, theirs = Pipe()
            self.pid = _fork(lambda: Server(device, self.log, theirs, content or Content(), passthrough=passthrough),
                             tree, (device, theirs.fileno()), theirs)  # fmt: skip
            stack.callback(self._end)
            theirs.close()
        finally:
            os.close(device)  # the daemon alone has it: when it dies the connection does
        if not self._answer():
            raise Unsupported(f"fuse of kernel {os.uname().release} lacks what is needed"
                              f"{' to pass files through' if passthrough else ''}")  # fmt: skip
        self.layer: Layer = filesystems.layer(at, FSTYPE, name)

    # its rules

    def rules(self, *rules: Rule) -> None:
        """From now on these decide, the first that matches; what waits is looked at again. None: all is served."""
        self._ask("rules", rules)

    def waiting(self) -> int:
        """How many requests it has taken and not answered."""
        return int(self._ask("waiting"))

    def settle(self) -> None:
        """Return when it has taken all that the kernel had for it, so that the log is complete."""
        self._ask("settle")

    # its life

    def kill(self) -> None:
        """SIGKILL: the connection is gone when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """SIGSTOP: no request is answered any more."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """SIGCONT: it goes on with what has come since it was stopped."""
        os.kill(self.pid, signal.SIGCONT)

    def _reap(self) -> None:
        with suppress(ChildProcessError):  # it was reaped before
            os.waitpid(self.pid, 0)

    def _end(self) -> None:
        with suppress(ProcessLookupError):  # it has died before, as it was told to
            os.kill(self.pid, signal.SIGKILL)
        self._reap()
        self._control.close()

    def _ask(self, word: str, value: object = None) -> Any:
        try:
            self._control.send((word, value))
        except OSError as error:
            raise SetupError(f"the daemon of the FUSE lower is gone: {error.strerror}") from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._control.recv()
        except (EOFError, OSError) as error:
            raise SetupError("the daemon of the FUSE lower has died") from error
        if isinstance(answer, str):
            raise SetupError(f"the daemon of the FUSE lower failed: {answer}")
        return answer


def _fork(server: Callable[[], Server], tree: Path, needed: tuple[int, ...], control: Connection) -> int:
    """Run the server in a child process that has nothing else of ours open; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM):  # meant for who started us, and then it kills us
            signal.signal(number, signal.SIG_IGN)
        os.chdir(tree)
        _close_all_but(needed)
        server().run()
    except BaseException:  # noqa: BLE001 - whatever it is, who uses us must be told
        with suppress(OSError):
            control.send(traceback.format_exc().strip().replace("\n", "; "))
        os._exit(1)
    os._exit(0)


def _close_all_but(needed: tuple[int, ...]) -> None:
    """What was open in the parent would keep it busy; the standard streams lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    first = 3
    for number in sorted(needed):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
