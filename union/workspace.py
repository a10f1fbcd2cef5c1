# SPDX-License-Identifier: GPL-2.0-only
"""Where a run works: a mount namespace of its own, a scratch directory, and the directories a user names.

A run that is killed leaves no mount and no loop device, because the mounts are in a private namespace and
the devices free themselves; what it can leave is an empty scratch directory or its files in a directory of
the user's, which the next run removes.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from datasets import tree
from union import mountinfo, syscalls
from union.errors import SetupError, Unsupported
from union.filesystems import tmpfs

SCRATCH_PREFIX: Final = "ovl-detach-"
MARK: Final = ".ovl-detach"  # in a directory of the user's: what has our names there was made by us
_YOUNG: Final = f".{SCRATCH_PREFIX}"  # a scratch directory that its owner has not locked yet
_YOUNG_FOR: Final = 60  # seconds; one that is still not locked then has no owner
_NAMES: Final = re.compile(r"[lmnuw]|\d+")  # what a run makes in a directory of the user's (parity 2.1)
_LAYER_KEYS: Final = ("lowerdir", "lowerdir+", "upperdir")


def enter_private_namespace() -> None:
    """Give this process mounts of its own; call it before anything is mounted and threads are started.

    Raises Unsupported without CAP_SYS_ADMIN.
    """
    try:
        syscalls.unshare_mounts()
    except OSError as error:
        what = f"a mount namespace needs root (CAP_SYS_ADMIN), this is uid {os.geteuid()}"
        raise Unsupported(f"{what}: {error.strerror}") from error


def scratch_directory(stack: ExitStack) -> Path:
    """A tmpfs of our own on a fresh directory; removes what killed runs left first."""
    _reap()
    try:
        path = Path(tempfile.mkdtemp(prefix=_YOUNG))
    except OSError as error:
        raise SetupError(f"no scratch directory: {error}") from error
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # tells other runs that the owner lives
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Only now under a name that is asked for its lock.
    path = path.rename(path.with_name(path.name.removeprefix(".")))
    # Removed while it is locked: else another run could take it for a dead one's, and do it first.
    stack.callback(os.close, lock)
    stack.callback(path.rmdir)
    tmpfs(stack, path, SCRATCH_PREFIX.rstrip("-"))
    return path


def _reap() -> None:
    """Remove the empty scratch directories of dead runs.

    Their owners are asked by lock, not by process id, since removing a directory that is a mount point
    in another namespace takes that mount away.
    """
    home = Path(tempfile.gettempdir())
    for path in (*home.glob(f"{SCRATCH_PREFIX}*"), *home.glob(f"{_YOUNG}*")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or not ours
        try:
            if not path.name.startswith(_YOUNG) or time.time() - os.fstat(fd).st_mtime > _YOUNG_FOR:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.rmdir()
        except OSError:
            pass  # in use, not empty or not ours: leave it
        finally:
            os.close(fd)


def claim(stack: ExitStack, directory: Path, variable: str) -> None:
    """Take the user's `directory` for this run: nothing in it may have one of the names that we use.

    What a killed run of ours left there is removed now, what this run makes when the stack is undone;
    nothing else is touched. Raises SetupError, which names the environment `variable`.
    """
    if not directory.is_dir():
        raise SetupError(f"{variable}: {directory} is not a directory")
    mark = directory / MARK
    left_by_us = mark.exists()
    try:
        lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            raise BlockingIOError  # its owner gave it back between the two calls
    except BlockingIOError as error:
        raise SetupError(f"{variable}: another run works in {directory}") from error
    except OSError as error:
        raise SetupError(f"{variable}: {error}") from error
    present = [entry for entry in directory.iterdir() if _NAMES.fullmatch(entry.name)]
    if present and not left_by_us:
        mark.unlink()
        raise SetupError(f"{variable}: {present[0]} is not ours; empty {directory} or name another directory")
    if point := _mounted_from(present):
        raise SetupError(f"{variable}: {point} is still mounted from {directory}; ./run -c takes it down")
    _remove(present)
    stack.callback(_give_back, directory)


def _mounted_from(entries: list[Path]) -> str | None:
    """Where something is mounted on one of the directories, or an overlay that has a layer in one."""
    taken = [os.path.realpath(entry) for entry in entries]
    for mount in mountinfo.mounts():
        layers = [path for key, value in mount.options if key in _LAYER_KEYS for path in value.split(":")]
        paths = [mount.point, *(layers if mount.fstype == "overlay" else ())]
        if any(path == entry or path.startswith(f"{entry}/") for path in paths for entry in taken):
            return mount.point
    return None


def _give_back(directory: Path) -> None:
    _remove([entry for entry in directory.iterdir() if _NAMES.fullmatch(entry.name)])
    (directory / MARK).unlink(missing_ok=True)


def _remove(entries: list[Path]) -> None:
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            tree.remove(entry)
        else:
            entry.unlink()
