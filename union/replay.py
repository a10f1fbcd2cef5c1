# SPDX-License-Identifier: GPL-2.0-only
"""Plays a history: each step on the union, then what must hold, names touched and opaque marks alike."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from mount_union import Union, mount_union
from report.events import Checked, Event, OperationStarted, Outcome, ScenarioEnded
from union import namecalls, syscalls
from union.arena import Arena
from union.configuration import Configuration
from union.coverage import compare_marks, is_detached, list_whole
from union.detach import detach
from union.example import TOP, Played
from union.history import (
    DropCaches,
    Fence,
    Forge,
    History,
    ListAll,
    ListAround,
    ListRest,
    ListStart,
    Migrate,
    Remount,
    Special,
    Step,
    listed,
)
from union.inodes import DirectoryInode, Inode, directories
from union.judge import Look
from union.namecalls import Cookie
from union.operations import ListDirectory, Operation
from union.overlay import MountRefused
from union.plan import Share, Turn
from union.runner import Runner
from union.scenario import Group, Scenario

OPAQUE: Final = "trusted.overlay.opaque"
NOTHING: Final = Group(TOP, "A history.", (Scenario("nothing", lambda _: ()),))
_ONE: Final = 24  # bytes of a buffer for one entry with a name of up to four
_LONG: Final = 280  # likewise of one with the longest name


def play(history: History, arena: Arena) -> Played:
    """Play it and look at everything. Raises HarnessError for what is our own fault, or when the kernel refuses."""
    heard = _Heard()
    group = replace(NOTHING, lowers=history.lowers, options=history.options)
    share = Share((Turn(TOP, group, (1,)),), history.options)
    with mount_union(history.configuration(), share, arena.mountpoint, heard, arena.lay) as union:
        player = _Player(union, heard)
        for step in history.steps:
            player.take(step)
            if heard.complaints:
                break
        if heard.complaints:
            heard.complaints += [f"kernel log: {line}" for line in union.log.trouble()]
        else:
            union.finish(())
    return Played(tuple(heard.complaints), tuple(heard.steps), heard.operations)


class _Heard:
    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.steps: list[str] = []
        self.operations = 0

    def __call__(self, event: Event) -> None:
        match event:
            case OperationStarted(reproducer):
                self.steps.append(reproducer)
                self.operations += 1
            case Checked(clause, what, complaints):
                self.complaints += [f"{clause}: {what}: {line}" for line in complaints]
            case ScenarioEnded(outcome=Outcome.FAILED | Outcome.ERROR, complaints=complaints):
                self.complaints += complaints


class _Player:
    def __init__(self, union: Union, heard: _Heard) -> None:
        self._union = union
        self._judge = union.judge
        self._model = union.judge.model
        self._heard = heard
        self._runner = Runner(union.judge, None, heard, stated=False, lists=False)
        # In `detach` rotations are another thing.
        self._settings = replace(union.configuration, rotations=None)

    def take(self, step: Step) -> None:
        """One step, and what must hold after it."""
        if not isinstance(step, Operation):
            self._heard.steps.append(f"- {step}")
        may = self._operate(step) if isinstance(step, Operation) else self._special(step)
        self._tell("D4, D5", "only what needs no lower is opaque", self._marks(may))

    def _tell(self, clause: str, what: str, complaints: Collection[str]) -> None:
        self._heard(Checked(clause, what, tuple(complaints)))

    def _marks(self, may: Collection[DirectoryInode] = ()) -> list[str]:
        if self._heard.complaints or not self._model.renumbers:
            return []
        return compare_marks(self._model, self._judge.witness, may)

    def _operate(self, operation: Operation) -> Collection[DirectoryInode]:
        """The directories that may have turned opaque by it."""
        scenario = Scenario(operation.word, lambda _: (operation,))
        self._runner.run_turn(Turn(TOP, replace(NOTHING, scenarios=(scenario,)), (1,)), "")
        if self._heard.complaints or not isinstance(operation, ListDirectory) or self._model.apply(operation).errno:
            return ()
        directory = listed(self._model, operation)
        if operation.unprivileged:  # it may do the marking (D15)
            return (directory,)
        list_whole(self._model, directory)
        self._tell("D4", "listed to its end", self._marks())
        self._tell("D3", "each entry is listed once, with its number", self._judge.listing(str(operation.path)))
        return ()

    def _special(self, step: Special) -> Collection[DirectoryInode]:
        match step:
            case ListStart() | ListRest() | ListAround():
                return self._list(step)
            case ListAll():
                self._list_all()
            case Migrate():
                self._detach(replace(self._settings, migrate="dfs"))
            case DropCaches():
                syscalls.drop_caches()
            case Remount(rotates):
                self._remount(rotates)
            case Fence(unready):
                self._fence(unready)
            case Forge(path, opaque):
                self._forge(Path(self._judge.witness.upperdir, path), opaque)
        return ()

    def _list_all(self) -> None:
        for path, inode in list(self._model.walk()):
            if isinstance(inode, DirectoryInode):
                self._tell("D3, D8", "each name is listed once", self._judge.listing(path))
                list_whole(self._model, inode)

    def _remount(self, rotates: bool) -> None:
        # The judge must have seen what was in upper, which may get another number by a rotation.
        self._tell("D2", "before it is mounted again", self._judge.tree(look=Look.GLANCE))
        try:
            self._union.cycler.remount(rotating=rotates)
        except MountRefused as refused:
            self._tell("D11", "the union can be mounted again", [str(refused)])
            return
        self._model.remounted()
        self._tell("D2, D11", "mounted again it is the same", self._judge.tree(look=Look.GLANCE))

    def _fence(self, unready: bool) -> None:
        if not (unready or is_detached(self._model)):
            self._heard.steps[-1] = "- no fence: a lower is needed"
            return
        self._detach(replace(self._settings, migrate="none", fence="shutdown"))
        self._union.configuration = replace(self._settings, migrate="none" if unready else "dfs", fence="shutdown")

    def _detach(self, settings: Configuration) -> None:
        detach(settings, self._union.overlay, self._judge, self._union.cycler, self._heard)

    def _forge(self, directory: Path, opaque: bool) -> None:
        if opaque:
            os.setxattr(directory, OPAQUE, b"y")
        else:
            os.removexattr(directory, OPAQUE)

    # parts of a listing

    def _list(self, step: ListStart | ListRest | ListAround) -> Collection[DirectoryInode]:
        """The directories that may have turned opaque by it."""
        place = self._model.find(step.path)
        if place is None or not isinstance(place.inode, DirectoryInode):
            # A kernel may have refused to move it to where it should be.
            self._heard.steps[-1] = f"- no listing: {step.path} is no directory"
            return ()
        try:
            if isinstance(step, ListAround):
                return self._list_around(step, place.inode)
            self._list_part(step, place.inode)
        except OSError as error:
            self._tell("D9", str(step), [errno.errorcode.get(error.errno or 0, str(error))])
        return (place.inode,)

    def _list_part(self, step: ListStart | ListRest, directory: DirectoryInode) -> None:
        with self._opened(step.path) as fd, self._opened(step.path) as other:
            entries = _some(fd, step.entries)
            if isinstance(step, ListRest) and entries:
                os.lseek(other, entries[-1].after, os.SEEK_SET)
            if isinstance(step, ListRest):
                entries += _rest(other)
                self._tell("D8", "in two parts", _differences(step.path, entries, directory.entries))

    def _list_around(self, step: ListAround, directory: DirectoryInode) -> Collection[DirectoryInode]:
        before = dict(directory.entries)
        with self._opened(step.path) as fd:
            entries = _some(fd, step.entries)
            self._tell("D4, D5", "only what needs no lower is opaque", self._marks((directory,)))
            may = self._operate(step.meanwhile)
            if self._heard.complaints or directory not in directories(self._model.root):
                return may
            entries += _rest(fd)
        after = directory.entries
        moved = {os.path.basename(name) for name in step.meanwhile.names()} | (before.keys() ^ after.keys())
        sure = {name: inode for name, inode in after.items() if name not in moved}
        seen = [entry for entry in entries if entry.name not in moved]
        self._tell("D6, D8", "while names change", _differences(step.path, seen, sure))
        return (*may, directory)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = os.open(f"{self._judge.witness.root}/{path}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def _some(fd: int, count: int) -> list[Cookie]:
    """The first `count` entries, one by one as long as their names are short."""
    entries: list[Cookie] = []
    while len(entries) < count and (some := _next(fd)):
        entries += some
    return entries


def _next(fd: int) -> list[Cookie]:
    try:
        return namecalls.getdents(fd, _ONE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return namecalls.getdents(fd, _LONG)


def _rest(fd: int) -> list[Cookie]:
    entries: list[Cookie] = []
    while some := namecalls.getdents(fd, _LONG):
        entries += some
    return entries


def _differences(path: str, seen: Sequence[Cookie], wanted: Mapping[str, Inode]) -> list[str]:
    """What is listed although it must not be, or not exactly once with its type."""
    given = Counter((entry.name, entry.type) for entry in seen if entry.name not in (".", ".."))
    must = Counter((name, inode.TYPE >> 12) for name, inode in wanted.items())
    found = [f"{path}: lists {name} with d_type {kind} once too often" for name, kind in given - must]
    return [*found, *(f"{path}: {name} with d_type {kind} is not listed" for name, kind in must - given)]
