# SPDX-License-Identifier: GPL-2.0-only
"""A lower layer that is a FUSE filesystem of ours: it logs what it is asked, and does what it is told.

Nothing of it is valid for any time in a cache of the kernel, so that each method that an overlay calls becomes a
request. The daemon is a process of its own, which can hang and die.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from union import children, filesystems, syscalls
from union.errors import SetupError, Unsupported
from union.fuse.log import RequestLog
from union.fuse.server import Content, Rule, Server

FSTYPE: Final = "fuse"
PATIENCE: Final = 3.0
_GLANCE: Final = 0.2  # seconds between two looks of the watchdog
_DEVICE: Final = "/dev/fuse"
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
        self._stack = stack
        self._control_directory: Path | None = None
        self.log = RequestLog()
        try:
            device = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{_DEVICE}: {error.strerror}: this kernel has no fuse, or lacks its module") from error
        try:
            filesystems.mount(stack, name, at, FSTYPE, _OPTIONS.format(fd=device), syscalls.MS_RDONLY)
            self._control, theirs = Pipe()
            server = partial(Server, device, self.log, theirs, content or Content(), passthrough=passthrough)
            self.pid = children.daemon(lambda: _serve(server, tree, theirs), (device, theirs.fileno()))
            stack.callback(self._end)
            theirs.close()
        finally:
            os.close(device)  # the daemon alone has it: when it dies the connection does
        if not self._answer():
            raise Unsupported(f"fuse of kernel {os.uname().release} lacks what is needed"
                              f"{' to pass files through' if passthrough else ''}")  # fmt: skip
        self.layer = replace(filesystems.layer(at, FSTYPE, name), server=self)

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
        children.end(self.pid)

    def stop(self) -> None:
        """SIGSTOP: no request is answered any more."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """SIGCONT: it goes on with what has come since it was stopped."""
        os.kill(self.pid, signal.SIGCONT)

    def abort(self) -> None:
        """Let the kernel end the connection: what waits fails with ECONNABORTED, what comes after with ENOTCONN."""
        (self._connection() / "abort").write_text("1")

    def watch(self) -> None:
        """Let a process of ours abort the connection once requests have been waiting in it for PATIENCE seconds.

        It ends with the filesystem. Its own look at the connection is the only way to learn of them: a daemon that is
        stopped takes none, and the kernel tells nobody.
        """
        connection = self._connection()
        self._stack.callback(children.end, children.daemon(lambda: _guard(connection)))

    def _connection(self) -> Path:
        """The directory of the kernel's control filesystem that is about this mount."""
        if self._control_directory is None:
            at = self.layer.root.with_name(f"{self.layer.root.name}.connections")
            at.mkdir()
            filesystems.mount(self._stack, "connections", at, "fusectl", "")
            self._control_directory = at
        major, minor = map(int, self.layer.device.split(":"))
        number = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)  # how the kernel packs it
        return self._control_directory / str(number)

    def _end(self) -> None:
        children.end(self.pid)
        self._control.close()

    def _ask(self, word: str, value: object = None) -> Any:
        with suppress(BrokenPipeError):  # it may have said why it died
            self._control.send((word, value))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._control.recv()
        except (EOFError, OSError) as error:
            raise SetupError("the daemon of the FUSE lower has died") from error
        if isinstance(answer, str):
            raise SetupError(f"the daemon of the FUSE lower failed: {answer}")
        return answer


def _guard(connection: Path) -> None:
    """What the watchdog does; it fails, and ends, when the filesystem is gone."""
    idle = select.poll()
    since: float | None = None
    while True:
        idle.poll(_GLANCE * 1000)
        waits = int((connection / "waiting").read_text()) > 0
        since = (since or time.monotonic()) if waits else None
        if since is not None and time.monotonic() - since > PATIENCE:
            (connection / "abort").write_text("1")
            return


def _serve(server: Callable[[], Server], tree: Path, control: Connection) -> None:
    """What the daemon does; a fault of it is told."""
    try:
        os.chdir(tree)
        server().run()
    except BaseException:
        with suppress(OSError):
            control.send(traceback.format_exc().strip().replace("\n", "; "))
        raise
