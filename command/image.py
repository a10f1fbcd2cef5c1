# SPDX-License-Identifier: GPL-2.0-only
"""Images for the lazy run: Debian packages unpacked, got without root from the machine's own package sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from kernel import requirements
from kernel.debian import Apt
from kernel.errors import BuildError, SetupError
from kernel.paths import cache_dir, made, new_log
from kernel.process import run_logged
from kernel.progress import Progress

SMALL: Final = ("base-files", "coreutils", "dash")
LARGE: Final = (*SMALL, "bash", "ca-certificates", "ncurses-term", "perl-base", "python3", "tzdata")
"""What is asked for; all that these need comes along. The large one has some 5,600 files in 105 MB."""
_HINT: Final = "or name a tree of yours with --image=DIR"
_WANTED: Final = {SMALL: ("bin/true", "bin/sh"), LARGE: ("bin/true", "bin/sh", "usr/bin/python3")}


class Package(NamedTuple):
    """A package as apt would get it: its name, the name of its file, its size in bytes."""

    name: str
    file: str
    size: int


def fetch(packages: Sequence[str], progress: Progress | None = None) -> Path:
    """The directory of an image of these packages, one of SMALL and LARGE, from the cache or made now.

    Raises SetupError with what is missing.
    """
    if absent := requirements.missing(requirements.FETCH):
        names = ", ".join(need.name for need in absent)
        raise SetupError(f"missing to get an image from Debian: {names}; install them, {_HINT}")
    home = made(cache_dir() / "images")
    log = new_log("image")
    with tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as name:
        wanted = _resolve(packages, Path(name), log)
        image = home / hashlib.sha256("\n".join(package.file for package in wanted).encode()).hexdigest()[:16]
        with _locked(home):
            if not image.is_dir():
                _make(wanted, Path(name), log, progress or Progress(what="image")).rename(image)
    for path in _WANTED[tuple(packages)]:
        if not os.path.lexists(image / path):
            raise SetupError(f"the packages of this machine's sources make an image without {path}: {image}; {_HINT}")
    return image


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _resolve(packages: Sequence[str], work: Path, log: Path) -> list[Package]:
    """The packages and all that they need, as if nothing were installed, sorted by name."""
    try:
        return _ask(packages, work, log)
    except BuildError:
        if os.geteuid() == 0:  # whose package lists may never have been got
            Apt().run(log, "update", "-q")
            return _ask(packages, work, log)
        raise SetupError(
            f"this machine's package sources do not have all of {', '.join(packages)}; refresh the package lists with: "
            f"sudo apt-get update, {_HINT}; log: {log}"
        ) from None


def _ask(packages: Sequence[str], work: Path, log: Path) -> list[Package]:
    (work / "status").touch()
    made(work / "archives" / "partial")
    state = (f"Dir::State::Status={work}/status", f"Dir::Cache::Archives={work}/archives", "Debug::NoLocking=1")
    words = ("install", "-qq", "--print-uris", "-y", "--no-install-recommends", *packages)
    found = [re.match(r"'[^']*' (([^_]+)_\S+) (\d+)", line) for line in Apt(state).run(log, *words)]
    return sorted(Package(match[2], match[1], int(match[3])) for match in found if match)


def _make(wanted: Sequence[Package], work: Path, log: Path, progress: Progress) -> Path:
    """Get and unpack them; the directory."""
    size = sum(package.size for package in wanted)
    debs, tree = made(work / "debs"), made(work / "tree")
    with progress.phase(f"fetching {len(wanted)} Debian packages", size, "B", scale=True) as advance:
        Apt().download([package.name for package in wanted], debs, log, advance)
    files = sorted(debs.glob("*.deb"), key=lambda path: (not path.name.startswith("base-files_"), path.name))
    if len(files) != len(wanted):
        raise SetupError(f"apt-get downloaded {len(files)} of {len(wanted)} packages; log: {log}")
    with progress.phase(f"unpacking {len(wanted)} Debian packages", len(files)) as advance:
        for file in files:  # the base first: it says where the others' directories lead
            run_logged(["dpkg-deb", "-x", file, tree], log, f"unpacking {file.name}")
            advance(1)
    return tree
