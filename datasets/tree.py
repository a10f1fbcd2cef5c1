# SPDX-License-Identifier: GPL-2.0-only
"""A tree of files as a value, and the one function that makes it real.

The description does no I/O, so the model can start from the very object that the lower layer was
written from.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SPECIAL_BITS = 0o7000  # suid, sgid and sticky: mkdir ignores two of them, chown clears them
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
SPARSE_SIZE: Final = 64 << 10  # from this size on the chunks of a file that are all zeroes are left out as holes
SPARSE_CHUNK: Final = 64 << 10

# What `flags` may hold, of FS_IOC_SETFLAGS (chattr(1)).
IMMUTABLE: Final = 0x10
APPEND_ONLY: Final = 0x20
NODUMP: Final = 0x40
NOATIME: Final = 0x80


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: its whole content, permission bits (octal 0 to 7777) and numeric owner.

    All nodes: `xattrs` by full name, ACLs and capabilities as the kernel stores them (an ACL must fit
    `mode`); `mtime` in nanoseconds, the time of writing if None; `flags` of FS_IOC_SETFLAGS.
    """

    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link: its target as stored, never resolved, and its numeric owner."""

    target: str
    uid: int = 0
    gid: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Special:
    """A fifo, socket, character or block device: `type` is its S_IFMT bits, `rdev` for devices alone."""

    type: int
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class HardLink:
    """Another name of a non-directory: `to` is relative to the directory the name is in, may go up by `..`,
    and comes earlier in the tree."""

    to: str


@dataclass(frozen=True, slots=True)
class Whiteout:
    """What hides the name in all layers below: a character device 0:0. It needs no privilege."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory: its entries by name (no slashes), permission bits and numeric owner.

    `parts` is how many directories of several layers it stands for, `below` what it shows without the topmost of
    them, if that is known, see `datasets.layers`.
    """

    entries: Mapping[str, Node] = field(default_factory=dict)
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int | None = None
    flags: int = 0
    parts: int = field(default=1, compare=False)
    below: Directory | None = field(default=None, compare=False)


Object = File | Symlink | Special | Directory
"""What has an owner and attributes of its own."""
Node = Object | HardLink | Whiteout


def link_target(path: str, link: HardLink) -> str:
    """The path of the object that the hard link at `path` is another name of."""
    return os.path.normpath(os.path.join(os.path.dirname(path), link.to))


def walk(directory: Directory) -> Iterator[tuple[str, Node]]:
    """Every object below `directory` with its relative path, each directory before its entries.

    The directory itself is not among them. Siblings come in the order of the mapping.
    """
    return _walk(directory, "")


def _walk(directory: Directory, prefix: str) -> Iterator[tuple[str, Node]]:
    for name, node in directory.entries.items():
        path = prefix + name
        yield path, node
        if isinstance(node, Directory):
            yield from _walk(node, path + "/")


def write(directory: Directory, root: Path) -> None:
    """Make the entries of `directory` below the existing, empty directory `root`.

    Modes and owners become exactly what is stated, whatever the umask; `root` itself keeps its own.
    Raises OSError, with the path relative to `root`, for what the filesystem refuses
    (FileExistsError if `root` is not empty, PermissionError for foreign owners without privilege).

    All paths are relative to one descriptor of `root` and nothing is opened but files with content:
    in a slow guest the number of system calls is what this costs.
    """
    writer = _Writer(os.geteuid(), os.getegid())
    mask = os.umask(0)  # makes the mode of every creating call exact, so chmod is not needed
    try:
        writer.dir_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            writer.entries(directory, "")
        finally:
            os.close(writer.dir_fd)
    finally:
        os.umask(mask)


class _Writer:
    """Writes nodes relative to `dir_fd`; `uid` and `gid` are what new objects get by themselves."""

    __slots__ = ("dir_fd", "owner")

    def __init__(self, uid: int, gid: int) -> None:
        self.owner = (uid, gid)
        self.dir_fd = -1

    def entries(self, directory: Directory, prefix: str) -> None:
        for name, node in directory.entries.items():
            path = prefix + name
            if isinstance(node, HardLink):
                to = link_target(path, node)
                os.link(to, path, src_dir_fd=self.dir_fd, dst_dir_fd=self.dir_fd, follow_symlinks=False)
            elif isinstance(node, Whiteout):
                os.mknod(path, stat.S_IFCHR, 0, dir_fd=self.dir_fd)
            else:
                self._make(path, node)
                self._attributes(path, node)

    def _make(self, path: str, node: Object) -> None:
        if isinstance(node, File):
            self._file(path, node)
        elif isinstance(node, Symlink):
            os.symlink(node.target, path, dir_fd=self.dir_fd)
            self._chown(path, node)
        elif isinstance(node, Special):
            os.mknod(path, node.type | node.mode, node.rdev, dir_fd=self.dir_fd)
            self._chown(path, node)
            if node.mode & _SPECIAL_BITS:
                os.chmod(path, node.mode, dir_fd=self.dir_fd)
        else:
            self._directory(path, node)

    def _file(self, path: str, node: File) -> None:
        if node.content:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fd = os.open(path, flags, node.mode, dir_fd=self.dir_fd)
            try:
                if len(node.content) < SPARSE_SIZE:
                    _write(fd, node.content, 0)
                else:
                    _write_sparse(fd, node.content)
            finally:
                os.close(fd)
        else:
            os.mknod(path, 0o100000 | node.mode, dir_fd=self.dir_fd)  # one call instead of open and close
        self._chown(path, node)
        if node.mode & _SPECIAL_BITS:
            os.chmod(path, node.mode, dir_fd=self.dir_fd)

    def _directory(self, path: str, node: Directory) -> None:
        # An unprivileged writer must be able to fill it; root could do without.
        at_first = node.mode | 0o700
        os.mkdir(path, at_first, dir_fd=self.dir_fd)
        self.entries(node, path + "/")
        self._chown(path, node)
        if node.mode & _SPECIAL_BITS or node.mode != at_first:
            os.chmod(path, node.mode, dir_fd=self.dir_fd)

    def _chown(self, path: str, node: Object) -> None:
        if (node.uid, node.gid) != self.owner:
            os.chown(path, node.uid, node.gid, dir_fd=self.dir_fd, follow_symlinks=False)

    def _attributes(self, path: str, node: Object) -> None:
        """What is set last: owner, mode and entries change some of it, flags forbid any change."""
        if node.xattrs:
            where = f"/proc/self/fd/{self.dir_fd}/{path}"  # there is no setxattrat before Linux 6.13
            for name, value in node.xattrs.items():
                os.setxattr(where, name, value, follow_symlinks=False)
        if node.mtime is not None:
            os.utime(path, ns=(node.mtime, node.mtime), dir_fd=self.dir_fd, follow_symlinks=False)
        if isinstance(node, File | Directory) and node.flags:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.dir_fd)
            try:
                # Some filesystems, ext4 for one, insist on flags of their own.
                own = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))[0]
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", own | node.flags))
            except OSError as error:
                raise OSError(error.errno, f"flags {node.flags:#x}: {error.strerror}", path) from error
            finally:
                os.close(fd)


def remove(root: Path) -> None:
    """Remove the directory `root` and all below it, immutable and append-only objects too; raises OSError."""
    try:
        shutil.rmtree(root)
    except PermissionError:
        for directory, _, files in os.walk(root):
            for path in (directory, *(f"{directory}/{name}" for name in files)):
                if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                    _clear_flags(path)
        shutil.rmtree(root)


def _clear_flags(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        own = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", own & ~(IMMUTABLE | APPEND_ONLY)))
    finally:
        os.close(fd)


def _write(fd: int, content: bytes, at: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def _write_sparse(fd: int, content: bytes) -> None:
    zeroes = bytes(SPARSE_CHUNK)
    for at in range(0, len(content), SPARSE_CHUNK):
        chunk = content[at : at + SPARSE_CHUNK]
        if chunk != zeroes[: len(chunk)]:
            _write(fd, chunk, at)
    os.ftruncate(fd, len(content))
