# SPDX-License-Identifier: GPL-2.0-only
"""What a tree holds, in short: enough to tell, from then on, whether what is read of it is right."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from union.errors import SetupError

_CHUNK = 1 << 20  # bytes read at once


class Entry(NamedTuple):
    """An object: its mode with the type, its size in bytes, and `what`: a file's SHA-256, a symlink's target.

    `links` is how many names it has.
    """

    mode: int
    size: int
    what: str = ""
    links: int = 1

    @property
    def is_file(self) -> bool:
        """Whether it has content."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it has names."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symlink."""
        return stat.S_ISLNK(self.mode)


Image = Mapping[str, Entry]
"""All objects of a tree by their paths, which are relative; the root is "."."""


def read(tree: Path) -> dict[str, Entry]:
    """Take the tree in, each directory before what is in it. Raises SetupError when some of it cannot be read."""
    try:
        return dict(_walk(str(tree), "."))
    except OSError as error:
        raise SetupError(f"the image cannot be read: {error.filename}: {error.strerror}") from error


def _walk(root: str, path: str) -> Iterator[tuple[str, Entry]]:
    here = root if path == "." else f"{root}/{path}"
    found = os.lstat(here)
    if found.st_dev != os.lstat(root).st_dev:
        raise SetupError(f"the image must lie on one filesystem, and {path} is on another")
    yield path, Entry(found.st_mode, 0)
    for name in sorted(os.listdir(here)):
        below = name if path == "." else f"{path}/{name}"
        found = os.lstat(f"{root}/{below}")
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(root, below)
        elif stat.S_ISREG(found.st_mode):
            yield below, Entry(found.st_mode, found.st_size, digest(f"{root}/{below}"), found.st_nlink)
        elif stat.S_ISLNK(found.st_mode):
            yield below, Entry(found.st_mode, found.st_size, os.readlink(f"{root}/{below}"))
        else:
            yield below, Entry(found.st_mode, 0)


def digest(path: str, dir_fd: int | None = None) -> str:
    """The SHA-256 of a file's content. Raises OSError."""
    return hashed(path, dir_fd).hexdigest()


def hashed(path: str, dir_fd: int | None = None) -> hashlib._Hash:
    """The same, to be gone on with."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        found = hashlib.sha256()
        while data := os.read(fd, _CHUNK):
            found.update(data)
        return found
    finally:
        os.close(fd)


def names(image: Image) -> dict[str, set[str]]:
    """The names in each directory."""
    found: dict[str, set[str]] = {path: set() for path, entry in image.items() if entry.is_directory}
    for path in image:
        if path != ".":
            parent, _, name = path.rpartition("/")
            found[parent or "."].add(name)
    return found
