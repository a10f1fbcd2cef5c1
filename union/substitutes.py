# SPDX-License-Identifier: GPL-2.0-only
"""What stands where the kernel's overlay usually is: the lower tree itself (`--no`), a FUSE overlay (`--fuse`)."""

from __future__ import annotations

import errno
import select
import subprocess
from dataclasses import dataclass, field

from union import syscalls
from union.configuration import Configuration
from union.errors import SetupError
from union.mountinfo import MOUNTINFO
from union.overlay import MountRefused, Overlay
from union.programs import find_program

MOUNT_LIMIT = 20.0  # seconds that a FUSE overlay gets until it is mounted


@dataclass(slots=True)
class PlainTree(Overlay):
    """The lower tree bound to the mount point: no layers, nothing is copied up."""

    def mount(self) -> None:
        try:
            syscalls.mount(str(self.stack.lowerdirs[0]), self.stack.mountpoint, None, syscalls.MS_BIND)
        except OSError as error:
            raise SetupError(f"cannot bind the lower tree: {error}") from error
        self.mount_id = syscalls.mount_id(self.stack.mountpoint)


@dataclass(slots=True)
class FuseOverlay(Overlay):
    """An overlay by the program `source`, such as fuse-overlayfs; its notes on stderr are not shown."""

    _daemon: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def mount(self) -> None:
        """Start the program and wait until its mount is there; raises MountRefused with its last words."""
        stack = self.stack
        options = [
            *(f"{key}={value}" if value else key for key, value in self.options),
            "lowerdir=" + ":".join(map(str, stack.lowerdirs)),
            f"upperdir={stack.upperdir}",
            f"workdir={stack.workdir}",
        ]
        command = [find_program(self.source, self.source), "-f", "-o", ",".join(options), str(stack.mountpoint)]
        before = syscalls.mount_id(stack.mountpoint)
        with MOUNTINFO.open() as mounts:
            changes = select.poll()
            changes.register(mounts, select.POLLPRI | select.POLLERR)
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            changes.register(_fd(self._daemon), select.POLLHUP)  # it ended instead
            while syscalls.mount_id(stack.mountpoint) == before:
                seen = changes.poll(MOUNT_LIMIT * 1000)
                if not seen or any(fd == _fd(self._daemon) and event & select.POLLHUP for fd, event in seen):
                    raise MountRefused(errno.EINVAL, f"{self.source} on {stack.mountpoint}", self._last_words())
        self.mount_id = syscalls.mount_id(stack.mountpoint)

    def unmount(self) -> None:
        Overlay.unmount(self)
        if self._daemon is not None:
            self._daemon.communicate()  # it holds the layers until it is gone
            self._daemon = None

    def _last_words(self) -> list[str]:
        assert self._daemon is not None
        self._daemon.kill()
        _, said = self._daemon.communicate()
        self._daemon = None
        return said.decode(errors="replace").splitlines()[-1:]


def _fd(daemon: subprocess.Popen[bytes]) -> int:
    assert daemon.stderr is not None
    return daemon.stderr.fileno()


def kind_of(configuration: Configuration) -> type[Overlay]:
    """What a run of this configuration mounts."""
    return PlainTree if configuration.plain else FuseOverlay if configuration.fuse else Overlay
