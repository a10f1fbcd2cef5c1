# SPDX-License-Identifier: GPL-2.0-only
"""What an upper layer says of itself: which directories need the lower, which files. Read from its xattrs alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets.reference import SAMPLE_NAME
from union import syscalls

ROOT: Final = "."  # how the root of a union or an upper layer is named in what follows
OURS: Final = frozenset({SAMPLE_NAME})  # names in the root of a union that the suite has put there
LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class OpaqueState:
    """What an upper layer says of itself. Paths are relative, ROOT is its root.

    `opaque`: directories with the mark. `merged`: directories that still look into the lower. `pure`:
    directories without the mark that cannot, since they were made in an opaque directory. `objects`:
    everything below the root but whiteouts and what is hidden. All directories but the root count. `dataless`: files
    whose data is still in a lower layer, if that was looked for.
    """

    opaque: frozenset[str]
    merged: frozenset[str]
    pure: frozenset[str]
    objects: int
    dataless: frozenset[str] = frozenset()

    @property
    def directories(self) -> int:
        """The number of directories that are or were merged, the root included."""
        return len(self.opaque) + len(self.merged)

    @property
    def needy(self) -> frozenset[str]:
        """What needs a lower layer: merged directories, and files without data. Empty: the layer is detached."""
        return self.merged | self.dataless

    @property
    def done(self) -> frozenset[str]:
        """Directories that need no lower layer and have nothing below that does."""
        above: set[str] = set()
        for path in self.needy:
            while path not in above:
                above.add(path)
                path = path.rpartition("/")[0] or ROOT
        return (self.opaque | self.pure) - above


def opaque_state(
    upperdir: Path, *, namespace: str = "trusted", hidden: frozenset[str] = OURS, data: bool = False
) -> OpaqueState:
    """Read the whole upper layer; needs the privilege to read `namespace`.overlay xattrs.

    `hidden` are names in its root that do not count. With `data` each file is asked whether it has its own. Raises
    OSError. Nothing of the lower or the union is touched, and nothing is changed, access times included.
    """
    return Upper(upperdir, namespace, hidden, data).read()


class Upper:
    """An upper layer, read once in full and after that only where a directory is still merged."""

    def __init__(
        self, root: Path, namespace: str = "trusted", hidden: frozenset[str] = OURS, data: bool = False
    ) -> None:
        """See `opaque_state`; nothing is read yet."""
        self._root = root
        self._hidden = hidden
        self._data = data
        self._opaque_key = f"{namespace}.overlay.opaque"
        self._redirect_key = f"{namespace}.overlay.redirect"
        self._metacopy_key = f"{namespace}.overlay.metacopy"
        self._opaque: set[str] = set()
        self.merged: set[str] = set()
        self._pure: set[str] = set()
        self._dataless: set[str] = set()
        self._objects = 0

    def read(self) -> OpaqueState:
        """Walk all of it. What goes away meanwhile does not count. Raises OSError."""
        root_fd = os.open(self._root, LIST_FLAGS | os.O_NOATIME)
        try:
            self._directory(root_fd, ROOT, below_opaque=False)
            waiting = [(entry, ROOT in self._opaque) for entry in self._subdirectories(root_fd, root_fd, "")]
            while waiting:
                path, below_opaque = waiting.pop()
                try:
                    fd = os.open(path, LIST_FLAGS | os.O_NOATIME, dir_fd=root_fd)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                try:
                    opaque = self._directory(fd, path, below_opaque)
                    waiting += [(entry, opaque) for entry in self._subdirectories(root_fd, fd, path + "/")]
                finally:
                    os.close(fd)
        finally:
            os.close(root_fd)
        return self.state()

    def state(self) -> OpaqueState:
        """What is known now."""
        opaque, merged, pure, dataless = map(frozenset, (self._opaque, self.merged, self._pure, self._dataless))
        return OpaqueState(opaque, merged, pure, self._objects, dataless)

    def refresh(self) -> int:
        """Look again at the merged directories, the only ones that can change; the number of opaque ones."""
        turned = {path for path in self.merged if self._marked(f"{self._root}/{path}")}
        self._opaque |= turned
        self.merged -= turned
        return len(self._opaque)

    def _directory(self, fd: int, path: str, below_opaque: bool) -> bool:
        """File the directory under its kind; whether its entries are hidden from the lower."""
        if self._marked(fd):
            self._opaque.add(path)
            return True
        if below_opaque and not xattr(fd, self._redirect_key):
            self._pure.add(path)
            return True
        self.merged.add(path)
        return False

    def _subdirectories(self, root_fd: int, fd: int, prefix: str) -> Iterator[str]:
        """The paths of the directories in `fd`; counts its objects on the way."""
        for name, _ino, kind in syscalls.getdents(fd):
            if name in (".", "..") or (not prefix and name in self._hidden):
                continue
            path = prefix + name
            if kind == syscalls.DT_CHR and _is_null(path, root_fd):
                continue  # a whiteout
            self._objects += 1
            if kind == syscalls.DT_DIR:
                yield path
            elif self._data and kind == syscalls.DT_REG and self._lacks_data(path):
                self._dataless.add(path)

    def _lacks_data(self, path: str) -> bool:
        """Whether the file is a copy of metadata alone; the mark has no value if there is no digest."""
        try:
            os.getxattr(f"{self._root}/{path}", self._metacopy_key, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    def _marked(self, where: str | int) -> bool:
        return xattr(where, self._opaque_key) == b"y"  # "x" says that there are whiteouts kept as xattrs


def _is_null(path: str, root_fd: int) -> bool:
    try:
        return os.stat(path, dir_fd=root_fd, follow_symlinks=False).st_rdev == 0
    except FileNotFoundError:
        return True


def xattr(where: str | int, key: str) -> bytes:
    """The value of an xattr, empty if there is none. Raises OSError."""
    try:
        return os.getxattr(where, key)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        raise
