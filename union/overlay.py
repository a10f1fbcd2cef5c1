# SPDX-License-Identifier: GPL-2.0-only
"""Mount an overlay through system calls, see what is in effect, take it down, bring it back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from datasets.tree import Directory
from union import mountinfo, syscalls
from union.configuration import Option
from union.effective import parameter
from union.errors import SetupError, Unsupported
from union.kernellog import KernelLog
from union.layers import NESTED_NAME, LayerStack, build_layers

SOURCE: Final = "overlay"  # the mount source of the classical suite

# The parameter that says what holds when an option is neither given nor shown, and its values.
_DEFAULTS: Final = {
    "redirect_dir": ("redirect_dir", "on", "follow"),
    "index": ("index", "on", "off"),
    "nfs_export": ("nfs_export", "on", "off"),
    "metacopy": ("metacopy", "on", "off"),
    "xino": ("xino_auto", "auto", "off"),
}
_MAPPED: Final = (("xino", "on"), ("xino", "nofollow"))
# What a kernel may do without, with a line in its log alone, when a layer lacks something.
_DISPENSABLE: Final = (*_MAPPED, ("index", "on"), ("nfs_export", "on"), ("metacopy", "on"), ("redirect_dir", "on"))
_LAYER_KEYS: Final = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")


class MountRefused(Unsupported, OSError):
    """The kernel refused a mount: `errno` and, in `kernel_says`, its own words (may be empty)."""

    def __init__(self, number: int, what: str, kernel_says: Sequence[str] = ()) -> None:
        super().__init__(number, what)
        self.errno = number
        self.kernel_says = tuple(kernel_says)
        self._what = what

    def __str__(self) -> str:
        words = "; ".join(self.kernel_says) or "the kernel gives no reason"
        return f"{self._what}: {errno.errorcode.get(self.errno or 0, self.errno)}: {words}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a kernel does not have an option: an errno number (0: it mounted, but not with the option)."""

    errno: int
    reason: str

    def __str__(self) -> str:
        return f"{errno.errorcode.get(self.errno, self.errno)}: {self.reason}" if self.errno else self.reason


