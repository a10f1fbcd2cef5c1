# SPDX-License-Identifier: GPL-2.0-only
"""From what `--kernel` says to a guest: a name of a kernel that can be had here, or the path of one."""

from __future__ import annotations

from pathlib import Path

from kernel import bzimage, distribution, recipe
from kernel.build import build
from kernel.errors import UsageError
from kernel.guest import Guest
from kernel.qemu import QemuGuest
from kernel.uml import UmlGuest


def names() -> list[str]:
    """The names of all kernels that can be had: those built for User-mode Linux, then those of distributions."""
    return [*recipe.names(), *distribution.names()]


def kernel_file(which: str, source: Path | None = None) -> Path:
    """The kernel called `which`, from the cache or made now (see the two `build`), or the path that it is.

    Raises `UsageError` when it is neither.
    """
    if which in distribution.names():
        return distribution.build(which).image
    if which in recipe.names():
        return build(which, source).path
    if not Path(which).exists():
        known = "" if "/" in which else f"; known by name: {', '.join(names())}"
        raise UsageError(f"{which}: no such kernel{known}")
    return Path(which)


def guest_of(
    kernel: Path, log_dir: Path | None = None, *, cpus: int | None = None, spread: bool = False, memory: str = "1G"
) -> Guest:
    """A guest of the kernel in the file `kernel`, with so much memory: of QEMU if that is a bzImage, else of UML.

    Its `cpus` take turns on one of the host's, unless they are `spread`; those of QEMU always are. Raises `UsageError`
    when it is neither, `SetupError` when this machine lacks something.
    """
    if bzimage.is_bzimage(kernel):
        return QemuGuest(kernel, memory, log_dir, cpus=cpus)
    return UmlGuest(kernel, memory, log_dir, cpus=cpus, spread=spread)
