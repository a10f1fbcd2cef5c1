# SPDX-License-Identifier: GPL-2.0-only
"""First-run set-up of our own virtual environment; standard library only."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from command.bootstrap import cache_directory, fail


def make(home: Path, wanted: Sequence[str]) -> None:
    """Make the environment `home` with the packages `wanted`, unless another run just did.

    It is complete when it holds the file `ready`. Exits with one line when it cannot be made.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with open(home.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "ready").exists():
                _make(home, wanted)
    except OSError as error:
        fail(f"cannot make {home}: {error.strerror}")
    except KeyboardInterrupt:
        fail("interrupted; what was begun is made anew at the next start", code=130)


def _make(home: Path, wanted: Sequence[str]) -> None:
    print(f"first run: making a Python environment in {home}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    log = cache_directory() / "logs" / "environment.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    venv = [sys.executable, "-m", "venv", "--clear", str(home)]
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *wanted]
    with open(log, "wb") as output:
        if not _runs(venv, output):
            _install_venv_module(output, log)
            if not _runs(venv, output):
                fail(f"cannot make a virtual environment: see {log}")
        if not _runs(pip, output):
            fail(f"cannot install {', '.join(wanted)}: see {log}")
    (home / "ready").touch()


def _runs(command: Sequence[str], output: IO[bytes]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    return done.returncode == 0


def _install_venv_module(output: IO[bytes], log: Path) -> None:
    """Debian splits venv off: install it as root, else name it."""
    package = f"python3.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        fail(f"Python's venv module is missing; install it with: sudo apt-get install {package} (log: {log})")
    print(f"first run: installing {package} (apt-get install)", flush=True)
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if not _runs(install, output):
        _runs(["apt-get", "update"], output)
        _runs(install, output)
