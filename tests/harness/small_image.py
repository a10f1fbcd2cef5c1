# SPDX-License-Identifier: GPL-2.0-only
"""A tree that a lazy run can load: some files, and the few programs that its workload runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from random import Random

PROGRAMS = {"true": "bin/true", "sh": "bin/sh", "sha256sum": "bin/sha256sum"}


def files(tree: Path, count: int) -> Path:
    """Write `count` files of all sizes below the new directory `tree`, three levels deep, and some symlinks."""
    dice = Random(1)
    for number in range(count):
        directory = tree / "srv" / f"d{number % 7}" / f"e{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(dice.randbytes(dice.choice((0, 10, 3000, 20000))))
        if number % 10 == 0:
            (directory / f"l{number}").symlink_to(f"f{number}")
    return tree


def with_programs(tree: Path, count: int) -> Path:
    """The same, and programs with their libraries."""
    files(tree, count)
    for name, path in PROGRAMS.items():
        program = shutil.which(name)
        assert program
        _copy(Path(program), tree / path)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(?<=\s)(/\S+)", listed):
            _copy(Path(library), tree / library.lstrip("/"))
    return tree


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
