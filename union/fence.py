# SPDX-License-Identifier: GPL-2.0-only
"""Fences: make a lower layer unusable, and prove that it bites.

Only a filesystem that this process made and mounted is ever fenced, and it is recognised by its mount
id and device: the path may lead to something else by now.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from union import mountinfo, syscalls
from union.errors import SetupError, Unsupported
from union.filesystems import Layer
from union.programs import run_quietly

ABSENT_NAME: Final = ".ovl-detach-absent"  # no layer has it, so no cache can answer for it


class CannotFence(Unsupported):
    """This kind of lower layer cannot be made unusable."""


BITES: Final = {
    "xfs": ("lookup", "stat", "listing", "read"),
    "btrfs": ("read",),
    "ext4": ("read",),  # all the rest is answered from its caches and its disk as before
}
"""What must fail with EIO on a filesystem that was shut down; what else fails differs from kernel to kernel."""


class Shutdown:
    """The mail's fence: `xfs_io -x -c shutdown` on the lower filesystem. After it accesses give EIO."""

    def __init__(self, layer: Layer, *, in_process: bool = False) -> None:
        """`in_process`: by the system call that xfs_io makes.

        Raises CannotFence for a layer of the user's and for a filesystem that cannot be shut down.
        """
        if not layer.ours:
            raise CannotFence(f"{layer.root} is the user's: only a filesystem of our own is ever shut down")
        if layer.fstype not in BITES:
            raise CannotFence(f"the lower layer is {layer.fstype}: only {', '.join(BITES)} can be shut down")
        self._layer = layer
        self._in_process = in_process
        self._canary = ""
        self._size = 0
        self.refused: dict[str, int] = {}  # what the self-test did, and the errno it got

    def fence(self) -> None:
        """Read a canary file of the lower, then shut the filesystem down.

        Raises CannotFence when this kernel cannot shut such a filesystem down, and SetupError: the layer is not
        the mount that was made, it is unreadable already, it holds no file to read, or xfs_io is missing or fails.
        """
        with self._ours() as root:
            self._canary, self._size = _read_canary(root)
            if self._in_process:
                _go_down(self._layer)
                return
            # By descriptor: what the path means may change under us, this cannot.
            arguments = ["-x", "-c", "shutdown", f"/proc/self/fd/{root}"]
            try:
                run_quietly("xfs_io", "xfsprogs", arguments, f"xfs_io -x -c shutdown {self._layer.root}", [root])
            except SetupError as error:
                if os.strerror(errno.ENOTTY) not in str(error):
                    raise
                raise CannotFence(f"kernel {os.uname().release} cannot shut {self._layer.fstype} down") from error

    def self_test(self, *, cold: bool = False) -> str:
        """Look up, list, stat and read in the fenced lower: what BITES names must give EIO.

        XFS asks for the shutdown before it looks into any cache, so caches need not be dropped; with
        `cold` they are (all of the system's, so the union is cold afterwards too).
        """
        if not self._canary:
            raise SetupError("the self-test of a fence comes after the fence")
        if cold:
            syscalls.drop_caches()
        with self._ours() as root:
            self.refused = {what: _errno_of(attempt) for what, attempt in self._attempts(root)}
        bites = BITES[self._layer.fstype]
        wrong = [f"{what} {_name(got)}" for what, got in self.refused.items() if got != errno.EIO and what in bites]
        if wrong:
            what = f"the fence does not bite on {self._layer.root}"
            raise SetupError(f"{what}: {', '.join(wrong)} instead of EIO")
        before = f"read {self._size} bytes of {self._canary} before"
        bitten = ", ".join(what for what, got in self.refused.items() if got == errno.EIO)
        blind = ", ".join(what for what, got in self.refused.items() if got != errno.EIO)
        kind = self._layer.fstype.upper() if self._layer.fstype == "xfs" else self._layer.fstype
        spared = f" (not for {blind})" if blind else ""
        return f"{kind} shutdown; self-test: {before}, EIO for {bitten} after{spared}"

    def _attempts(self, root: int) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "lookup", lambda: os.stat(ABSENT_NAME, dir_fd=root, follow_symlinks=False)
        yield "stat", lambda: os.stat(self._canary, dir_fd=root, follow_symlinks=False)
        yield "listing", lambda: _list(root)
        yield "read", lambda: _read(root, self._canary)

    @contextmanager
    def _ours(self) -> Iterator[int]:
        """A descriptor of the layer's root, once it is clear that this still is the mount we made."""
        layer = self._layer
        try:
            fd = os.open(layer.root, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise SetupError(f"the lower layer is gone: {error}") from error
        try:
            mount_id = syscalls.mount_id(fd)
            mount = mountinfo.find(mount_id)  # not stat: a fenced filesystem answers none
            ours = (layer.mount_id, layer.device, layer.fstype, layer.source)
            if mount is None or (mount_id, mount.device, mount.fstype, mount.source) != ours:
                raise SetupError(f"{layer.root} is not what this run mounted there: not fenced")
            yield fd
        finally:
            os.close(fd)


def _go_down(layer: Layer) -> None:
    fd = os.open(layer.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syscalls.mount_id(fd) != layer.mount_id:
            raise SetupError(f"{layer.root} is not what this run mounted there: not fenced")
        syscalls.go_down(fd)
    except OSError as error:
        raise SetupError(f"{layer.root} cannot be shut down: {error}") from error
    finally:
        os.close(fd)


def _read_canary(root: int) -> tuple[str, int]:
    """Read a regular file below `root`, breadth first and one with content if there is any: path and bytes read."""
    waiting, empty = ["."], ""
    try:
        while waiting:
            directory = waiting.pop(0)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
            try:
                entries = syscalls.getdents(fd)
            finally:
                os.close(fd)
            for name, _ino, kind in sorted(entries):
                path = name if directory == "." else f"{directory}/{name}"
                if kind == syscalls.DT_REG and (size := _read(root, path)):
                    return path, size
                if kind == syscalls.DT_REG:
                    empty = empty or path
                if kind == syscalls.DT_DIR and name not in (".", ".."):
                    waiting.append(path)
    except OSError as error:
        raise SetupError(f"the lower layer cannot be read before the fence: {error}") from error
    if empty:
        return empty, 0
    raise SetupError("the lower layer has no file: nothing to test the fence with")


def _read(root: int, path: str) -> int:
    """Open and read up to a page of a file; the number of bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
    try:
        return len(os.read(fd, 4096))
    finally:
        os.close(fd)


def _list(root: int) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        syscalls.getdents(fd)
    finally:
        os.close(fd)


def _errno_of(attempt: Callable[[], object]) -> int:
    try:
        attempt()
    except OSError as error:
        return error.errno or 0
    return 0


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else "succeeded"
