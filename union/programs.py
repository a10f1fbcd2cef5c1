# SPDX-License-Identifier: GPL-2.0-only
"""Running the few programs that the suite needs as programs: chown, find, mkfs.xfs, xfs_io."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from union.errors import SetupError

_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin"  # often missing from an ordinary PATH


def find_program(name: str, package: str) -> str:
    """The path of a system program, /usr/sbin and /sbin included; SetupError names what to install."""
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if path is None:
        raise SetupError(f"{name} is not installed (Debian package {package})")
    return path


def complaints(name: str, package: str, arguments: Sequence[str], *, keep_fds: Sequence[int] = ()) -> list[str]:
    """Run a program to its end in the C locale; the lines on its stderr, at least one if it failed.

    `keep_fds` are passed on to it. Raises SetupError if it is not installed.
    """
    done = _run(name, package, arguments, keep_fds)
    lines = done.stderr.splitlines()
    return lines or ([f"exit status {done.returncode}"] if done.returncode else [])


def run_quietly(
    name: str, package: str, arguments: Sequence[str], shown: str, keep_fds: Sequence[int] = (), *, talks: bool = False
) -> None:
    """Run a program that says nothing when all is well; SetupError with its first words otherwise.

    `shown` is the command as the user should see it. Words on either stream count even with exit status
    0, which xfs_io gives after some failures, unless it is a program that `talks`.
    """
    done = _run(name, package, arguments, keep_fds)
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    if done.returncode or (said and not talks):
        raise SetupError(f"{shown}: {said[0] if said else f'exit status {done.returncode}'}")


def _run(
    name: str, package: str, arguments: Sequence[str], keep_fds: Sequence[int]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_program(name, package), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        env={**os.environ, "LC_ALL": "C"},  # what they say is read
        pass_fds=keep_fds,
    )