@dataclass(slots=True)
class Overlay:
    """An overlay of `stack` with mount options `options`, each a key and a value ("" for a flag)."""

    stack: LayerStack
    options: Sequence[Option] = ()
    source: str = SOURCE
    mount_id: int | None = field(default=None, init=False)

    def mount(self) -> None:
        """Mount it. Raises MountRefused with the kernel's reason.

        A mount that falls back to less than was asked for counts as refused (D1): the log of a busy machine would not
        tell whose fall-back it was.
        """
        with ExitStack() as held:
            words, layers = _Words(held), _short_layers(held, self.stack)
            try:
                self._mount_with_context(layers, words)
            except _NoLowerPlus:
                self._mount_with_string(layers, words)
        self.mount_id = syscalls.mount_id(self.stack.mountpoint)
        # On one filesystem the numbers are unique as they are: the kernel maps nothing and shows nothing.
        free = _MAPPED if self.stack.one_filesystem else ()
        asked = [option for option in self.options if option in _DISPENSABLE and option not in free]
        fallen_back = not_in_effect(asked, self.effective_options())
        if fallen_back:
            self.unmount()
            raise MountRefused(errno.EINVAL, f"overlay on {self.stack.mountpoint}", fallen_back)

    def unmount(self) -> None:
        """Unmount it. Raises SetupError if it is busy; nothing is done if it is not mounted."""
        if self.mount_id is None:
            return
        present = syscalls.mount_id(self.stack.mountpoint)
        if present != self.mount_id:
            found = mountinfo.find(present)
            now = found.describe() if found else "nothing"
            raise SetupError(f"{self.stack.mountpoint} is not our overlay any more but {now}: not unmounted")
        try:
            syscalls.umount(self.stack.mountpoint)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise SetupError(f"cannot unmount {self.stack.mountpoint}: {error.strerror}") from error
            holders = ", ".join(_holders(self.stack.mountpoint, self.mount_id)) or "a mapping or another process"
            raise SetupError(f"{self.stack.mountpoint} is busy, held by {holders}") from error
        self.mount_id = None

    @contextmanager
    def mounted(self) -> Iterator[Overlay]:
        """Mounted inside of the block, unmounted at its end if it still is mounted then.

        If the block fails, that is what the caller gets to see, and not that the union is busy too.
        """
        self.mount()
        try:
            yield self
        except BaseException:
            with suppress(SetupError):
                self.unmount()
            raise
        self.unmount()

    def effective_options(self) -> dict[str, str]:
        """The options that the kernel shows for this very mount, layers included, flags with value "".

        A key that is shown more than once (`lowerdir+`) has its values joined by colons.
        """
        mount = None if self.mount_id is None else mountinfo.find(self.mount_id)
        if mount is None:
            raise SetupError(f"no overlay of ours is mounted on {self.stack.mountpoint}")
        options: dict[str, str] = {}
        for key, value in mount.options:
            options[key] = f"{options[key]}:{value}" if key in options else value
        return options

    def describe(self) -> str:
        """The options in effect but the layers, one line for a summary."""
        options = self.effective_options().items()
        shown = ",".join(f"{key}={value}" for key, value in options if value and not key.startswith(_LAYER_KEYS))
        return shown or "the kernel's defaults"

    def _mount_with_context(self, layers: _Layers, words: _Words) -> None:
        """The mount API of Linux 5.2, with the option `lowerdir+` of 6.8: takes any character in a path."""
        try:
            context = words.listen_to(syscalls.FsContext("overlay"))
            context.set("source", self.source)
            for lower in layers.lowers:
                context.set("lowerdir+", lower)
            # Unlike in lowerdir+, the kernel undoes backslashes in these two.
            context.set("upperdir", layers.upper.replace("\\", "\\\\"))
            context.set("workdir", layers.work.replace("\\", "\\\\"))
            for key, value in self.options:
                context.set(key, value)
            context.create()
            context.mount(self.stack.mountpoint)
        except OSError as error:
            refused = self._refused(error, words)
            unknown = any("Unknown parameter 'lowerdir+'" in line for line in refused.kernel_says)
            if unknown or error.errno == errno.ENOSYS:
                raise _NoLowerPlus from error
            raise refused from error

    def _mount_with_string(self, layers: _Layers, words: _Words) -> None:
        """mount(2), for kernels without `lowerdir+`."""
        pairs = [
            *self.options,
            ("lowerdir", ":".join(_escaped(lower, ":") for lower in layers.lowers)),
            ("upperdir", _escaped(layers.upper)),
            ("workdir", _escaped(layers.work)),
        ]
        text = ",".join(f"{key}={value}" if value else key for key, value in pairs)
        try:
            syscalls.mount(self.source, self.stack.mountpoint, "overlay", 0, text)
        except OSError as error:
            raise self._refused(error, words) from error

    def _refused(self, error: OSError, words: _Words) -> MountRefused:
        if error.errno == errno.ENODEV:
            return MountRefused(errno.ENODEV, "overlay", [f"kernel {os.uname().release} has no overlay"])
        shown = ",".join(f"{key}={value}" if value else key for key, value in self.options)
        what = f"overlay on {self.stack.mountpoint}" + (f" with {shown}" if shown else "")
        return MountRefused(error.errno or errno.EINVAL, what, words.spoken())


def nest(stack: ExitStack, layers: LayerStack, options: Sequence[Option]) -> LayerStack:
    """Mount an overlay of the lower layers (parity 2.2) until the stack is undone; a stack with it as its lower.

    Raises OSError, or MountRefused with the kernel's reason.
    """
    root = layers.home.root
    for name in ("u", "w", "n"):
        (root / name).mkdir()
    inner = replace(layers, upperdir=root / "u", workdir=root / "w", mountpoint=root / "n")
    stack.enter_context(Overlay(inner, options, NESTED_NAME).mounted())
    return replace(layers, lowerdirs=(inner.mountpoint,))


class _NoLowerPlus(Exception):
    """This kernel has no `lowerdir+`, or no mount API at all."""


