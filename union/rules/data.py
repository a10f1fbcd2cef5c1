# SPDX-License-Identifier: GPL-2.0-only
"""What operations on data, mappings and programs must do."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from union import filecalls
from union.inodes import DirectoryInode, FileInode, Handle, Inode
from union.operations import (
    Allocate,
    Blocks,
    Digest,
    HolesKept,
    Map,
    NoteHoles,
    Operation,
    ReadByData,
    ReadByExtents,
    ReadMapping,
    Run,
    RunToEnd,
    Squeeze,
    StatFs,
    SyncMapping,
    Transfer,
    Value,
    WriteMapping,
)
from union.operations.data import digest
from union.operations.descriptors import BLOCK
from union.operations.mappings import EXIT_STATUS
from union.rules.common import SEARCH, Refusal, Rules, change, may, uid_of
from union.rules.descriptors import Descriptor, Program, Spare, descriptor, file_of, in_lower, patch, spare

if TYPE_CHECKING:
    from union.model import Model


@dataclass(slots=True)
class Mapping(Handle):
    """Mapped memory of `length` bytes; `own` is its content where that is not the file's."""

    length: int
    shared: bool
    own: bytes | None = None


def _content(model: Model, operation: Operation) -> FileInode:
    _, inode = model.existing(operation, follow=True)
    if isinstance(inode, DirectoryInode):
        raise Refusal(errno.EISDIR)
    assert isinstance(inode, FileInode)
    return inode


def _digest(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Digest | ReadByData | ReadByExtents)
    if isinstance(operation, ReadByExtents) and operation.unsupported:
        raise Refusal(operation.unsupported)
    return digest(_content(model, operation).content)


def _blocks(model: Model, operation: Operation) -> Value:
    """A file is sparse if it has a hole of a block or more, which only those who made it can know."""
    assert isinstance(operation, Blocks)
    _content(model, operation)
    return operation.returns


def _allocate(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Allocate)
    held, at, length = descriptor(model, operation.held), operation.at, operation.length
    held.may_use()
    if length <= 0 or at < 0:
        raise Refusal(errno.EINVAL)
    if not held.writes:
        raise Refusal(errno.EBADF)
    if operation.unsupported:
        raise Refusal(operation.unsupported)
    inode, mode = file_of(held), operation.mode
    size, content = len(inode.content), inode.content
    if length > spare(model):
        change(inode, content)  # some filesystems move the times before they refuse
        raise Refusal(errno.ENOSPC)
    end = size if mode & filecalls.KEEP_SIZE else max(size, at + length)
    if mode & filecalls.COLLAPSE_RANGE:
        if at + length >= size:
            change(inode, content)
            raise Refusal(errno.EINVAL)
        content = content[:at] + content[at + length :]
    elif mode & filecalls.INSERT_RANGE:
        if at >= size:
            change(inode, content)
            raise Refusal(errno.EINVAL)
        content = content[:at] + bytes(length) + content[at:]
    else:
        content = content.ljust(end, b"\0")
        if mode & (filecalls.PUNCH_HOLE | filecalls.ZERO_RANGE):
            content = (content[:at] + bytes(length) + content[at + length :])[:end]
    change(inode, content)
    return None


def _transfer(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Transfer)
    source, target, how = descriptor(model, operation.source), descriptor(model, operation.target), operation.how
    source.may_use()
    if not target.writes and how != "dedupe":  # who may read both may let them share
        raise Refusal(errno.EBADF)
    inode = file_of(target)
    _check_layers(model, source, target, operation)
    if operation.unsupported:
        raise Refusal(operation.unsupported)
    length = operation.length or len(file_of(source).content)
    unaligned = any(at % BLOCK for at in (operation.start, operation.at, length)) and how == "clone"
    overlap = inode is source.inode and abs(operation.start - operation.at) < length
    if unaligned or (overlap and how == "copy_file_range"):
        raise Refusal(errno.EINVAL)
    part = file_of(source).content[operation.start : operation.start + length]
    if how == "dedupe":
        return len(part) if inode.content[operation.at : operation.at + length] == part else None
    patch(inode, part, operation.at)
    if how not in ("copy_file_range", "clone"):
        target.offset = operation.at + len(part)
    return None if how == "clone" else len(part)


