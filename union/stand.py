# SPDX-License-Identifier: GPL-2.0-only
"""A stand for trials: layers by name, overlays of them mounted as a trial asks, and what must hold of them.

A trial is about mounting itself, or about layers that no union of a run has, so it mounts overlays of its own. All
it makes is undone at its end.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from datasets.tree import Directory, write
from union import filesystems, mountinfo, syscalls
from union.errors import SetupError, Unsupported
from union.filesystems import Layer, tmpfs
from union.lowerfuse import LowerFuse
from union.programs import run_quietly

OVERLAY: Final = "overlay"


class Missing(Exception):
    """What the trial needs is not there: it is skipped with these words."""


class Stand:
    """Where one trial works: `root` is a tmpfs of its own, `complaints` what did not hold so far."""

    def __init__(self, stack: ExitStack, root: Path) -> None:
        """Mounts the tmpfs on the directory `root`; undone with the stack. Raises SetupError."""
        self.root = root
        self.complaints: list[str] = []
        self.warnings: list[str] = []  # what the kernel must log
        self.steps: list[str] = []  # what was done, for the transcript
        self._stack = stack
        self._home = tmpfs(stack, root, "trial")
        self._mounted: dict[Path, ExitStack] = {}

    # layers

    def layers(self, **trees: Directory) -> None:
        """A directory per keyword on the stand's own tmpfs, with this content."""
        for name, tree in trees.items():
            path = self.root / name
            path.mkdir()
            write(tree, path)

    def filesystem(
        self,
        name: str,
        fstype: str = "tmpfs",
        tree: Directory | None = None,
        features: Sequence[str] = (),
        options: str = "",
    ) -> Layer:
        """A filesystem of its own on the directory `name`, made new, with this content.

        Raises Missing if the kernel does not have it, SetupError if it cannot be made. `features` are more arguments
        of its mkfs, `options` more mount options.
        """
        if not syscalls.knows_filesystem(fstype):
            raise Missing(f"this kernel has no {fstype}")
        path = self.root / name
        path.mkdir()
        made = filesystems.make(self._stack, fstype, path, self.root, name, features, options)
        write(tree or Directory(), path)
        return made

    def served(self, name: str, tree: Directory, *, passthrough: bool = False) -> LowerFuse:
        """This content on the directory `name`, served by a FUSE daemon of ours.

        Raises Missing if the kernel cannot, SetupError if it cannot be made.
        """
        if not syscalls.knows_filesystem("fuse"):
            raise Missing("this kernel has no fuse")
        real = f"{name}.tree"
        self.layers(**{real: tree})
        path = self.root / name
        path.mkdir()
        try:
            return LowerFuse(self._stack, self.root / real, path, name, passthrough=passthrough)
        except Unsupported as error:
            raise Missing(str(error)) from error

    def path(self, name: str) -> str:
        """The absolute path of a name below the stand."""
        return f"{self.root}/{name}"

    def opened(self, name: str, flags: int) -> int:
        """A descriptor of what is below the stand, open until the trial is over. Raises OSError."""
        fd = os.open(self.path(name), flags)
        self.undo(lambda: os.close(fd))
        return fd

    def undo(self, call: Callable[[], object]) -> None:
        """Called when the trial is over, the last one first."""
        self._stack.callback(call)

    # mounting

    def spell(self, options: str) -> str:
        """Mount options with `{name}` in them: each becomes the path of that layer."""
        return re.sub(r"\{([^{}]+)\}", lambda found: self.path(found[1]), options)

    def mount(self, options: str, at: str = "m", flags: int = 0) -> str:
        """Mount an overlay by mount(2) on the directory `at`, made if it is missing; its path. Raises OSError."""
        point = self.root / at
        point.mkdir(exist_ok=True)
        self._say(f"mount -t overlay{' -r' if flags & syscalls.MS_RDONLY else ''} -o {self.spell(options)} {at}")
        syscalls.mount(OVERLAY, point, OVERLAY, flags, self.spell(options))
        self._taken_down_at_the_end(point)
        return str(point)

    def configure(self, *pairs: tuple[str, str | int], at: str = "m", says: list[str] | None = None) -> str:
        """Mount an overlay by fsopen(2), option by option; a number is a descriptor. Its path; raises OSError.

        What the kernel says is added to `says`.
        """
        point = self.root / at
        point.mkdir(exist_ok=True)
        spelled = [(key, self.spell(value) if isinstance(value, str) else value) for key, value in pairs]
        self._say(f"fsopen overlay: {' '.join(f'{key}={value}' for key, value in spelled)} on {at}")
        with syscalls.FsContext(OVERLAY) as context:
            try:
                for key, value in spelled:
                    context.set(key, value)
                return self.attach(context, at)
            finally:
                if says is not None:
                    says.extend(context.messages())

    def attach(self, context: syscalls.FsContext, at: str = "m") -> str:
        """Mount what the context is configured to; its path. Raises OSError."""
        point = self.root / at
        point.mkdir(exist_ok=True)
        context.create()
        context.mount(point)
        self._taken_down_at_the_end(point)
        return str(point)

    def remount(self, options: str, at: str = "m", flags: int = 0) -> None:
        """mount(2) with MS_REMOUNT: the options of the filesystem change. Raises OSError."""
        self._say(f"mount -o remount,{'ro' if flags & syscalls.MS_RDONLY else 'rw'},{self.spell(options)} {at}")
        syscalls.mount("none", self.root / at, None, syscalls.MS_REMOUNT | flags, self.spell(options) or None)

    def unmount(self, at: str = "m") -> None:
        """Unmount what was mounted there. Raises OSError when it is busy."""
        point = self.root / at
        self._say(f"umount {at}")
        syscalls.umount(point)
        self._mounted.pop(point).pop_all()

    def again(self, options: str, at: str = "m", flags: int = 0) -> str:
        """Unmount it, drop all caches and mount it with these options."""
        self.unmount(at)
        syscalls.drop_caches()
        return self.mount(options, at, flags)

    def shown(self, at: str = "m") -> Mapping[str, str]:
        """The options that the kernel shows for the overlay, flags with value ""."""
        mount = mountinfo.find(syscalls.mount_id(self.root / at))
        if mount is None:
            raise SetupError(f"{at} is not mounted")
        return dict(mount.options)

    def _taken_down_at_the_end(self, point: Path) -> None:
        own = ExitStack()
        own.push(filesystems.unmounting(point))
        self._mounted[point] = own
        self._stack.push(own)

    # fences

    def shut_down(self, layer: Layer) -> None:
        """Shut a filesystem of the stand down: from now on it fails. Raises SetupError."""
        self._say(f"xfs_io -x -c shutdown {layer.root.name}")
        run_quietly("xfs_io", "xfsprogs", ["-x", "-c", "shutdown", str(layer.root)], f"shutdown of {layer.root}")

    def recover(self, layer: Layer, between: Callable[[Path], object] | None = None) -> Layer:
        """Mount a filesystem of the stand, which nothing uses any more, once again. Raises SetupError, OSError.

        `between` may change its image while it is not mounted.
        """
        self._say(f"umount {layer.root.name}; mount {layer.root.name}")
        return filesystems.mount_again(layer, self.root, between)

    # what must hold

    def same(self, what: str, got: object, wanted: object) -> None:
        """Complain unless the two are equal."""
        if got != wanted:
            self.complaints.append(f"{what}: {got!r} instead of {wanted!r}")

    def holds(self, what: str, condition: bool) -> None:
        """Complain unless it is so."""
        if not condition:
            self.complaints.append(f"not so: {what}")

    def warns(self, *words: str) -> None:
        """The kernel must log a line with each of these words until the trial is over: then it is no trouble."""
        self.warnings.extend(words)

    def fails(self, number: int | Sequence[int], call: Callable[..., object], *arguments: object) -> None:
        """The call must fail with this errno (0: succeed), or one of these."""
        numbers = [number] if isinstance(number, int) else list(number)
        words = f"{call.__name__}({', '.join(map(_brief, arguments))})"
        self._say(words)
        got = attempt(call, *arguments)
        if got not in numbers:
            wanted = " or ".join(map(errno_name, numbers))
            self.complaints.append(f"{words}: {errno_name(got)} instead of {wanted}")

    def refuses(
        self, number: int | Sequence[int], options: str, at: str = "m", flags: int = 0, says: str | None = None
    ) -> None:
        """The mount must fail with this errno, or one of these; the kernel must log what it `says`."""
        if says is not None:
            self.warns(says)
        numbers = [number] if isinstance(number, int) else list(number)
        try:
            self.mount(options, at, flags)
        except OSError as error:
            if error.errno not in numbers:
                wanted = " or ".join(map(errno_name, numbers))
                self.complaints.append(f"-o {options}: {errno_name(error.errno or 0)} instead of {wanted}")
        else:
            self.unmount(at)
            self.complaints.append(f"-o {options}: mounted instead of refused")

    def _say(self, words: str) -> None:
        self.steps.append(words.replace(f"{self.root}/", ""))


def attempt(call: Callable[..., object], *arguments: object) -> int:
    """The errno that the call fails with, 0 if it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def errno_name(number: int) -> str:
    """`EIO` for 5, `success` for 0."""
    return errno.errorcode.get(number, str(number)) if number else "success"


def _brief(argument: object) -> str:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else repr(argument)
