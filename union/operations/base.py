# SPDX-License-Identifier: GPL-2.0-only
"""What every operation is: a small dataclass that knows its system call and its reproducer line."""

from __future__ import annotations

import errno as errnos
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

from union.names import Name

UNPRIVILEGED = 1  # uid and gid of the unprivileged actor, "bin" in the classical suite

# Access modes as scenarios write them.
R = os.O_RDONLY
W = os.O_WRONLY
RW = os.O_RDWR
WA = os.O_WRONLY | os.O_APPEND
RWA = os.O_RDWR | os.O_APPEND
# Modifiers.
CREAT = os.O_CREAT
EXCL = os.O_EXCL
TRUNC = os.O_TRUNC
DIRECTORY = os.O_DIRECTORY

Value = bytes | str | int | None


ANYTHING: Final = "whatever the kernel gives"
"""What the model predicts of a value that a kernel is free to choose."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation gave: an errno number (0 is success) and a value where it has one."""

    errno: int
    value: Value = None

    def __str__(self) -> str:
        if self.errno:
            return errnos.errorcode.get(self.errno, str(self.errno))
        return "success" if self.value is None else f"success with {self.value!r}"


class Held:
    """What a scenario holds from one operation to the next, by name: descriptors, mappings, watches.

    As long as it holds anything the union cannot be unmounted.
    """

    def __init__(self) -> None:
        self._things: dict[str, tuple[Any, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._things)

    def keep(self, name: str, thing: Any, release: Callable[[], object]) -> None:
        """Hold `thing` until `drop` or the end of the scenario, when `release` is called."""
        if name in self._things:
            raise ValueError(f"{name!r} is held already")
        self._things[name] = thing, release

    def get(self, name: str) -> Any:
        """What is held under `name`; KeyError if nothing is."""
        return self._things[name][0]

    def drop(self, name: str) -> None:
        """Let go of what is held under `name`; raises what releasing it raises."""
        _, release = self._things.pop(name)
        release()

    def release(self) -> None:
        """Let go of everything, the last first. What close(2) has to say is looked at where a scenario closes."""
        while self._things:
            with suppress(OSError):
                self.drop(next(reversed(self._things)))


def shell_line(words: Iterable[str]) -> str:
    """The words as one printable line that a shell splits back, whatever they hold."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = os.fsencode(word).decode("latin-1").encode("unicode_escape").decode().replace("'", "\\x27")
    return f"$'{escaped}'"


@contextmanager
def acting_as(unprivileged: bool) -> Iterator[None]:
    """Run the block with effective uid and gid 1; the supplementary groups stay as they are."""
    if not unprivileged:
        yield
        return
    os.setegid(UNPRIVILEGED)
    try:
        os.seteuid(UNPRIVILEGED)
        try:
            yield
        finally:
            os.seteuid(0)
    finally:
        os.setegid(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC):
    """Base: one operation on one path (relative to the union's root).

    A rotating run remounts the union after an operation that `remounts`, on a new upper layer if it `rotates`,
    unless its `cycle` is False.
    """

    word: ClassVar[str]
    remounts: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    path: Name
    fails: int = 0
    unprivileged: bool = False
    cycle: bool = True

    def names(self) -> tuple[Name, ...]:
        """The names it touches."""
        return (self.path,)

    def expected(self) -> Result:
        """What the scenario says must come out; a value of None is not compared."""
        return Result(self.fails)

    def slashed(self) -> Self:
        """The same operation with a terminal slash on each path under test (`--ts=1`)."""
        return replace(self, path=self.path.slashed())

    @abstractmethod
    def call(self, root: str, held: Held) -> Value:
        """Issue the system call below `root`; raises OSError."""

    def perform(self, root: str, held: Held) -> Result:
        """Issue the operation on the union mounted at `root` and say what it gave."""
        try:
            return Result(0, self.call(root, held))
        except OSError as error:
            if error.errno is None:
                raise
            return Result(error.errno)

    def letters(self) -> list[str]:
        """The option letters and data of the reproducer line, before -B and -E."""
        return []

    def arguments(self, root: str) -> list[str]:
        """The paths and numbers of the reproducer line."""
        return [f"{root}/{name}" for name in self.names()]

    def reproducer(self, root: str) -> str:
        """The command line that repeats this operation alone (parity 1.5)."""
        words = ["./run", f"--{self.word}", *self.arguments(root), *self.letters()]
        if self.unprivileged:
            words.append("-B")
        if self.fails:
            words += ["-E", errnos.errorcode[self.fails]]
        return shell_line(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoNames(Operation):
    """Base: one operation on two paths."""

    to: Name

    def names(self) -> tuple[Name, ...]:
        return (self.path, self.to)

    def slashed(self) -> Self:
        return replace(self, path=self.path.slashed(), to=self.to.slashed())
