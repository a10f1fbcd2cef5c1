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

OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
MAX_CONTENT = 16 << 20  # bytes of a file that are read to be compared
FIRST_READ = 64 << 10  # what nearly every file fits into: one call is enough to see its end


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

    def __init__(self, root: str, upperdir: str, *, namespace: str = "trusted") -> None:
        """`namespace` is where the overlay keeps its xattrs: `user` with the option userxattr."""
        self.root = root
        self.upperdir = upperdir
        self.namespace = namespace

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
        return UpperState(status.st_mode, opaque=stat.S_ISDIR(status.st_mode) and is_opaque(where, self.namespace))

    def listing(self, path: str) -> list[Dirent]:
        """All entries of a directory of the union, `.` and `..` included; raises OSError."""
        fd = os.open(f"{self.root}/{path}" if path else self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return syscalls.getdents(fd)
        finally:
            os.close(fd)


def is_opaque(where: str, namespace: str = "trusted") -> bool:
    """Whether the upper directory `where` hides all lowers (`y`; `x` only announces whiteouts by xattr)."""
    try:
        return os.getxattr(where, f"{namespace}.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise


def _xattrs(where: str) -> dict[str, bytes]:
    """Nearly every object has none, so that this is one system call."""
    try:
        keys = os.listxattr(where, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # the object is on a filesystem that has none
            return {}
        raise
    return {key: os.getxattr(where, key, follow_symlinks=False) for key in keys if key not in XFS_NAMES}


def _read(where: str) -> bytes:
    fd = os.open(where, os.O_RDONLY)
    try:
        content = os.read(fd, FIRST_READ)
        if len(content) == FIRST_READ:
            while len(content) < MAX_CONTENT and (more := os.read(fd, MAX_CONTENT)):
                content += more
        return content
    finally:
        os.close(fd)
