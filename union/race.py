# SPDX-License-Identifier: GPL-2.0-only
"""A race: several processes in one union while it is migrated, all of it made from one number.

Each *owner* has names of its own, told by a prefix, in directories that all share; nobody else changes them, so it
knows at any time what they must be. Names without an owner never change. *Readers* look at those, one of them as
another user, and *migrators* copy up and list whatever there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, NamedTuple

from datasets.tree import Directory, File, HardLink, Node, Symlink
from union.configuration import Option, Xino
from union.example import TOP, Example

Kind = Literal["owner", "reader", "user", "migrator"]
INDEX: Final[Option] = ("index", "on")
OPTIONS: Final[tuple[tuple[Option, ...], ...]] = ((), (), (INDEX,), (("metacopy", "on"),))
SHARED: Final = (TOP, f"{TOP}/a", f"{TOP}/a/b", f"{TOP}/a/b/c", f"{TOP}/d")
"""The directories that all share, in the union; like all else in the layers they have no owner."""
PAGES: Final = 3  # of the biggest file


class Actor(NamedTuple):
    """One process of the race; what begins with its name is its own."""

    name: str
    kind: Kind


def owner_of(path: str) -> str:
    """The name of the actor that the path belongs to, empty if it is nobody's."""
    for part in path.split("/"):
        if part[:1] == "p" and part[1:2].isdigit():
            return part[:2]
    return ""


@dataclass(frozen=True, slots=True)
class Race:
    """All of it follows from `seed`. `rounds` of `steps` come before the detach, between which the union is looked at,
    and one after it. With another `xino` there is no detach.
    """

    seed: int
    rounds: int = 3
    steps: int = 80
    xino: Xino = "nofollow"

    def random(self, *what: object) -> Random:
        """The random numbers for one purpose: they depend on nothing else."""
        return Random("/".join(map(str, (self.seed, *what))))

    def actors(self) -> tuple[Actor, ...]:
        """Two to eight: an owner and a migrator at least."""
        dice = self.random("actors")
        kinds: list[Kind] = ["owner"] * dice.randint(1, 4)
        kinds += dice.sample(("reader", "user"), dice.randint(0, 2))
        kinds += ["migrator"] * dice.randint(1, 2)
        return tuple(Actor(f"p{number}", kind) for number, kind in enumerate(kinds))

    def options(self) -> tuple[Option, ...]:
        """Further mount options."""
        return self.random("options").choice(OPTIONS)

    def example(self) -> Example:
        """The union that it takes place in."""
        return Example(self.lowers(), options=self.options(), xino=self.xino)

    def lowers(self) -> tuple[Directory, ...]:
        """One lower layer or two, which have some names in common."""
        dice = self.random("layers")
        linked = INDEX in self.options()  # without an index copy-up breaks hard links, at a time that nobody knows
        owners = [actor.name for actor in self.actors() if actor.kind == "owner"]
        layers = [_Layer(dice, owners, linked, half) for half in dice.choice(((1.0,), (0.5, 0.7)))]
        return tuple(layer.directory(TOP) for layer in layers)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Draws one layer, with this part of the names that there may be."""

    dice: Random
    owners: list[str]
    linked: bool
    part: float

    def directory(self, path: str) -> Directory:
        """The shared directory `path` and all below it."""
        below = {shared for shared in SHARED if shared.rpartition("/")[0] == path}
        entries = dict(self._names("s"))
        for owner in self.owners:
            entries |= dict(self._names(owner))
        return Directory(entries | {shared.rpartition("/")[2]: self.directory(shared) for shared in sorted(below)})

    def _names(self, prefix: str) -> Iterator[tuple[str, Node]]:
        made: list[tuple[str, Node]] = [
            (f"{prefix}f", self._file()),
            (f"{prefix}g", self._file()),
            (f"{prefix}s", Symlink(f"{prefix}f")),
            (f"{prefix}d", Directory({f"{prefix}f": self._file(), f"{prefix}e": Directory({"f": self._file()})})),
        ]
        for name, node in made:
            if name == "sf" or self.dice.random() < self.part:
                yield name, node
        if self.linked and self.part == 1.0:
            yield f"{prefix}l", self._file()
            yield f"{prefix}m", HardLink(f"{prefix}l")

    def _file(self) -> File:
        size = self.dice.choice((0, 5, 4096 * PAGES))
        return File(self.dice.randbytes(size))
