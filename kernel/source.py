# SPDX-License-Identifier: GPL-2.0-only
"""Where the kernel's source comes from: Debian's source package, a tarball, or a directory of the user's.

    source = given(path)  or  local(series)  or  kernel.debian.fetch(series, …)
    source.identity               what it is, for the hash of a build's inputs
    source.unpack(directory, …)   a private copy of what a UML build needs of it

Nothing of the user's is ever written to.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import BuildError, SetupError, UsageError
from kernel.paths import cache_dir
from kernel.process import clean_env, run_logged

# Two thirds of a tree, none of which an ARCH=um build reads. Kconfig and Makefiles stay: they are read whatever
# the configuration is. Documentation/filesystems stays, as patches touch it.
_OTHER_ARCH = (
    *("alpha", "arc", "arm", "arm64", "csky", "hexagon", "loongarch", "m68k", "microblaze", "mips", "nios2"),
    *("openrisc", "parisc", "powerpc", "riscv", "s390", "sh", "sparc", "xtensa"),
)
_DRIVERS = (
    *("accel", "clk", "crypto", "gpu", "iio", "infiniband", "media", "net/*", "pinctrl", "scsi", "staging"),
    *("usb", "video"),
)
_NOT_NEEDED = [
    *(f"*/arch/{name}/*.{kind}" for name in _OTHER_ARCH for kind in ("[chS]", "dts*")),
    *(f"*/drivers/{name}/*.[ch]" for name in _DRIVERS),
    "*/sound/*.[ch]",
    "*/Documentation/[a-eg-z]*",
]
# What an earlier build left in a directory of the user's.
_BUILT = [
    "./.git",
    "*.o",
    "*.a",
    "*.ko",
    ".*.cmd",
    "./.config",
    "./vmlinux*",
    "./linux",
    "./include/config",
    "./include/generated",
    "./arch/*/include/generated",
]


@dataclass(frozen=True)
class Source:
    """A kernel's source: a tarball or a directory at `path`, and `identity`, which changes when the source does."""

    path: Path
    identity: str

    def unpack(self, directory: Path, log: Path) -> None:
        """Put a clean copy of the parts that a UML build needs in `directory`, which exists and is empty.

        Raises `SetupError` when what comes out is not a kernel's source, `BuildError` when unpacking fails.
        """
        if self.path.is_dir():
            self._copy_directory(directory, log)
        else:
            options = ["--strip-components=1", *_excludes(_NOT_NEEDED)]
            run_logged(["tar", "-C", directory, *options, "-xf", self.path], log, f"unpacking {self.path}")
        release(directory, self.path)

    def _copy_directory(self, directory: Path, log: Path) -> None:
        excludes = _excludes([*_NOT_NEEDED, *_BUILT])
        with log.open("ab") as errors:
            pack = subprocess.Popen(
                ["tar", "-C", self.path, *excludes, "-cf", "-", "."],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_env(),
                start_new_session=True,
            )
        with pack:
            try:
                run_logged(["tar", "-C", directory, "-xf", "-"], log, f"copying {self.path}", stdin=pack.stdout)
            except BaseException:
                pack.kill()
                raise
        if pack.returncode:
            raise BuildError(f"copying {self.path} failed: it cannot be read as a whole", log)


def release(tree: Path, name: Path | None = None) -> tuple[str, str]:
    """Series and version (`6.12`, `6.12.117`) of the source in `tree`; `SetupError` when it is none."""
    try:
        makefile = (tree / "Makefile").read_text(errors="replace")
        found = {key: re.search(rf"^{key} *= *(\d*)$", makefile, re.M) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")}
        numbers = [match[1] for match in found.values() if match]
    except OSError:
        numbers = []
    if len(numbers) != 3 or not (tree / "arch/um").is_dir():
        raise SetupError(f"{name or tree} is not a Linux source tree")
    return ".".join(numbers[:2]), ".".join(numbers)


def given(path: Path) -> Source:
    """The source that the user named, a directory or a tarball; `UsageError` when it is neither."""
    path = path.absolute()
    try:
        if path.is_dir():
            release(path)
            return Source(path, f"directory {_fingerprint(path)}")
        with path.open("rb") as file:
            return Source(path, f"tarball {hashlib.file_digest(file, 'sha256').hexdigest()}")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except SetupError as error:
        raise UsageError(str(error)) from error


def local(series: str) -> Source | None:
    """Debian's source of `series` if this machine has it: installed, or fetched by an earlier run (the newest)."""
    installed = Path(f"/usr/src/linux-source-{series}.tar.xz")
    if installed.is_file() and os.access(installed, os.R_OK):
        state = installed.stat()
        return Source(installed, f"installed {state.st_size} {state.st_mtime_ns}")
    fetched = list(sources_dir().glob(f"linux-source-{series}_*.tar.xz"))
    if not fetched:
        return None
    newest = max(fetched, key=lambda path: path.stat().st_mtime)
    return Source(newest, f"debian {newest.name}")


def sources_dir() -> Path:
    """Where fetched tarballs are kept; may not exist yet."""
    return cache_dir() / "sources"


def _excludes(patterns: list[str]) -> list[str]:
    return ["--wildcards", "--wildcards-match-slash", *(f"--exclude={pattern}" for pattern in patterns)]


def _fingerprint(tree: Path) -> str:
    """A digest of the name, size and time of every file that can matter to a build."""
    skip = {f"{tree}/arch/{name}" for name in _OTHER_ARCH}
    digest = hashlib.sha256()
    for name, size, mtime in sorted(_files(str(tree), skip)):
        digest.update(f"{name[len(str(tree)) :]}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(directory: str, skip: set[str]) -> Iterator[tuple[str, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git" and entry.path not in skip:
                    yield from _files(entry.path, skip)
            elif not entry.name.endswith((".o", ".cmd", ".a", ".ko")):
                state = entry.stat(follow_symlinks=False)
                yield entry.path, state.st_size, state.st_mtime_ns
