# SPDX-License-Identifier: GPL-2.0-only
"""Idmapped mounts, see mount_setattr(2): owners on disk and owners shown differ by a mapping."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from union import syscalls
from union.stand import Missing, Stand

_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_MOUNT_SETATTR = 428, 429, 442  # the same on every architecture but alpha
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_AT_EMPTY_PATH: Final = 0x1000
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_CLONE_NEWUSER: Final = 0x10000000
_ATTR: Final = struct.Struct("=QQQQ")  # attr_set, attr_clr, propagation, userns_fd

_libc = ctypes.CDLL(None, use_errno=True)


class Mapping(NamedTuple):
    """`ids` ids from `disk` on are shown as those from `shown` on; no other id can be shown."""

    disk: int
    shown: int
    ids: int


def idmapped(stand: Stand, name: str, at: str, mapping: Mapping) -> None:
    """Mount what is at `name` of the stand once more on the new directory `at`, with owners mapped.

    Raises OSError: EINVAL if its filesystem cannot be mapped; Missing if the kernel cannot map mounts.
    """
    point = stand.root / at
    point.mkdir()
    tree = _call(_NR_OPEN_TREE, -1, os.fsencode(stand.path(name)), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    try:
        _map(tree, mapping)
        _call(_NR_MOVE_MOUNT, tree, b"", syscalls.AT_FDCWD, os.fsencode(point), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
    stand.undo(lambda: syscalls.umount(point))


def _map(tree: int, mapping: Mapping) -> None:
    namespace = _user_namespace(mapping)
    try:
        attributes = _ATTR.pack(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        _call(_NR_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    finally:
        os.close(namespace)


def _user_namespace(mapping: Mapping) -> int:
    """A descriptor of a user namespace with this mapping, which a child makes and leaves behind."""
    ready, made = os.pipe()
    leave, gone = os.pipe()
    child = os.fork()
    if not child:
        done = _libc.unshare(_CLONE_NEWUSER)
        os.close(gone)
        os.write(made, b"n" if done else b"y")
        os.read(leave, 1)
        os._exit(0)
    os.close(made)
    os.close(leave)
    try:
        if os.read(ready, 1) != b"y":
            raise Missing("a kernel with user namespaces")
        for kind in ("uid", "gid"):
            Path(f"/proc/{child}/{kind}_map").write_text(f"{mapping.disk} {mapping.shown} {mapping.ids}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(gone)
        os.close(ready)
        os.waitpid(child, 0)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise Missing("a kernel with idmapped mounts")
        raise OSError(code, os.strerror(code))
    return result
