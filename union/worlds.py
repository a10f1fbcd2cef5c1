# SPDX-License-Identifier: GPL-2.0-only
"""All short sequences of operations in a small world, at each moment of the detach: what a random search may miss.

Each sequence is played in a top directory of its own, many of them on one union, step by step, so that mounting,
migrating and fencing are paid once. Each name of a world has a part of its own, so no two sequences are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, product
from random import Random
from typing import Final, NamedTuple

from datasets.tree import Directory, File, Symlink, Whiteout
from mount_union import mount_union
from report.events import Checked, Event, Outcome, ScenarioEnded
from union import syscalls
from union.arena import Arena
from union.detach import detach
from union.example import TOP, Example
from union.namecalls import RENAME_EXCHANGE
from union.names import Name
from union.operations import (
    CREAT,
    TRUNC,
    ChangeMode,
    Link,
    ListDirectory,
    Make,
    MakeDirectory,
    OpenFile,
    Operation,
    R,
    RemoveDirectory,
    Rename,
    RenameFlags,
    TwoNames,
    Unlink,
    W,
)
from union.plan import Share, Turn
from union.runner import Runner
from union.scenario import Group, Scenario, Script

Sequence = tuple[Operation, ...]

_LOWEST: Final = Directory({"a": File(b"lower"), "d": Directory({"f": File(b"lower"), "e": Directory()})})
_ABOVE: Final = Directory({"d": Directory({"f": Whiteout(), "g": File(b"above")}), "s": Symlink("a")})
WORLDS: Final[dict[str, tuple[Directory, ...]]] = {"two layers": (_LOWEST,), "three layers": (_ABOVE, _LOWEST)}
"""By name the lower layers, the topmost first."""
NAMES: Final = ("a", "d", "d/f", "d/e", "n", "d/n")
"""A file, a directory with a file and a directory, and what is not there; a whiteout is over one of them or none."""


@cache
def operations() -> Sequence:
    """Each kind of operation on each name, or each two."""
    one = [operation for name in NAMES for operation in _on(Name(f"{TOP}/{name}"))]
    pairs = [(Name(f"{TOP}/{old}"), Name(f"{TOP}/{new}")) for old, new in product(NAMES, NAMES)]
    two = [operation for old, new in pairs for operation in _between(old, new)]
    return (*one, *two)


def _on(path: Name) -> list[Operation]:
    return [
        OpenFile(path=path, flags=R),
        OpenFile(path=path, flags=W, writes=b"new"),
        OpenFile(path=path, flags=W | TRUNC),
        OpenFile(path=path, flags=W | CREAT, mode=0o600, writes=b"made"),
        MakeDirectory(path=path),
        RemoveDirectory(path=path),
        Unlink(path=path),
        ChangeMode(path=path, mode=0o700),
        ListDirectory(path=path),
        Make(path=path, type=0o120000, target="a"),
    ]


def _between(old: Name, new: Name) -> list[Operation]:
    return [
        Rename(path=old, to=new),
        RenameFlags(path=old, to=new, flags=RENAME_EXCHANGE),
        Link(path=old, to=new),
    ]


class Batch(NamedTuple):
    """Sequences `first` to `last` (excluded) of `length` operations, of which `before` come before the detach.

    With `cold` caches are dropped before each step. Without `detach` it never comes. With a `seed` the sequences are
    not all that there are but drawn at random.
    """

    world: str
    length: int
    before: int
    cold: bool
    first: int
    last: int
    detach: bool = True
    seed: int | None = None

    def sequences(self) -> Iterator[Sequence]:
        """The sequences themselves."""
        if self.seed is not None:
            return (
                tuple(Random(f"{self.seed}/{number}").choices(operations(), k=self.length))
                for number in range(self.first, self.last)
            )
        return islice(product(operations(), repeat=self.length), self.first, self.last)

    def example(self, sequence: Sequence) -> Example:
        """One of them alone."""
        return Example(WORLDS[self.world], sequence[: self.before], sequence[self.before :])

    def __str__(self) -> str:
        words = f"{self.before} of {self.length} before, {'cold' if self.cold else 'warm'}"
        words += "" if self.seed is None else f", seed {self.seed}"
        return f"{self.world}, {words}, {self.first} to {self.last}"


def batches(length: int, size: int) -> list[Batch]:
    """All sequences of `length` operations in all worlds, at most `size` in each."""
    count = len(operations()) ** length
    return [
        Batch(world, length, before, cold, first, min(first + size, count))
        for world in WORLDS
        for before in range(length + 1)
        for cold in (False, True)
        for first in range(0, count, size)
    ]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A sequence that did not give what it must, and what was wrong; without one it is the union as a whole."""

    example: Example | None
    complaints: tuple[str, ...]


class _Heard:
    def __init__(self) -> None:
        self.wrong: dict[str, tuple[str, ...]] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Checked(clause, what, complaints) if complaints:
                self.wrong.setdefault("", tuple(f"{clause}: {what}: {line}" for line in complaints))
            case ScenarioEnded(group=group, outcome=Outcome.FAILED | Outcome.ERROR, complaints=complaints):
                self.wrong.setdefault(group, complaints)


def play(batch: Batch, arena: Arena) -> list[Wrong]:
    """Play all of it on one union; what was wrong. Raises HarnessError like `union.example.play`."""
    sequences = {f"w{number}": sequence for number, sequence in enumerate(batch.sequences())}
    heard = _Heard()
    before = Example((), xino="nofollow" if batch.detach else "off").configuration()
    turns = tuple(Turn(name, _group(batch, name, sequence), (1,)) for name, sequence in sequences.items())
    with mount_union(before, Share(turns), arena.mountpoint, heard, arena.lay) as union:
        # The log is looked at when all is finished.
        runner = Runner(union.judge, None, heard, stated=False, quiet=True)
        for step in range(batch.length + 1):
            if step == batch.before and batch.detach:
                after = replace(before, migrate="dfs", fence="shutdown", moment="after")
                detach(after, union.overlay, union.judge, union.cycler, heard)
                union.configuration = after
            if batch.cold:
                syscalls.drop_caches()
            for turn in union.turns if step < batch.length else ():
                runner.run_turn(replace(turn, numbers=(step + 1,)), "")
        union.finish(runner.spoiled)
    return [
        Wrong(batch.example(sequences[name]) if name else None, complaints) for name, complaints in heard.wrong.items()
    ]


def _group(batch: Batch, name: str, sequence: Sequence) -> Group:
    """The sequence in the directory `name`, a scenario for each step."""
    steps = [Scenario(f"step {number}", _step(_moved(one, name))) for number, one in enumerate(sequence, start=1)]
    return Group(name, "A sequence.", tuple(steps), sequence=True, lowers=WORLDS[batch.world])


def _step(operation: Operation) -> Script:
    return lambda _: (operation,)


def _moved(operation: Operation, top: str) -> Operation:
    """The operation in another top directory."""
    moved = replace(operation, path=Name(top + operation.path.removeprefix(TOP)))
    return replace(moved, to=Name(top + moved.to.removeprefix(TOP))) if isinstance(moved, TwoNames) else moved
