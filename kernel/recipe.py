# SPDX-License-Identifier: GPL-2.0-only
"""What goes into a kernel: its name, the patches, the configuration; and the hash over all that and more."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kernel.errors import UsageError
from kernel.requirements import find_program

VERSION = 3
"""To be raised when this package builds something else out of the same inputs."""

NATIVE = "native"
"""What the running kernel is called where a kernel can be chosen; none that is built is."""

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Recipe:
    """How to make the kernel `name` of `series`.

    `fixes` make the series run as a guest at all, in all flavours; `patches` are what the suite is about and are
    missing in a stock kernel. Both are applied in order, fixes first. `config` are the Kconfig fragments: the common
    one, then what only this series has, then what the flavour wants.
    """

    name: str
    series: str
    fixes: tuple[Path, ...]
    patches: tuple[Path, ...]
    config: tuple[Path, ...]

    @property
    def suffix(self) -> str:
        """What is put behind the kernel's release, so that `uname -r` tells a patched kernel from a stock one."""
        return "-nofollow" if self.patches else ""

    def fragment(self) -> str:
        """All of the configuration that is asked for, as one Kconfig fragment; a later line takes precedence."""
        return "".join(path.read_text() for path in self.config)

    def tree_key(self, source: str, compiler: str) -> str:
        """Hash of what kernels built in one tree share: all inputs but the patches."""
        parts = [f"recipe {VERSION}", f"source {source}", f"compiler {compiler}", _content(self.config)]
        return _digest([*parts, _content(self.fixes)])

    def key(self, source: str, compiler: str) -> str:
        """Hash of everything that decides what comes out."""
        return _digest([self.tree_key(source, compiler), _content(self.patches)])


def series(root: Path = _HERE) -> list[str]:
    """The kernel series there are reference patches for."""
    return sorted(path.name for path in (root / "patches").iterdir() if path.is_dir())


def series_patches(one: str, root: Path = _HERE) -> tuple[Path, ...]:
    """The reference patches for series `one`, in order."""
    return _patches(root / "patches" / one)


def stock(one: str) -> str:
    """The kernel of series `one` without the patches."""
    return f"stock-{one}"


def names(root: Path = _HERE) -> list[str]:
    """The kernels that can be built: per series the patched one, the stock one, and the flavours there are of it."""
    flavours = sorted(path.name for path in (root / "flavours").glob("*") if path.is_dir())
    return [
        name
        for one in series(root)
        for name in (one, stock(one), *(flavour for flavour in flavours if flavour.endswith(f"-{one}")))
    ]


def recipe(name: str, root: Path = _HERE) -> Recipe:
    """The recipe of kernel `name`, like `6.12` or `stock-6.12`; `UsageError` when there is none.

    `root` is the directory with `patches/SERIES/`, `fixes/SERIES/` (patches, and a `uml.config` for options that only
    this series has), `flavours/FLAVOUR-SERIES/` (the same) and `uml.config`.
    """
    if name not in names(root):
        raise UsageError(f"unknown kernel {name!r}; known: {', '.join(names(root))}")
    one = name.rpartition("-")[2]
    patches = () if name == stock(one) else series_patches(one, root)
    extra = root / "flavours" / name
    fragments = _existing(root / "uml.config", root / "fixes" / one / "uml.config", extra / "uml.config")
    return Recipe(name, one, _patches(root / "fixes" / one), (*patches, *_patches(extra)), fragments)


def with_patch(name: str, patch: Path, root: Path = _HERE) -> Recipe:
    """The recipe of kernel `name` with one `patch` more, applied last; it is built in the same tree.

    Raises `UsageError` when there is no such kernel or file.
    """
    if not patch.is_file():
        raise UsageError(f"{patch}: no such patch")
    base = recipe(name, root)
    return replace(base, name=f"{name}+{patch.stem}", patches=(*base.patches, patch))


def compiler() -> str:
    """The compiler's own description, `none` without one; another compiler builds another kernel."""
    program = find_program("gcc")
    if program is None:
        return "none"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _patches(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(directory.glob("*.patch")))


def _existing(first: Path, *others: Path) -> tuple[Path, ...]:
    return (first, *(path for path in others if path.exists()))


def _content(files: Iterable[Path]) -> str:
    return "".join(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
