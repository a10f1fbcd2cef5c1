# SPDX-License-Identifier: GPL-2.0-only
"""What runs a QEMU guest's CPU: the host's own by KVM, or an emulation (TCG), which is slow but needs nothing.

Whether KVM works is found out by doing: a device that can be opened, and even one that makes virtual machines, may
still not run a kernel, on a virtual machine for example. So QEMU is asked to start an empty machine with it, and a
guest that does not come up as KVM gives up is started once more without.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernel.requirements import find_program

DEVICE = Path("/dev/kvm")
_LIMIT = 10.0  # seconds for an empty machine to start and end
_FAILURE = re.compile(r"KVM internal error|KVM: entry failed|emulation failure|kvm_\w+: |[Ff]ailed to set MSR")


@dataclass(frozen=True)
class Accelerator:
    """How QEMU runs the CPU: its `options`, and what limits are multiplied with, as it is that much slower."""

    name: str
    options: tuple[str, ...]
    scale: float


KVM = Accelerator("KVM", ("-accel", "kvm", "-cpu", "host"), 1)
TCG = Accelerator("TCG", ("-accel", "tcg", "-cpu", "max"), 10)


def accelerators(say: Callable[[str], object]) -> tuple[Accelerator, ...]:
    """What a guest is to be started with, one after the other; `say` is told if it is the emulation alone."""
    reason = unusable()
    if reason is None:
        return (KVM, TCG)
    say(f"guest: no KVM ({reason}), so its CPU is emulated (TCG); limits are {TCG.scale:.0f} times as long")
    return (TCG,)


def unusable(device: Path = DEVICE, qemu: str = "qemu-system-x86_64") -> str | None:
    """Why QEMU cannot start a machine with KVM, in a few words; None if it can."""
    try:
        device.open("r+b", buffering=0).close()
    except OSError as error:
        return f"{device}: {error.strerror}"
    machine = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-monitor", "stdio", *KVM.options]
    try:
        done = subprocess.run(
            [find_program(qemu) or qemu, *machine],
            input="quit\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "an empty machine hangs"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[0].removeprefix("qemu-system-x86_64: ") if lines else f"an empty machine ends with {done.returncode}"


def gave_up(console_tail: str) -> bool:
    """Whether the last lines of a guest's console, which has what QEMU says too, tell that KVM could not run it."""
    return bool(_FAILURE.search(console_tail))
