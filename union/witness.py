# SPDX-License-Identifier: GPL-2.0-only
"""What did happen: looks at the union and at its upper layer, and never at the model."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from datasets.acl import XFS_NAMES
from union import namecalls, syscalls
from union.syscalls import Dirent

OPAQUE = "trusted.overlay.opaque"
OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
MAX_CONTENT = 64 * 1024  # bytes of a file that are read to be compared


@dataclass(frozen=True, slots=True)
class UpperState:
    """One name in the upper layer: absent (`mode` 0), a whiteout, or an object (`opaque` directories)."""

    mode: int = 0
    whiteout: bool = False
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """One name in the union: the errno of lstat, or what the object looks like."""

    error: int
    status: os.stat_result | None = None
    content: bytes | None = None
    target: str | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


class Witness:
    """Looks at names of the union mounted at `root` whose upper layer is `upperdir`."""

    def __init__(self, root: str, upperdir: str) -> None:
        self.root = root
        self.upperdir = upperdir

    def observe(self, path: str, *, glance: bool = False) -> Observation:
        """Look at the name itself (a symlink is not followed); any errno is part of what is seen.

        A `glance` is lstat alone: no content, target or xattrs.
        """
        where = f"{self.root}/{path}" if path else self.root
        try:
            status = os.lstat(where)
        except OSError as error:
            return Observation(error.errno or errno.EIO)
        if glance:
            return Observation(0, status)
        try:
            xattrs = _xattrs(where)
            target = os.readlink(where) if stat.S_ISLNK(status.st_mode) else None
            content = _read(where) if stat.S_ISREG(status.st_mode) else None
        except OSError as error:
            return Observation(error.errno or errno.EIO)
        return Observation(0, status, content, target, xattrs)

    def flags(self, path: str) -> int:
        """The flags of FS_IOC_GETFLAGS that an overlay keeps; raises OSError."""
        return namecalls.get_flags(f"{self.root}/{path}") & namecalls.KEPT_FLAGS

    def upper(self, path: str) -> UpperState:
        """Look at the same name in the upper layer; raises OSError if that layer fails."""
        where = f"{self.upperdir}/{path}" if path else self.upperdir
        try:
            status = os.lstat(where)
        except (FileNotFoundError, NotADirectoryError):
            return UpperState()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return UpperState(status.st_mode, whiteout=True)
        return UpperState(status.st_mode, opaque=stat.S_ISDIR(status.st_mode) and is_opaque(where))

    def listing(self, path: str) -> list[Dirent]:
        """All entries of a directory of the union, `.` and `..` included; raises OSError."""
        fd = os.open(f"{self.root}/{path}" if path else self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return syscalls.getdents(fd)
        finally:
            os.close(fd)


def is_opaque(where: str) -> bool:
    """Whether the upper directory `where` hides all lowers (`y`; `x` only announces whiteouts by xattr)."""
    try:
        return os.getxattr(where, OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise


def _xattrs(where: str) -> dict[str, bytes]:
    """Nearly every object has none, so that this is one system call."""
    keys = os.listxattr(where, follow_symlinks=False)
    return {key: os.getxattr(where, key, follow_symlinks=False) for key in keys if key not in XFS_NAMES}


def _read(where: str) -> bytes:
    fd = os.open(where, os.O_RDONLY)
    try:
        return os.read(fd, MAX_CONTENT)
    finally:
        os.close(fd)
