# SPDX-License-Identifier: GPL-2.0-only
"""Where this package keeps things on the host: the cache, the logs, the guests' private directories."""

import os
import re
import tempfile
import time
from pathlib import Path

from kernel.errors import SetupError

# What the kernel's command line parser and UML's own argument handling take without quoting.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@,-]+")

_LOGS_KEPT = 60


def cache_dir() -> Path:
    """The user's cache directory for this project: `$XDG_CACHE_HOME` or `~/.cache`, then `ovl-detach`.

    Not created here. A relative `XDG_CACHE_HOME` is ignored, as the XDG specification says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base, "ovl-detach")


def new_log(stem: str) -> Path:
    """The name for a new log file in the cache, with the time in it; the oldest logs of many are forgotten."""
    directory = made(cache_dir() / "logs")
    logs = sorted(directory.glob("*.log"), key=_age)
    for old in logs[_LOGS_KEPT:]:
        old.unlink(missing_ok=True)
    return directory / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.log"


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except FileNotFoundError:  # another run was tidying up too
        return 0


def made(path: Path) -> Path:
    """`path`, created with its parents when missing; raises `SetupError` when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cannot create {path}: {error.strerror}") from error
    return path


def plain_dir() -> Path:
    """A directory of ours whose path has no blank, colon or quote in it, created when missing.

    It is the cache directory. Neither the kernel's build nor its command line takes such characters, so when the
    cache's path has one it is a directory in the temporary directory, refused when somebody else made it.
    """
    path = made(cache_dir()).resolve()
    if _PLAIN.fullmatch(str(path)):
        return path
    for parent in (tempfile.gettempdir(), "/var/tmp"):
        path = Path(parent).resolve() / f"ovl-detach-{os.geteuid()}"
        if _PLAIN.fullmatch(str(path)):
            break
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        state = path.lstat()
    except OSError as error:
        raise SetupError(f"cannot create {path}: {error.strerror}") from error
    if state.st_uid != os.geteuid() or path.is_symlink():
        raise SetupError(f"{path} belongs to somebody else; remove it or set XDG_CACHE_HOME")
    return path


def guests_dir() -> Path:
    """The directory below which every guest has its private one, created when missing."""
    return made(plain_dir() / "guests")


def trees_dir() -> Path:
    """The directory of the source trees that kernels are built in, created when missing."""
    return made(plain_dir() / "trees")
