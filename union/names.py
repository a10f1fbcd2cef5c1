# SPDX-License-Identifier: GPL-2.0-only
"""Names inside the union: what scenarios are written with.

A `Name` is a path relative to the union's root. `~name` marks it as the path under test, the one
that gets a terminal slash when a run asks for slashes (`--ts=1` of the classical suite).
"""

from __future__ import annotations

from datasets.reference import FIRST_SET


class Name(str):
    """A path relative to the union's root, with the mark of the path under test."""

    __slots__ = ("tested",)
    tested: bool

    def __new__(cls, path: str, tested: bool = False) -> Name:
        self = super().__new__(cls, path)
        self.tested = tested
        return self

    def __invert__(self) -> Name:
        return Name(self, tested=True)

    def __add__(self, suffix: str) -> Name:
        return Name(str.__add__(self, suffix), self.tested)

    def __truediv__(self, child: str) -> Name:
        return Name(f"{self}/{child}", self.tested)

    def slashed(self) -> Name:
        """The same path with a terminal slash if it is the path under test."""
        return Name(str.__add__(self, "/")) if self.tested else self


class NumberedSet:
    """The names of one numbered set of the reference dataset (`datasets.reference`)."""

    def __init__(self, top: str, number: int) -> None:
        self.top = Name(top)
        self.number = number

    def _name(self, stem: str) -> Name:
        return Name(f"{self.top}/{stem}{self.number}")

    @property
    def reg(self) -> Name:
        """A lower file of 12 bytes."""
        return self._name("foo")

    @property
    def rootfile(self) -> Name:
        """A lower file of 12 bytes that only root may write."""
        return self._name("rootfile")

    @property
    def sym(self) -> Name:
        """A symlink to `reg`."""
        return self._name("direct_sym")

    @property
    def isym(self) -> Name:
        """A symlink to `sym`."""
        return self._name("indirect_sym")

    @property
    def dangling(self) -> Name:
        """A symlink to `none`."""
        return self._name("pointless")

    @property
    def none(self) -> Name:
        """An absent name."""
        return self._name("no_foo")

    @property
    def dir(self) -> Name:
        """A populated lower directory: `a`, `pop/b`, `pop/c/`."""
        return self._name("dir")

    @property
    def empty(self) -> Name:
        """An empty lower directory."""
        return self._name("empty")

    @property
    def dsym(self) -> Name:
        """A symlink to `dir`."""
        return self._name("direct_dir_sym")

    @property
    def idsym(self) -> Name:
        """A symlink to `dsym`."""
        return self._name("indirect_dir_sym")

    @property
    def nodir(self) -> Name:
        """An absent name, for directories."""
        return self._name("no_dir")


class Names(NumberedSet):
    """What a scenario gets: its own numbered set, and any other by index (`names[103]`).

    `highest` is the highest set number asked for: it tells how large the group's dataset must be.
    """

    def __init__(self, top: str, number: int) -> None:
        super().__init__(top, number)
        self.highest = number

    def __getitem__(self, number: int) -> NumberedSet:
        if number < FIRST_SET:
            raise IndexError(f"sets are numbered from {FIRST_SET}")
        self.highest = max(self.highest, number)
        return NumberedSet(self.top, number)
