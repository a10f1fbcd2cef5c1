# SPDX-License-Identifier: GPL-2.0-only
"""One filesystem on which many unions have their lower layers, one after the other: for examples by the thousand.

To make a filesystem takes a program, to mount one that was shut down a hundredth of that. Each union gets an empty
directory; after its end the filesystem is mounted again, its log recovered, and the directory removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from datasets.tree import Directory, File, remove, write
from union import filesystems
from union.configuration import Configuration
from union.errors import SetupError
from union.filesystems import Layer
from union.layers import LOWER_NAME, SERVED, UPPER_NAME, Foundation, LayerStack, make_upper
from union.workspace import scratch_directory

CANARY: Final = Directory({"canary": File(b"lower")})
"""In the root of the filesystem, where no union looks: what the fence is tested with."""


class Arena:
    """An XFS of our own, another one for upper layers that ask for it, and the mount point of the unions.

    Undone with `stack`. Raises SetupError.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._upper: Layer | None = None
        self._scratch = scratch_directory(stack)
        self.mountpoint = self._scratch / "m"
        at = self._scratch / LOWER_NAME
        for path in (at, self.mountpoint):
            path.mkdir()
        made = filesystems.on_loop(stack, "xfs", at, self._scratch, LOWER_NAME)
        write(CANARY, at)
        self.lower = filesystems.mount_again(made, self._scratch)  # what a shutdown finds in the log alone is lost

    def lay(self, stack: ExitStack, configuration: Configuration, mountpoint: Path | None) -> Foundation:
        """Room for the next union; as `stack` is undone, the filesystem is made ready for the one after it."""
        return _Pitch(stack, configuration, self)

    def recover(self, used: Path) -> None:
        """Mount the filesystem again, shut down or not, and remove what a union had on it."""
        try:
            self.lower = filesystems.mount_again(self.lower, self._scratch)
            if used.exists():  # a shutdown loses what was not written yet
                remove(used)
        except OSError as error:
            raise SetupError(f"the lower filesystem cannot be used again: {error}") from error

    def upper(self) -> Layer:
        """The XFS for upper layers, made when it is needed first."""
        if self._upper is None:
            at = self._scratch / UPPER_NAME
            at.mkdir()
            self._upper = filesystems.on_loop(self._stack, "xfs", at, self._scratch, UPPER_NAME)
        return self._upper

    def recover_upper(self) -> None:
        """Mount it again as it is, shut down or not. Raises SetupError."""
        try:
            self._upper = filesystems.mount_again(self.upper(), self._scratch)
        except OSError as error:
            raise SetupError(f"the upper filesystem cannot be used again: {error}") from error

    def clear_upper(self) -> None:
        """Mount it again and remove what a union had on it."""
        self.recover_upper()
        for path in self.upper().root.iterdir():
            remove(path)

    @property
    def scratch(self) -> Path:
        """Where the upper layers go."""
        return self._scratch


class _Pitch(Foundation):
    """The part of an arena that one union gets: a directory on the lower filesystem, and one for the upper layers."""

    def __init__(self, stack: ExitStack, configuration: Configuration, arena: Arena) -> None:
        self._stack = stack
        self._configuration = configuration
        self._arena = arena
        above = arena.scratch / "above"
        above.mkdir(exist_ok=True)
        if not configuration.plain:
            stack.callback(arena.recover, arena.lower.root / "now")
        if configuration.upper_fs == "xfs":
            self.upper = arena.upper()
            stack.callback(arena.clear_upper)
        else:
            self.upper = filesystems.make(stack, configuration.upper_fs, above, arena.scratch, "in-memory")
        # Without a union there is no lower; XFS has an errno of its own for a rename onto a directory with entries.
        self.lower = self.upper if configuration.plain else arena.lower
        self._at = self.lower.root / "now"
        self._at.mkdir()

    def _serve(self) -> Path:
        """Where a daemon serves all of the lower filesystem, with its canary: from now on the lower."""
        from union.lowerfuse import LowerFuse  # with all that a daemon needs; few examples have one

        at = self._arena.scratch / "served"
        at.mkdir(exist_ok=True)
        self.lower = LowerFuse(self._stack, self._arena.lower.root, at, LOWER_NAME).layer
        return at

    def uppers(self) -> tuple[Path, ...]:
        """See `Foundation.uppers`."""
        return (self.upper.root,)

    def fill(self, trees: Sequence[Directory], upper: Directory | None = None) -> LayerStack:
        """See `Foundation.fill`."""
        try:
            write(Directory({str(n): tree for n, tree in enumerate(trees)}), self._at)
            at = self._at
            if self._configuration.lower_fs == SERVED:
                at = self._serve() / at.name
            lowerdirs = tuple(at / str(n) for n in range(len(trees)))
            root, arena = self.upper.root, self._arena
            made = LayerStack(
                lower=self.lower,
                home=self.upper,
                upper=self.upper,
                lowerdirs=lowerdirs,
                upperdir=root,
                workdir=root,
                mountpoint=arena.mountpoint,
                scratch=arena.scratch,
            )
            return make_upper(self._stack, made, 0, replace(self._configuration, rotations=None), upper)
        except OSError as error:
            raise SetupError(f"cannot build the layers: {error}") from error
