# SPDX-License-Identifier: GPL-2.0-only
"""Remounting in the middle of a group, with the upper layer rotated down (`=N`, parity 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from union import syscalls
from union.configuration import Configuration
from union.judge import DeviceRule, Judge
from union.layers import rotate
from union.operations import Operation
from union.overlay import Overlay

Rule = Callable[[Overlay], DeviceRule]


class Cycler:
    """Takes the union down and brings it back, on a new upper layer as long as rotations are left."""

    def __init__(
        self, stack: ExitStack, configuration: Configuration, overlay: Overlay, judge: Judge, devices: Rule
    ) -> None:
        """New upper layers go on `stack`; `devices` tells the rule that holds after a mount."""
        self._stack = stack
        self._configuration = configuration
        self._overlay = overlay
        self._judge = judge
        self.devices = devices
        self.rotations = 0
        self.remounts = 0

    def after(self, operation: Operation) -> list[str]:
        """Remount after a successful `operation` if it asks for that; complaints about the names it touched."""
        if not (operation.remounts and operation.cycle):
            return []
        self.remount(rotating=operation.rotates)
        return self._judge.names(operation.names())

    def remount(self, *, rotating: bool = True) -> None:
        """Unmount, drop caches, mount again. Raises SetupError, or MountRefused with the kernel's reason."""
        overlay, judge = self._overlay, self._judge
        rotating = rotating and self.rotations < (self._configuration.rotations or 0)
        overlay.unmount()
        on_disk = any(layer.fstype != "tmpfs" for layer in overlay.stack.filesystems)
        if on_disk or self._configuration.nested:  # a tmpfs has nothing to forget, a lower overlay on it has names
            syscalls.drop_caches(pages=on_disk)
        if rotating:
            overlay.stack = rotate(self._stack, overlay.stack, self._configuration)
            judge.model.rotated()
            self.rotations += 1
        overlay.mount()
        self.remounts += 1
        judge.remounted(self.devices(overlay), str(overlay.stack.upperdir), rotated=rotating)
