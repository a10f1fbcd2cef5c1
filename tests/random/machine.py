# SPDX-License-Identifier: GPL-2.0-only
"""Histories for hypothesis to draw, step by step on the model; each is played when it is complete."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from datasets.strategies import NAMES, stacks
from datasets.tree import Directory
from tests.random.operations import operations
from union.configuration import Option
from union.coverage import is_detached
from union.example import TOP
from union.history import (
    DropCaches,
    Fence,
    History,
    ListAll,
    ListAround,
    ListRest,
    ListStart,
    Migrate,
    Remount,
    Step,
    foresee,
)
from union.inodes import DirectoryInode, FileInode, Inode, LinkInode
from union.model import Model
from union.names import Name
from union.operations import (
    KEEP,
    ChangeMode,
    ChangeOwner,
    Link,
    ListDirectory,
    ListXattrs,
    MakeDirectory,
    OpenFile,
    Operation,
    Rename,
    W,
)
from union.operations.listing import LARGE, SMALL

OPTIONS: Final[tuple[tuple[Option, ...], ...]] = ((), (), (("index", "on"),), (("redirect_dir", "off"),))
ROTATIONS: Final = 2  # at most
FEW: Final = 4  # entries of a part of a listing, `.` and `..` among them


class Machine(RuleBasedStateMachine):
    """Draws a history over `layers` lower layers and hands it to `play`, which raises what is wrong with it.

    Nothing is rotated or mounted again behind the fence: the kernel would have to read what is gone.
    """

    def __init__(self, layers: int, play: Callable[[History], None], detaches: bool = True) -> None:
        super().__init__()
        self._layers = layers
        self._play = play
        self._history = History((), xino="nofollow" if detaches else "off")
        self._model: Model | None = None
        self._rotations = 0
        self._fenced = False
        self._steps: list[Step] = []

    @property
    def model(self) -> Model:
        """The union after the steps that were drawn."""
        assert self._model
        return self._model

    @initialize(data=st.data(), options=st.sampled_from(OPTIONS))
    def lower_layers(self, data: st.DataObject, options: tuple[Option, ...]) -> None:
        lowers = data.draw(_deeper(self._layers))
        self._history = History(lowers, options=options, xino=self._history.xino)
        self._model = self._history.model()

    @rule(data=st.data(), count=st.integers(1, 4))
    def operations(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            if operation := data.draw(operations(self.model)):
                self._take(operation)

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """Any object into any directory, or into a new one: across the border to where no lower is, too (D19)."""
        home, name = self._directory(data, TOP), data.draw(st.sampled_from(NAMES))
        if data.draw(st.booleans()):
            home = f"{home}/{name}"
            self._take(MakeDirectory(path=Name(home)))
        if objects := [path for path, _ in self.model.walk(TOP) if path != TOP]:
            self._take(Rename(path=Name(data.draw(st.sampled_from(objects))), to=Name(f"{home}/{name}")))

    @rule(data=st.data(), change=st.sampled_from((0o600, 0o4755)))
    def change_by_another_name(self, data: st.DataObject, change: int) -> None:
        """Change an object by one of its names, and look at it by another, which is new unless it has one (D7)."""
        objects = [(path, inode) for path, inode in self.model.walk(TOP) if isinstance(inode, FileInode)]
        if not objects:
            return
        path, inode = data.draw(st.sampled_from(objects))
        others = [other for other, same in objects if same is inode and other != path]
        new = f"{self._directory(data, TOP)}/{data.draw(st.sampled_from(NAMES))}"
        other = data.draw(st.sampled_from([*others, new]))
        if other == new:
            self._take(Link(path=Name(path), to=Name(new)))
        self._take(ChangeMode(path=Name(path), mode=change))
        self._take(ListXattrs(path=Name(other)))

    @rule(data=st.data())
    def copy_up_below(self, data: st.DataObject) -> None:
        """Everything in one directory, itself included, or one object alone."""
        top = data.draw(st.sampled_from([path for path, _ in self.model.walk(TOP)]))
        for path, place in list(self.model.places(top)):
            if place.inode is not None and not place.in_upper:
                self._take(copy_up(Name(path), place.inode))

    @rule(data=st.data(), size=st.sampled_from((LARGE, SMALL)), unprivileged=st.booleans())
    def list_whole(self, data: st.DataObject, size: int, unprivileged: bool) -> None:
        self._take(ListDirectory(path=Name(self._directory(data)), size=size, unprivileged=unprivileged))

    @rule(data=st.data())
    def list_each(self, data: st.DataObject) -> None:
        """All directories once, in any order: whichever it is, in the end nothing needs the lower (D5)."""
        for path in data.draw(st.permutations(self._directories())):
            self._take(ListDirectory(path=Name(path)))

    @rule(data=st.data(), entries=st.integers(0, FEW), kind=st.sampled_from((ListStart, ListRest)))
    def list_part(self, data: st.DataObject, entries: int, kind: type[ListStart | ListRest]) -> None:
        self._take(kind(self._directory(data), entries))

    @rule(data=st.data(), entries=st.integers(0, FEW))
    def list_around(self, data: st.DataObject, entries: int) -> None:
        directory = self._directory(data)
        if meanwhile := data.draw(operations(self.model)):
            self._take(ListAround(directory, entries, meanwhile))

    @rule(data=st.data())
    def whole(self, data: st.DataObject) -> None:
        """What is about the union as a whole."""
        step = data.draw(st.sampled_from(list(self._whole())))
        self._rotations += isinstance(step, Remount) and step.rotates
        self._take(step)

    def _whole(self) -> Iterator[Step]:
        yield from (ListAll(), DropCaches())
        if self._history.detaches:
            yield Migrate()
        if not self._fenced:
            yield Remount()
        if not self._fenced and self._rotations < ROTATIONS:
            yield Remount(rotates=True)

    @precondition(lambda self: self._history.detaches and not self._fenced and is_detached(self.model))
    @rule()
    def fence(self) -> None:
        self._fenced = True
        self._take(Fence())

    def teardown(self) -> None:
        """Play what was drawn, unless drawing it ended early."""
        if self._model and sys.exception() is None:
            history = self._history
            self._play(History(history.lowers, tuple(self._steps), history.options, history.xino))

    def _directory(self, data: st.DataObject, top: str = "") -> str:
        return data.draw(st.sampled_from(self._directories(top)))

    def _directories(self, top: str = "") -> list[str]:
        return [path for path, one in self.model.walk(top) if isinstance(one, DirectoryInode)]

    def _take(self, step: Step) -> None:
        foresee(self.model, step)
        self._steps.append(step)


@st.composite
def _deeper(draw: st.DrawFn, layers: int) -> tuple[Directory, ...]:
    """Up to so many layers with a further directory in their top one, so that few trees are flat."""
    inner, outer = draw(stacks(layers, depth=2)), draw(stacks(layers, depth=2))
    nothing = Directory()
    return tuple(
        Directory({**top.entries, "d": below}, top.mode, top.uid, top.gid, top.xattrs)
        for top, below in zip_longest(outer, inner, fillvalue=nothing)
    )


def copy_up(path: Name, inode: Inode) -> Operation:
    """The operation that copies an object up and changes nothing else."""
    if isinstance(inode, FileInode):
        return OpenFile(path=path, flags=W)
    if isinstance(inode, DirectoryInode | LinkInode):
        return ChangeOwner(path=path, uid=KEEP, gid=KEEP, follow=False)
    return ChangeMode(path=path, mode=inode.mode)
