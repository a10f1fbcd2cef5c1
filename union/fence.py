# SPDX-License-Identifier: GPL-2.0-only
"""Fences: make a lower layer unusable, or listen to it, and prove that this works.

Only a filesystem that this process made and mounted is ever fenced, and it is recognised by its mount
id and device: the path may lead to something else by now.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

from union import mountinfo, syscalls
from union.configuration import FENCES
from union.errors import SetupError, Unsupported
from union.filesystems import Layer

ABSENT_NAME: Final = ".ovl-detach-absent"  # no layer has a name that begins like this
Act = Callable[[], object]
AS_BEFORE: Final = "as before"
LOOKUP, STAT, LISTING, READ = "lookup", "stat", "listing", "read"
EVERYTHING: Final = (LOOKUP, STAT, LISTING, READ)


class CannotFence(Unsupported):
    """This kind of lower layer cannot be made unusable in this way."""


class Fence(ABC):
    """One way to fence one lower layer.

    `name` is what the command line calls it, `words` are what an access may come to that it catches: the name of an
    errno, or words of its own. With `cold` it is blind while caches are warm.
    """

    name: ClassVar[str]
    what: ClassVar[str]  # for people
    words: ClassVar[tuple[str, ...]] = ("EIO",)
    cold: ClassVar[bool] = False

    def __init__(self, layer: Layer) -> None:
        """Raises CannotFence for a layer of the user's and for a filesystem that this fence is not for."""
        if not layer.ours:
            raise CannotFence(f"{layer.root} is the user's: only a filesystem of our own is ever fenced")
        lowers = FENCES[self.name]
        if layer.fstype not in lowers:
            raise CannotFence(f"the lower layer is {layer.fstype}: {self.what} is for {', '.join(lowers)}")
        self.layer = layer
        self._canary = ""
        self._size = 0
        self._lookups = 0
        self._before: dict[str, Outcome] = {}
        self.caught: dict[str, str] = {}  # what the self-test did, and what came of it

    @abstractmethod
    def _raise(self, root: int) -> None:
        """Do it; `root` is a descriptor of the layer's root."""

    def must(self) -> tuple[str, ...]:
        """What of EVERYTHING it must catch on this filesystem; what else it does differs from kernel to kernel."""
        return EVERYTHING

    def heard(self) -> list[str]:
        """What has reached the lower since the fence was raised or this was last asked, if it listens."""
        return []

    def guard(self) -> None:  # noqa: B027 - nobody hangs in most of them
        """See to it that who runs into the fence does not hang there for ever; called when the self-test is over."""

    def fence(self) -> None:
        """Read a canary file of the lower, then make the lower unusable.

        Raises CannotFence when this kernel cannot do that with such a filesystem, and SetupError: the layer is not the
        mount that was made, it is unreadable already, it holds no file to read, or a program is missing or fails.
        """
        with self._ours() as root:
            self._canary, self._size = _read_canary(root)
            self._before = {what: outcome(act) for what, act in self._attempts(root)}
            self._raise(root)

    def self_test(self, *, cold: bool = False) -> str:
        """Look up, list, stat and read in the fenced lower: what `must` names has to be caught.

        With `cold`, or if the fence is blind otherwise, caches are dropped before: all of the system's, so the union
        is cold afterwards too. Returns a line of evidence; raises SetupError when the fence does not bite.
        """
        if not self._canary:
            raise SetupError("the self-test of a fence comes after the fence")
        if cold or self.cold:
            syscalls.drop_caches()
        with self._ours() as root:
            self.caught = {what: self.judge(act, self._before[what]) for what, act in self._attempts(root)}
        must = self.must()
        wrong = [f"{what} {came}" for what, came in self.caught.items() if what in must and came not in self.words]
        if wrong:
            instead = f"instead of {' or '.join(self.words)}"
            raise SetupError(f"the fence does not bite on {self.layer.root}: {', '.join(wrong)} {instead}")
        return self._describe()

    def _describe(self) -> str:
        before = f"read {self._size} bytes of {self._canary} before"
        bitten = [what for what, came in self.caught.items() if came in self.words]
        blind = ", ".join(what for what in self.caught if what not in bitten)
        found = dict.fromkeys(self.caught[what] for what in bitten)
        words = "; ".join(f"{word} for {', '.join(w for w in bitten if self.caught[w] == word)}" for word in found)
        spared = f" (not for {blind})" if blind else ""
        kind = self.layer.fstype.upper() if self.layer.fstype == "xfs" else self.layer.fstype
        return f"{kind} {self.what}; self-test: {before}, {words} after{spared}"

    def judge(self, act: Act, before: Outcome) -> str:
        """Do it once behind the fence, where it gave `before` without one; what came of it, AS_BEFORE or in words."""
        return compare(outcome(act), before)

    def _attempts(self, root: int) -> Iterator[tuple[str, Act]]:
        self._lookups += 1  # a name that was not found may be remembered
        absent = f"{ABSENT_NAME}-{self._lookups}"
        yield LOOKUP, lambda: os.stat(absent, dir_fd=root, follow_symlinks=False)
        yield STAT, lambda: os.stat(self._canary, dir_fd=root, follow_symlinks=False)
        yield LISTING, lambda: _list(root)
        yield READ, lambda: _read(root, self._canary)

    @contextmanager
    def _ours(self) -> Iterator[int]:
        """A descriptor of the layer's root, once it is clear that this still is the mount we made."""
        layer = self.layer
        try:
            fd = os.open(layer.root, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise SetupError(f"the lower layer is gone: {error}") from error
        try:
            mount_id = syscalls.mount_id(fd)
            mount = mountinfo.find(mount_id)  # not stat: a fenced filesystem answers none
            ours = (layer.mount_id, layer.device, layer.fstype, layer.source)
            if mount is None or (mount_id, mount.device, mount.fstype, mount.source) != ours:
                raise SetupError(f"{layer.root} is not what this run mounted there: not fenced")
            yield fd
        finally:
            os.close(fd)


class Listening(Fence):
    """A fence that lets the lower work on, and hears what reaches it."""

    total = 0  # how much it has heard so far, its self-test left out

    @abstractmethod
    def _heard(self) -> list[str]:
        """What has reached the lower since the last call."""

    @abstractmethod
    def account(self) -> str:
        """What the lower was asked before, in words."""

    def heard(self) -> list[str]:
        """What has reached the lower since the fence was raised or this was last asked."""
        found = self._heard()
        self.total += len(found)
        return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act gave: a value, or an errno."""

    value: object = None
    errno: int = 0


def outcome(act: Act) -> Outcome:
    """Do it."""
    try:
        found = act()
    except OSError as error:
        return Outcome(errno=error.errno or errno.EIO)
    # Numbers are those of the mount, and access times move with each look.
    return Outcome((found.st_mode, found.st_size) if isinstance(found, os.stat_result) else found)


def compare(came: Outcome, before: Outcome) -> str:
    """The name of an errno that it did not give before, AS_BEFORE, or something else."""
    if came == before:
        return AS_BEFORE
    if came.errno:
        return errno.errorcode.get(came.errno, str(came.errno))
    return "something else"


def _read_canary(root: int) -> tuple[str, int]:
    """Read a regular file below `root`, breadth first and one with content if there is any: path and bytes read."""
    waiting, empty = ["."], ""
    try:
        while waiting:
            directory = waiting.pop(0)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
            try:
                entries = syscalls.getdents(fd)
            finally:
                os.close(fd)
            for name, _ino, kind in sorted(entries):
                path = name if directory == "." else f"{directory}/{name}"
                if kind == syscalls.DT_REG and (size := len(_read(root, path))):
                    return path, size
                if kind == syscalls.DT_REG:
                    empty = empty or path
                if kind == syscalls.DT_DIR and name not in (".", ".."):
                    waiting.append(path)
    except OSError as error:
        raise SetupError(f"the lower layer cannot be read before the fence: {error}") from error
    if empty:
        return empty, 0
    raise SetupError("the lower layer has no file: nothing to test the fence with")


def _read(root: int, path: str) -> bytes:
    """Open and read up to a page of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _list(root: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        return sorted(entry.name for entry in syscalls.getdents(fd))
    finally:
        os.close(fd)
