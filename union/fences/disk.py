# SPDX-License-Identifier: GPL-2.0-only
"""Fences for a lower on a block device: the filesystem is shut down, or what is on the device is taken away."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import ClassVar, Final

from union import syscalls
from union.errors import SetupError
from union.fence import EVERYTHING, READ, CannotFence, Fence
from union.filesystems import Layer
from union.programs import run_quietly

_BITES: Final = {
    "xfs": EVERYTHING,
    "btrfs": (READ,),
    "ext4": (READ,),  # all the rest is answered from its caches and its disk as before
}
_ZEROES: Final = bytes(1 << 20)


class Shutdown(Fence):
    """The mail's fence: `xfs_io -x -c shutdown` on the lower filesystem. After it accesses give EIO."""

    name = "shutdown"
    what = "shutdown"
    command: ClassVar[str] = "shutdown"

    def __init__(self, layer: Layer, *, in_process: bool = False) -> None:
        """`in_process`: by the system call that xfs_io makes, without its log."""
        super().__init__(layer)
        self._in_process = in_process

    def must(self) -> tuple[str, ...]:
        """XFS asks for the shutdown before it looks into any cache; the others hardly do."""
        return _BITES[self.layer.fstype]

    def _raise(self, root: int) -> None:
        if self._in_process:
            go_down(self.layer)
            return
        # By descriptor: what the path means may change under us, this cannot.
        arguments = ["-x", "-c", self.command, f"/proc/self/fd/{root}"]
        shown = f"xfs_io -x -c {self.command!r} {self.layer.root}".replace("'shutdown'", "shutdown")
        try:
            run_quietly("xfs_io", "xfsprogs", arguments, shown, [root])
        except SetupError as error:
            if os.strerror(errno.ENOTTY) not in str(error):
                raise
            raise CannotFence(f"kernel {os.uname().release} cannot shut {self.layer.fstype} down") from error


class FlushedShutdown(Shutdown):
    """The same, with the log written out before."""

    name = "shutdown-flushed"
    what = "shutdown with the log flushed"
    command = "shutdown -f"


def go_down(layer: Layer) -> None:
    """Shut it down by the system call, its log not written out: what was not synced is lost as by a power cut.

    Raises SetupError when it is not the mount that was made, CannotFence when the kernel cannot.
    """
    fd = os.open(layer.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syscalls.mount_id(fd) != layer.mount_id:
            raise SetupError(f"{layer.root} is not what this run mounted there: not fenced")
        syscalls.go_down(fd)
    except OSError as error:
        kind = CannotFence if error.errno == errno.ENOTTY else SetupError
        raise kind(f"{layer.root} cannot be shut down: {error}") from error
    finally:
        os.close(fd)


class Overwritten(Fence):
    """All bytes of the image below the mounted filesystem become zeroes."""

    name = "overwritten"
    what = "image overwritten with zeroes"
    words = ("EIO", "EUCLEAN", "EBADMSG", "ESTALE", "ENOENT", "EINVAL", "ENOTDIR", "something else")
    cold = True

    def must(self) -> tuple[str, ...]:
        """What is in a cache is not read again, and what cannot be dropped stays."""
        return (READ,)

    def _raise(self, root: int) -> None:
        with _image(self.layer).open("r+b") as image:
            left = os.fstat(image.fileno()).st_size
            while left > 0:
                left -= image.write(_ZEROES[:left])


class Truncated(Fence):
    """The image below the mounted filesystem is cut to nothing: what the device is asked for is an I/O error.

    That is as near as one comes to a loop device that is torn away: LOOP_CLR_FD on one that is mounted succeeds, but
    the kernel then waits for its last user, and until then all works as before.
    """

    name = "truncated"
    what = "image cut to nothing"
    cold = True

    def must(self) -> tuple[str, ...]:
        """See `Overwritten`."""
        return (READ,)

    def _raise(self, root: int) -> None:
        os.truncate(_image(self.layer), 0)


class Swapped(Fence):
    """The loop device gets another image under the mounted filesystem, one of zeroes.

    The kernel does that with a device that nobody can write to, and with no other.
    """

    name = "swapped"
    what = "image swapped for one of zeroes"
    words = Overwritten.words
    cold = True

    def must(self) -> tuple[str, ...]:
        """See `Overwritten`."""
        return (READ,)

    def _raise(self, root: int) -> None:
        image = _image(self.layer)
        other = image.with_name(f"{image.name}.zeroes")
        with other.open("xb") as file:
            file.truncate(image.stat().st_size)
        try:
            syscalls.change_loop(self.layer.source, other)
        except OSError as error:
            raise SetupError(f"{self.layer.source} cannot be given another image: {error}") from error


def _image(layer: Layer) -> Path:
    """The file below the filesystem, which is ours as the filesystem is."""
    device = Path(layer.source).name
    try:
        return Path(Path(f"/sys/block/{device}/loop/backing_file").read_text().rstrip("\n"))
    except OSError as error:
        raise SetupError(f"{layer.root} is on no loop device: {error}") from error


FENCES: Final = (Shutdown, FlushedShutdown, Overwritten, Truncated, Swapped)
