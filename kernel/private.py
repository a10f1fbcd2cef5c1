# SPDX-License-Identifier: GPL-2.0-only
"""What a guest boots from on the host: a private directory with an interpreter, process 1, and its orders."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import py_compile
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.errors import SetupError
from kernel.paths import guests_dir, made, new_log

COVERED = ("/tmp", "/run", "/var/tmp", "/dev/shm")
"""Directories of the guest that are fresh, empty and writable."""

_HERE = Path(__file__).resolve().parent


def orders(
    argv: Sequence[str], cwd: Path | str, env: Mapping[str, str] | None, visible: Sequence[Path]
) -> dict[str, Any]:
    """The part of process 1's orders (see `init.py`) that is the same for every kind of guest."""
    seen = [os.fsencode(path) for path in kept([*visible, Path(cwd), *interpreter()])]
    return {
        "argv": [os.fsencode(word) for word in argv],
        "cwd": os.fsencode(cwd),
        "env": {os.fsencode(k): os.fsencode(v) for k, v in (os.environ if env is None else env).items()},
        # A directory that must stay visible itself cannot be covered.
        "covered": [name for name in map(os.fsencode, COVERED) if name not in seen],
        "visible": seen,
    }


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


def write_boot_files(private: Path, spec: dict[str, Any]) -> None:
    """What the guest reads from its private directory: the interpreter, the program of process 1, its orders."""
    try:
        private.joinpath("python").symlink_to(_base_interpreter())
        # Compiled here, as compiling in the guest costs more than anything else process 1 does.
        py_compile.compile(str(_HERE / "init.py"), cfile=str(private / "init.pyc"), doraise=True)
        private.joinpath("spec").write_bytes(marshal.dumps(spec))
    except OSError as error:
        raise SetupError(f"cannot write to {private}: {error.strerror}") from error


def console_log(log_dir: Path | None, name: str) -> Path:
    if log_dir is None:
        return new_log(f"console-{name}")
    return made(Path(log_dir)) / f"console-{name}.log"


def interpreter() -> list[Path]:
    """Directories without which Python, or this package, does not run in the guest."""
    names = [sys.prefix, sys.base_prefix, os.path.dirname(_base_interpreter()), str(_HERE.parent)]
    return [Path(name) for name in names]


def _base_interpreter() -> str:
    """The interpreter proper: one of a virtual environment is of no use under another name."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def kept(paths: Sequence[Path]) -> list[str]:
    """Those of `paths`, also with symlinks resolved, that a fresh directory would hide; outermost only."""
    names = {os.path.abspath(path) for path in paths} | {os.path.realpath(path) for path in paths}
    hidden = sorted(name for name in names if any(_below(name, top) for top in COVERED) and os.path.isdir(name))
    # The working directory may be a covered one itself: the command then gets the fresh one.
    hidden = [name for name in hidden if name not in COVERED or name == str(_HERE.parent)]
    return [name for name in hidden if not any(_below(name, other) for other in hidden if other != name)]


def _below(name: str, top: str) -> bool:
    return name == top or name.startswith(top + "/")
