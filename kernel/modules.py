# SPDX-License-Identifier: GPL-2.0-only
"""The modules of a guest's kernel: where they are on the host, and how they are loaded in the guest.

The guest sees the host's root, so the files are there; but not always where modprobe looks. It is called by way of a
program of ours that says where, by process 1 and by the kernel itself, which wants a module when something is mounted.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from kernel.requirements import find_program

FIRST = ("virtio_console", "overlay", "loop", "xfs", "erofs", "squashfs")
"""Loaded before a command runs: loading later would change the taint flags and add lines to the log."""


@dataclass(frozen=True)
class Modules:
    """The modules of the kernel `release` in `root`/lib/modules/`release`, as depmod left them."""

    root: Path
    release: str

    @classmethod
    def of(cls, kernel: Path, release: str) -> Modules | None:
        """Those in the tree whose `boot` directory has `kernel`, else those that are installed; None without any."""
        for root in (kernel.resolve().parent.parent, Path("/")):
            if (root / "lib/modules" / release / "modules.dep").is_file():
                return cls(root, release)
        return None

    def write_program(self, directory: Path) -> str:
        """Write the program into `directory`; returns its path. With `--first` alone it loads what is loaded first."""
        modprobe = shlex.join([find_program("modprobe") or "modprobe", "-d", str(self.root)])
        path = directory / "modprobe"
        # What the kernel does not have as a module is not there to be loaded: the run finds out what it lacks.
        path.write_text(
            f'#!/bin/sh\n[ "$1" = --first ] || exec {modprobe} "$@"\n{modprobe} -a {" ".join(FIRST)}\nexit 0\n'
        )
        path.chmod(0o755)
        return str(path)
