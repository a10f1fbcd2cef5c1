# SPDX-License-Identifier: GPL-2.0-only
"""What operations through held descriptors must do: what a plain filesystem does, and where overlayfs differs."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from union.inodes import DirectoryInode, FileInode, Handle, Inode, LinkInode, Place
from union.operations import (
    Advise,
    Attempt,
    ChangeModeHeld,
    ChangeOwnerHeld,
    Close,
    Hold,
    HoldAt,
    HoldTemporary,
    LinkHeld,
    ListHeld,
    LockHeld,
    LookAtHeld,
    MakeAt,
    MakeDirectory,
    OpenFile,
    Operation,
    ReadHeld,
    RemoveAt,
    RemoveDirectory,
    Reopen,
    Result,
    SameHeld,
    Seek,
    SetStatusFlags,
    SyncHeld,
    TruncateHeld,
    Unlink,
    Value,
    WriteHeld,
)
from union.operations.descriptors import STATUS_FLAGS, described, outcome
from union.rules import classical
from union.rules.common import UMASK, Refusal, Rules, change, check_create, check_open, copy_up, touch_directory, uid_of

if TYPE_CHECKING:
    from union.model import Model


@dataclass(slots=True)
class Descriptor(Handle):
    """An open file description: where the object was when opened, its offset, and what it holds on it.

    `lower` says that the object was not copied up yet; `at_open` is a file's content then. `linkable` is an
    object that has or may get a name.
    """

    place: Place
    lower: bool = False
    at_open: bytes = b""
    offset: int = 0
    linkable: bool = True
    locks: dict[str, str] = field(default_factory=dict)

    def may_use(self) -> None:
        if self.flags & os.O_PATH:
            raise Refusal(errno.EBADF)

    @property
    def writes(self) -> bool:
        return bool(self.flags & os.O_ACCMODE) and not self.flags & os.O_PATH


@dataclass(slots=True)
class Program(Handle):
    """A program that runs."""


@dataclass(slots=True)
class Spare(Handle):
    """What is left free on the filesystem that takes the copies; the object is the file that fills the rest."""

    size: int


def spare(model: Model) -> float:
    """How many bytes are free on the filesystem that takes the copies."""
    return min((held.size for held in model.held.values() if isinstance(held, Spare)), default=math.inf)


def descriptor(model: Model, name: str) -> Descriptor:
    handle = model.held[name]
    assert isinstance(handle, Descriptor), f"{name} is no descriptor"
    return handle


def file_of(handle: Handle) -> FileInode:
    assert isinstance(handle.inode, FileInode), "not a file"
    return handle.inode


def keep(model: Model, name: str, place: Place, flags: int) -> Descriptor:
    """Hold the object at `place`, open with `flags`."""
    inode = place.inode
    assert inode is not None and name not in model.held
    content = inode.content if isinstance(inode, FileInode) else b""
    model.held[name] = held = Descriptor(inode, flags, place, lower=in_lower(model, inode), at_open=content)
    return held


def in_lower(model: Model, inode: Inode) -> bool:
    """Whether the object is served from a lower layer; without one it is on a plain filesystem."""
    return not inode.in_upper and model.root.lower is not None


# opening --------------------------------------------------------------------------------------------


def _hold(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Hold)
    _open(model, operation, operation.held, operation.flags, operation.mode)
    return None


def _open(model: Model, operation: Operation, name: str, flags: int, mode: int) -> None:
    path, uid, follow = str(operation.path), uid_of(operation), not flags & os.O_NOFOLLOW
    exclusive = flags & os.O_CREAT and flags & os.O_EXCL
    before = model.walk_to(path, uid, follow=follow and not exclusive).inode
    if isinstance(before, LinkInode) and not follow and not exclusive:
        if flags & os.O_DIRECTORY:
            raise Refusal(errno.ENOTDIR)
        if not flags & os.O_PATH:
            raise Refusal(errno.ELOOP)
    if flags & os.O_PATH:
        if before is None:
            raise Refusal(errno.ENOENT)
        if flags & os.O_DIRECTORY and not isinstance(before, DirectoryInode):
            raise Refusal(errno.ENOTDIR)
    else:
        if before is not None:
            _check_sharing(model, before, flags)
        opening = OpenFile(path=operation.path, flags=flags, mode=mode, unprivileged=operation.unprivileged)
        classical.RULES[OpenFile](model, opening)
    keep(model, name, model.walk_to(path, uid, follow=follow), flags)


def _check_sharing(model: Model, inode: Inode, flags: int) -> None:
    """A program that runs is not written, and an open that a lease is in the way of waits or fails."""
    writes = bool(flags & (os.O_ACCMODE | os.O_TRUNC))
    for other in model.held.values():
        if other.inode is not inode:
            continue
        if isinstance(other, Program) and writes:
            raise Refusal(errno.ETXTBSY)
        lease = other.locks.get("lease") if isinstance(other, Descriptor) else None
        if lease == "exclusive" or (lease == "shared" and writes):
            assert flags & os.O_NONBLOCK, "the open would wait for the lease"
            raise Refusal(errno.EWOULDBLOCK)


def _in_directory(model: Model, name: str, path: str) -> None:
    """Check that the held directory can be used to get at `path`, which lies in it."""
    directory = model.held[name].inode
    if not isinstance(directory, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    if directory.nlink == 0:
        raise Refusal(errno.ENOENT)
    place = model.find(os.path.dirname(path))
    assert place is not None and place.inode is directory, f"{path} is not in the directory held as {name}"


def _hold_at(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, HoldAt)
    _in_directory(model, operation.directory, operation.path)
    _open(model, operation, operation.held, operation.flags, operation.mode)
    return None


def _make_at(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, MakeAt)
    _in_directory(model, operation.directory, operation.path)
    return classical.RULES[MakeDirectory](model, MakeDirectory(path=operation.path))


def _remove_at(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, RemoveAt)
    _in_directory(model, operation.directory, operation.path)
    if operation.removes_directory:
        return classical.RULES[RemoveDirectory](model, RemoveDirectory(path=operation.path))
    return classical.RULES[Unlink](model, Unlink(path=operation.path))


def _reopen(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Reopen)
    source = descriptor(model, operation.source)
    check_open(source.inode, operation.flags, uid_of(operation))
    if operation.flags & (os.O_ACCMODE | os.O_TRUNC):
        _copied_up(model, source)
    if operation.flags & os.O_TRUNC:
        change(file_of(source), b"")
    keep(model, operation.held, source.place, operation.flags)
    return None


def _hold_temporary(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, HoldTemporary)
    place, directory = model.existing(operation, follow=True)
    if not isinstance(directory, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    uid = uid_of(operation)
    inside = Place([*place.above, directory], "", None, False)
    check_create(inside, uid)
    copy_up(place)
    inode = FileInode(mode=operation.mode & ~UMASK, uid=uid, gid=uid, nlink=0, in_upper=True)
    inside.inode = inode
    keep(model, operation.held, inside, os.O_RDWR).linkable = not operation.exclusive
    return None


def _link_held(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, LinkHeld)
    held = descriptor(model, operation.held)
    to = model.walk_to(str(operation.path), 0, follow=False)
    if to.inode is not None:
        raise Refusal(errno.EEXIST)
    if isinstance(held.inode, DirectoryInode):
        raise Refusal(errno.EPERM)
    temporary = not held.place.name
    if held.inode.nlink == 0 and not (temporary and held.linkable):
        raise Refusal(errno.ENOENT)
    copy_up(held.place)
    held.inode.nlink += 1
    held.linkable = False  # from now on it counts whether it has a name
    to.parent.entries[to.name] = held.inode
    touch_directory(to)
    return None


def _close(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Close)
    held = model.held.pop(operation.held)
    if isinstance(held, Spare):
        change(file_of(held), file_of(held).content)
    return None


# reading and writing --------------------------------------------------------------------------------


def _read(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ReadHeld)
    held = descriptor(model, operation.held)
    held.may_use()
    if held.flags & os.O_ACCMODE == os.O_WRONLY:
        raise Refusal(errno.EBADF)
    if isinstance(held.inode, DirectoryInode):
        raise Refusal(errno.EISDIR)
    # Since Linux 4.19 a descriptor reads what others wrote after the copy-up.
    content = file_of(held).content
    start = held.offset if operation.at is None else operation.at
    part = content[start:] if operation.length is None else content[start : start + operation.length]
    if operation.at is None:
        held.offset += len(part)
    return part


def patch(inode: FileInode, data: bytes, at: int) -> None:
    """Write `data` at `at`; what is left out before it reads as zeroes."""
    before = inode.content[:at].ljust(at, b"\0")
    change(inode, before + data + inode.content[at + len(data) :])


def _write(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, WriteHeld)
    held = descriptor(model, operation.held)
    if not held.writes:
        raise Refusal(errno.EBADF)
    inode = file_of(held)
    at = held.offset if operation.at is None else operation.at
    if held.flags & os.O_APPEND:
        at = len(inode.content)  # for pwrite(2) too, see its page
    patch(inode, operation.data, at)
    if operation.at is None:
        held.offset = at + len(operation.data)
    return None


def _seek(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Seek)
    held = descriptor(model, operation.held)
    held.may_use()
    size = len(file_of(held).content)
    base = {os.SEEK_SET: 0, os.SEEK_CUR: held.offset, os.SEEK_END: size}[operation.whence]
    if base + operation.at < 0:
        raise Refusal(errno.EINVAL)
    held.offset = base + operation.at
    return held.offset


def _list(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ListHeld)
    held = descriptor(model, operation.held)
    held.may_use()
    if not isinstance(held.inode, DirectoryInode):
        raise Refusal(errno.ENOTDIR)
    if held.inode.nlink == 0:
        raise Refusal(errno.ENOENT)
    return " ".join(sorted(held.inode.entries))


def _look(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, LookAtHeld)
    held = descriptor(model, operation.held)
    what = described(held.inode.TYPE | held.inode.mode)
    if not isinstance(held.inode, FileInode):
        return what
    # The link count of an object that is not copied up is that in lower, where its name still is (kernel doc,
    # inode properties).
    own = not in_lower(model, held.inode)
    links = held.inode.nlink if own else max(held.inode.nlink, 1)
    return f"{what}, {len(held.inode.content)} bytes, {links} links"


def _same(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SameHeld)
    _, inode = model.existing(operation, follow=False)
    return "same" if model.held[operation.held].inode is inode else "another"


# changing -------------------------------------------------------------------------------------------


def _copied_up(model: Model, held: Descriptor) -> Inode:
    """The object, after a change of its attributes that copies it up."""
    if held.inode.nlink == 0 and in_lower(model, held.inode):
        # There is no name to copy it up to: the whiteout is in the way.
        raise Refusal(errno.EEXIST)
    copy_up(held.place)
    return held.inode


def _chmod(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ChangeModeHeld)
    held = descriptor(model, operation.held)
    held.may_use()
    _copied_up(model, held).mode = operation.mode
    return None


def _chown(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, ChangeOwnerHeld)
    held = descriptor(model, operation.held)
    held.may_use()
    inode = _copied_up(model, held)
    inode.uid, inode.gid = operation.uid, operation.gid
    return None


def _truncate(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, TruncateHeld)
    held = descriptor(model, operation.held)
    held.may_use()
    if not held.writes:
        raise Refusal(errno.EINVAL)
    inode = file_of(held)
    change(inode, inode.content[: operation.size].ljust(operation.size, b"\0"))
    return None


def _set_flags(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SetStatusFlags)
    held = descriptor(model, operation.held)
    held.may_use()
    held.flags = held.flags & ~STATUS_FLAGS | operation.flags
    return held.flags & STATUS_FLAGS


def _only_use(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, SyncHeld | Advise)
    descriptor(model, operation.held).may_use()
    return None


def _lock(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, LockHeld)
    held, kind, lock = descriptor(model, operation.held), operation.kind, operation.lock
    held.may_use()
    reads = held.flags & os.O_ACCMODE != os.O_WRONLY
    if kind == "ofd" and ((lock == "exclusive" and not held.writes) or (lock == "shared" and not reads)):
        raise Refusal(errno.EBADF)
    others = [
        other
        for other in model.held.values()
        if other is not held and other.inode is held.inode and isinstance(other, Descriptor)
    ]
    if kind == "lease":
        open_too = [other for other in others if lock == "exclusive" or other.writes]
        if lock != "none" and (open_too or (lock == "shared" and held.writes)):
            raise Refusal(errno.EAGAIN)
    elif any(lock != "none" and "exclusive" in (lock, other.locks[kind]) for other in others if kind in other.locks):
        raise Refusal(errno.EAGAIN)
    held.locks.pop(kind, None)
    if lock != "none":
        held.locks[kind] = lock
    return None


def _attempt(model: Model, operation: Operation) -> Value:
    assert isinstance(operation, Attempt)
    place = model.find(operation.what.path)
    inode = place.inode if place else None
    if isinstance(inode, FileInode) and in_lower(model, inode) and len(inode.content) > spare(model):
        return outcome(Result(errno.ENOSPC))  # all that is attempted then copies up
    return outcome(Result(model.apply(operation.what).errno))


RULES: Rules = {
    Attempt: _attempt,
    Hold: _hold,
    HoldAt: _hold_at,
    MakeAt: _make_at,
    RemoveAt: _remove_at,
    Reopen: _reopen,
    HoldTemporary: _hold_temporary,
    LinkHeld: _link_held,
    Close: _close,
    ReadHeld: _read,
    WriteHeld: _write,
    Seek: _seek,
    ListHeld: _list,
    LookAtHeld: _look,
    SameHeld: _same,
    ChangeModeHeld: _chmod,
    ChangeOwnerHeld: _chown,
    TruncateHeld: _truncate,
    SetStatusFlags: _set_flags,
    SyncHeld: _only_use,
    Advise: _only_use,
    LockHeld: _lock,
}
