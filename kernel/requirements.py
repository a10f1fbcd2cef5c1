# SPDX-License-Identifier: GPL-2.0-only
"""Programs of the system that we need: which are missing, and how they get there."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import BuildError, SetupError
from kernel.process import clean_env, run_logged


@dataclass(frozen=True)
class Requirement:
    """Something that `name` names for the user and Debian's `package` brings; `present` looks whether it is there."""

    name: str
    package: str
    present: Callable[[], bool]


def compiler(package: str) -> Requirement:
    """The compiler of Debian's `package`, like gcc-12, by the name that a kernel's headers call it."""
    return _program(f"x86_64-linux-gnu-{package}", package)


def find_program(name: str) -> str | None:
    """The path of program `name`, also where only an administrator's PATH looks (`/usr/sbin`)."""
    return shutil.which(name, path=clean_env()["PATH"])


def _program(name: str, package: str | None = None) -> Requirement:
    return Requirement(name, package or name, lambda: find_program(name) is not None)


def _has_libc_headers() -> bool:
    """Whether the compiler finds the C library's headers, which Debian's gcc does not bring along."""
    compiler = find_program("gcc")
    if compiler is None:
        return True  # gcc itself is what is missing; its package list has libc6-dev too
    done = subprocess.run(
        [compiler, "-E", "-x", "c", "-"], input=b"#include <sys/ptrace.h>\n", capture_output=True, check=False
    )
    return done.returncode == 0


BUILD = (
    _program("gcc", "gcc libc6-dev"),
    Requirement("C library headers", "libc6-dev", _has_libc_headers),
    _program("make"),
    _program("flex"),
    _program("bison"),
    _program("bc"),
    _program("patch"),
    _program("tar"),
    _program("xz", "xz-utils"),
)
"""For building a User-mode Linux kernel from its source."""

FETCH = (_program("apt-get", "apt"), _program("dpkg-deb", "dpkg"))
"""For getting the source from Debian."""

RUN = (_program("mkfs.xfs", "xfsprogs"), _program("xfs_io", "xfsprogs"))
"""For a detach run."""


_DAEMONS = ("/usr/libexec/virtiofsd", "/usr/lib/virtiofsd/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd")


def find_virtiofsd() -> str | None:
    """The path of the virtiofs daemon, which no distribution has in PATH."""
    return find_program("virtiofsd") or next((path for path in _DAEMONS if os.access(path, os.X_OK)), None)


MODULE = (
    _program("make"),
    _program("patch"),
    _program("tar"),
    _program("xz", "xz-utils"),
    _program("depmod", "kmod"),
)
"""For building a module for a distribution's kernel, but for its compiler."""


def virtiofsd_package() -> str:
    """The package with the virtiofs daemon: in Debian 12 it is part of QEMU, later releases have one of its own."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return "qemu-system-common" if release.get("VERSION_ID") == "12" else "virtiofsd"


QEMU = (
    _program("qemu-system-x86_64", "qemu-system-x86"),
    Requirement("virtiofsd", virtiofsd_package(), lambda: find_virtiofsd() is not None),
    _program("modprobe", "kmod"),
)
"""For a guest of QEMU."""


def missing(needs: Iterable[Requirement]) -> list[Requirement]:
    """Those of `needs` that are not there, in order."""
    return [need for need in needs if not need.present()]


def packages(needs: Iterable[Requirement]) -> list[str]:
    """The Debian packages that bring `needs`, each once."""
    return list(dict.fromkeys(name for need in needs for name in need.package.split()))


def ensure(needs: Iterable[Requirement], log: Path, say: Callable[[str], object] = print) -> None:
    """See to it that all of `needs` are there.

    As root on Debian they are installed, after `say` was told so, with the output in `log`. Otherwise, or when that
    does not help, `SetupError` names what is missing and the command that brings it.
    """
    absent = missing(needs)
    if not absent:
        return
    if os.geteuid() == 0 and find_program("apt-get"):
        say(f"installing {' '.join(packages(absent))} (apt-get install)")
        _install(packages(absent), log)
        absent = missing(absent)
    if absent:
        raise SetupError(lacking(absent))


def lacking(absent: list[Requirement]) -> str:
    """One line for the user: what is missing, and the command that installs it."""
    names = ", ".join(need.name for need in absent)
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"missing: {names}; install them with: {sudo}apt-get install {' '.join(packages(absent))}"


def _install(names: list[str], log: Path) -> None:
    """Install the packages, with fresh package lists if the present ones do not have them."""
    env = clean_env(DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]
    try:
        run_logged(install, log, "apt-get install", env=env)
    except BuildError:
        with contextlib.suppress(BuildError):  # one dead mirror of several is no reason to give up
            run_logged(["apt-get", "update", "-q"], log, "apt-get update", env=env)
        run_logged(install, log, "apt-get install", env=env)
