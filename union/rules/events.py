# SPDX-License-Identifier: GPL-2.0-only
"""What file handles must lead to, and what watches must tell."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from union.inodes import DirectoryInode, FileInode, Handle, Inode
from union.operations import (
    ANYTHING,
    Decode,
    Encode,
    Events,
    ForgetNames,
    HandleEvents,
    OpenFile,
    OpenWithLeave,
    Operation,
    SameHandle,
    Value,
    W,
    Watch,
    WatchHandle,
    WhereHeld,
)
from union.rules import classical
from union.rules.common import Refusal, Rules, check_open
from union.rules.descriptors import in_lower, keep

if TYPE_CHECKING:
    from union.model import Model


# handles --------------------------------------------------------------------------------------------


def _encode(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Encode)
    _, inode = model.existing(operation, follow=False)
    if operation.unsupported:
        raise Refusal(operation.unsupported)
    model.held[operation.handle] = Handle(inode, 0, was_lower=not inode.in_upper)
    return None


def _same_handle(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SameHandle)
    _, inode = model.existing(operation, follow=False)
    handle = model.held[operation.handle]
    if handle.inode is not inode:
        return "another"
    return ANYTHING if model.renumbers and handle.was_lower and inode.in_upper else "same"


def _decode(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Decode)
    inode = model.held[operation.handle].inode
    if operation.marked:
        # The way to a file cannot be found by its handle: overlayfs gives out none that tells it.
        raise Refusal(errno.ESTALE)
    if inode.nlink == 0:
        raise Refusal(errno.ESTALE)
    path = _path_of(model, inode)
    place = model.find(path)
    assert place is not None
    check_open(inode, operation.flags, 0)
    if operation.flags & os.O_ACCMODE and operation.nameless and in_lower(model, inode):
        _copy_up_to_index(model, inode)
    elif operation.flags & os.O_ACCMODE:
        classical.RULES[OpenFile](model, OpenFile(path=operation.path, flags=operation.flags))
    keep(model, operation.held, place, operation.flags)
    return None


def _copy_up_to_index(model: Model, inode: Inode) -> None:
    """Its data is in the upper layer from now on, but under none of its names."""
    inode.beneath = inode.beneath or replace(inode, breaks=False, lower_names=set(), beneath=None)
    inode.lower_names = {place.key for _, place in model.places() if place.inode is inode}
    inode.in_upper = True


def _path_of(model: Model, inode: Inode) -> str:
    return next(path for path, other in model.walk() if other is inode)


def _where(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, WhereHeld)
    return _path_of(model, model.held[operation.held].inode)


def _nothing(model: Model, operation: Operation) -> Value:
    return None


# watches --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watching(Handle):
    """A watch, and what the object looked like when it last told."""

    before: Look


@dataclass(slots=True)
class Look:
    """What an object looks like to a watch; `known` are all objects there were, with their link counts."""

    state: tuple[bytes, int, int, int]  # content, mode, owner
    links: int
    path: str | None
    entries: dict[str, tuple[Inode, tuple[bytes, int, int, int]]]
    known: dict[Inode, int]


def _state(inode: Inode) -> tuple[bytes, int, int, int]:
    content = inode.content if isinstance(inode, FileInode) else b""
    return content, inode.mode, inode.uid, inode.gid


def _look(model: Model, inode: Inode) -> Look:
    paths = {other: path for path, other in model.walk()}
    entries = inode.entries if isinstance(inode, DirectoryInode) else {}
    known = {other: other.nlink for other in paths}
    children = {name: (child, _state(child)) for name, child in entries.items()}
    return Look(_state(inode), inode.nlink, paths.get(inode), children, known)


def _watch(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Watch | WatchHandle)
    _, inode = model.existing(operation, follow=True)
    model.held[operation.held] = Watching(inode, 0, _look(model, inode))
    return None


def _events(model: Model, operation: Operation) -> Value:
    """What must have been told follows from what changed; a change undone in between shows nothing here."""
    assert isinstance(operation, Events | HandleEvents)
    watch = model.held[operation.held]
    assert isinstance(watch, Watching)
    before, now = watch.before, _look(model, watch.inode)
    watch.before = now
    told = _of_state(before.state, now.state)
    if before.links != now.links and not isinstance(watch.inode, DirectoryInode):
        told.add("attrib")
    if isinstance(operation, Events):
        told |= _of_names(before, now, watch.inode)
    return ", ".join(sorted(told))


def _of_state(before: tuple[bytes, int, int, int], now: tuple[bytes, int, int, int]) -> set[str]:
    words = (("modify", before[0] != now[0]), ("attrib", before[1:] != now[1:]))
    return {word for word, differs in words if differs}


def _of_names(before: Look, now: Look, watched: Inode) -> set[str]:
    told = set()
    if before.path != now.path:
        told.add("move_self" if watched.nlink else "delete_self")
    for name in before.entries.keys() | now.entries.keys():
        was, was_state = before.entries.get(name, (None, None))
        child, state = now.entries.get(name, (None, None))
        if was is child and was_state and state:
            told |= {f"{word} {name}" for word in _of_state(was_state, state)}
            continue
        if was is not None and was.nlink and was.nlink == before.known[was]:
            told.add(f"moved_from {name}")
        elif was is not None and child is None:
            told.add(f"delete {name}")
        if child is not None:
            told.add(f"moved_to {name}" if before.known.get(child) == child.nlink else f"create {name}")
    return told


def _open_with_leave(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, OpenWithLeave)
    _, inode = model.existing(operation, follow=True)
    check_open(inode, W, 0)
    if not operation.allow:
        raise Refusal(errno.EPERM)
    classical.RULES[OpenFile](model, OpenFile(path=operation.path, flags=W))
    return None


RULES: Rules = {
    Encode: _encode,
    SameHandle: _same_handle,
    Decode: _decode,
    WhereHeld: _where,
    ForgetNames: _nothing,
    Watch: _watch,
    Events: _events,
    WatchHandle: _watch,
    HandleEvents: _events,
    OpenWithLeave: _open_with_leave,
}
