# SPDX-License-Identifier: GPL-2.0-only
"""What operations that list directories must give."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from union.inodes import DirectoryInode, Handle
from union.operations import (
    GoOnListing,
    ListDirectory,
    Operation,
    SeekBeyond,
    SeekInDirectory,
    StartListing,
    Value,
    marked,
    spelled,
)
from union.rules.common import READ, Refusal, Rules, check_access, uid_of

if TYPE_CHECKING:
    from union.model import Model


LEAST_ROOM = 24  # bytes of a buffer that takes the entry `.`


def _open(model: Model, operation: Operation) -> DirectoryInode:
    _, inode = model.existing(operation, follow=True)
    if not isinstance(inode, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    check_access(inode, uid_of(operation), READ)
    return inode


def _content(directory: DirectoryInode, unsure: frozenset[str] = frozenset()) -> str:
    entries = directory.entries.items()
    return spelled(marked(name, inode.TYPE >> 12) for name, inode in entries if name not in unsure)


def _list(model: Model, operation: Operation) -> Value:
    directory = _open(model, operation)
    if isinstance(operation, ListDirectory) and operation.size < LEAST_ROOM:
        raise Refusal(errno.EINVAL)
    return _content(directory)


def _seek_beyond(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SeekBeyond)
    _open(model, operation)
    if operation.position < 0 or operation.whence not in (os.SEEK_SET, os.SEEK_CUR):
        raise Refusal(errno.EINVAL)
    return None


def _start(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, StartListing)
    model.held[operation.name] = Handle(_open(model, operation), 0)
    return None


def _go_on(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, GoOnListing)
    directory = model.held[operation.name].inode
    assert isinstance(directory, DirectoryInode)
    return _content(directory, operation.unsure)


RULES: Rules = {
    ListDirectory: _list,
    SeekInDirectory: _list,
    SeekBeyond: _seek_beyond,
    StartListing: _start,
    GoOnListing: _go_on,
}