def _check_layers(model: Model, source: Descriptor, target: Descriptor, operation: Transfer) -> None:
    """The layers are filesystems of their own: what shares extents or copies in one cannot reach across."""
    if operation.how == "dedupe":
        # It never copies up: that would make two of one.
        if in_lower(model, source.inode) or in_lower(model, target.inode):
            raise Refusal(errno.EPERM)
    elif operation.how in ("copy_file_range", "clone") and in_lower(model, source.inode):
        raise Refusal(errno.EXDEV)


def _note_holes(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, NoteHoles)
    model.held[operation.held] = Handle(_content(model, operation), 0)
    return None


def _holes(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, HolesKept)
    _content(model, operation)
    return "kept"


def _statfs(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, StatFs)
    model.existing(operation, follow=True)
    return "overlay"


def _squeeze(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Squeeze)
    filler = file_of(model.held[operation.filler])
    change(filler, filler.content)  # its times may move
    model.held[operation.held] = Spare(filler, 0, operation.spare)
    return None


# mappings -------------------------------------------------------------------------------------------


def _map(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Map)
    held = descriptor(model, operation.held)
    held.may_use()
    if held.flags & os.O_ACCMODE == os.O_WRONLY:
        raise Refusal(errno.EACCES)
    if operation.shared and operation.writable and not held.writes:
        raise Refusal(errno.EACCES)
    # What a descriptor opened before the copy-up maps is the lower file, for good (kernel doc,
    # non-standard behavior). Nothing ever changes that.
    own = held.at_open[: operation.length] if held.lower else None
    model.held[operation.mapping] = Mapping(held.inode, held.flags, operation.length, operation.shared, own)
    return None


def _mapping(model: Model, name: str) -> Mapping:
    mapping = model.held[name]
    assert isinstance(mapping, Mapping), f"{name} is no mapping"
    return mapping


def _mapped(mapping: Mapping) -> bytes:
    return file_of(mapping).content[: mapping.length] if mapping.own is None else mapping.own


def _read_mapping(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ReadMapping)
    return _mapped(_mapping(model, operation.mapping))


def _write_mapping(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, WriteMapping)
    mapping, at, data = _mapping(model, operation.mapping), operation.at, operation.data
    if mapping.shared:
        patch(file_of(mapping), data, at)
    else:
        # Whether the rest still follows the file is not said: scenarios do not look.
        before = _mapped(mapping)
        mapping.own = before[:at] + data + before[at + len(data) :]
    return None


def _sync_mapping(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SyncMapping)
    _mapping(model, operation.mapping)
    return None


# programs -------------------------------------------------------------------------------------------


def _executable(model: Model, operation: Operation) -> Inode:
    inode = _content(model, operation)
    if not inode.mode & 0o111 or not may(inode, uid_of(operation), SEARCH):
        raise Refusal(errno.EACCES)
    for other in model.held.values():
        if other.inode is inode and isinstance(other, Descriptor) and other.writes:
            raise Refusal(errno.ETXTBSY)
    return inode


def _run(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Run)
    model.held[operation.held] = Program(_executable(model, operation), 0)
    return None


def _run_to_end(model: Model, operation: Operation) -> Value:
    _executable(model, operation)
    return EXIT_STATUS


RULES: Rules = {
    Digest: _digest,
    NoteHoles: _note_holes,
    HolesKept: _holes,
    ReadByData: _digest,
    ReadByExtents: _digest,
    Blocks: _blocks,
    Allocate: _allocate,
    Transfer: _transfer,
    StatFs: _statfs,
    Squeeze: _squeeze,
    Map: _map,
    ReadMapping: _read_mapping,
    WriteMapping: _write_mapping,
    SyncMapping: _sync_mapping,
    Run: _run,
    RunToEnd: _run_to_end,
}