class _Words:
    """What the kernel says about a mount: to the context if it is one of the new kind, else to its log."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._context: syscalls.FsContext | None = None
        self._log: KernelLog | None = None
        with suppress(OSError):  # a log that is not for us to read makes a message poorer, nothing else
            self._log = stack.enter_context(KernelLog())

    def listen_to(self, context: syscalls.FsContext) -> syscalls.FsContext:
        """Close the context with the stack, and ask it first when `spoken` is called."""
        self._context = self._stack.enter_context(context)
        return self._context

    def spoken(self) -> list[str]:
        """The kernel's lines, oldest first; empty if it said nothing."""
        lines = self._context.messages() if self._context else []
        if not lines and self._log:
            lines = [line for line in self._log.new_lines() if "overlay" in line]
        return lines


@dataclass(frozen=True, slots=True)
class _Layers:
    lowers: tuple[str, ...]
    upper: str
    work: str


def _short_layers(held: ExitStack, stack: LayerStack) -> _Layers:
    """The layer paths, each replaced by a descriptor's if it is longer than a mount option may be.

    The kernel resolves the path at once; only what mountinfo shows for the layer is less telling. The
    descriptors are closed with `held`.
    """

    def short(path: Path) -> str:
        if len(os.fsencode(path)) * 2 <= syscalls.FSCONFIG_STRING_MAX:  # twice: it may get escaped
            return str(path)
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
        held.callback(os.close, fd)
        return f"/proc/self/fd/{fd}"

    return _Layers(tuple(map(short, stack.lowerdirs)), short(stack.upperdir), short(stack.workdir))


def _escaped(path: str, also: str = "") -> str:
    """A path inside of a mount option string."""
    return "".join(f"\\{letter}" if letter in "\\," + also else letter for letter in path)


def _holders(mountpoint: Path, mount_id: int) -> Iterator[str]:
    """What of this process and its mounts keeps the mount busy."""
    for mount in mountinfo.mounts():
        if mount.parent == mount_id:
            yield mount.describe()
    links = [Path("/proc/self/cwd"), *Path("/proc/self/fd").iterdir()]
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue  # the descriptor of the listing itself
        if target == str(mountpoint) or target.startswith(f"{mountpoint}/"):
            yield f"our {link.relative_to('/proc/self')} ({target})"


def not_in_effect(wanted: Sequence[Option], effective: dict[str, str]) -> list[str]:
    """One line for each wanted option that a mount does not have.

    The kernel shows an option that differs from the module's default, so one that is not shown is in
    effect only if it is the default.
    """
    lines = []
    for key, value in wanted:
        if key in _LAYER_KEYS:
            continue
        if key == "volatile" and effective.get("fsync") == "volatile":
            continue  # newer kernels show it under the name that replaced it
        seen = effective[key] if key in effective else _default(key)
        if seen != value:
            option = f"{key}={value}" if value else key
            lines.append(f"{option} was accepted but is not in effect ({_shown(key, seen)})")
    return lines


def _default(key: str) -> str | None:
    if key not in _DEFAULTS:
        return None
    name, on, off = _DEFAULTS[key]
    return {"Y": on, "N": off}.get(parameter(name) or "")


def _shown(key: str, seen: str | None) -> str:
    if seen is None:
        return "not shown"
    return f"{key}={seen} is" if seen else f"{key} is"


def accepts(option: Option) -> Refusal | None:
    """Whether the running kernel's overlay takes `option`: None, or why not. Found out by doing.

    Mounts an empty overlay on tiny layers of its own and looks whether the option is in effect. The
    caller must be in a private mount namespace; raises SetupError if the layers cannot be made.
    """
    with ExitStack() as stack:
        overlay = Overlay(build_layers(stack, [Directory()]), [option])
        try:
            with overlay.mounted():
                wrong = not_in_effect([option], overlay.effective_options())
        except MountRefused as refused:
            return Refusal(refused.errno or 0, "; ".join(refused.kernel_says) or "no reason given")
        return Refusal(0, wrong[0]) if wrong else None
