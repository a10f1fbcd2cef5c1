# SPDX-License-Identifier: GPL-2.0-only
"""What a union must still show after a power cut, and disks whose content can be put back (D12)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets.layers import METACOPY, REDIRECT
from union.inodes import CAPABILITY
from union.marks import ORIGIN
from union.portrait import Portrait, differences, portrait
from union.witness import is_opaque

CHUNK: Final = 16 << 10  # bytes
SHOWN: Final = 600  # characters of a complaint: a whole file may differ


@dataclass(frozen=True, slots=True)
class Original:
    """A union before its migration: all that it shows, and more about each name but those of directories.

    A directory's time is put back after an entry is copied up, and a cut may come between the two.
    """

    tree: Portrait
    times: Mapping[str, int]  # nanoseconds
    groups: Mapping[str, str]  # the first name of the same hard link; each itself where the union breaks hard links

    @classmethod
    def of(cls, point: str, *, linked: bool = False) -> Original:
        """What is mounted there now; its hard links too if it keeps them when it is `linked` by an index.

        Raises OSError.
        """
        tree = portrait(point)
        times, groups, first = {}, {}, dict[int, str]()
        for name, seen in sorted(tree.items()):
            if not seen.error and not stat.S_ISDIR(seen.mode):
                status = os.lstat(f"{point}/{name}")
                times[name] = status.st_mtime_ns
                groups[name] = first.setdefault(status.st_ino, name) if linked else name
        return cls(tree, times, groups)

    def regular(self) -> list[str]:
        """The names of all regular files, sorted."""
        return sorted(name for name, seen in self.tree.items() if stat.S_ISREG(seen.mode))

    def losses(self, point: str, unsettled: str | None = None, *, linked: bool = False) -> list[str]:
        """How the union mounted there differs from it, a line for each way.

        Of the `unsettled` name mtime and capabilities may.
        """
        try:
            now = Original.of(point, linked=linked)
        except OSError as error:
            return [str(error)]
        found = []
        moved = [name for name in self.times if self.times[name] != now.times.get(name) and name != unsettled]
        if moved:
            found.append(f"mtime of {', '.join(moved)}")
        if now.groups != self.groups:
            found.append(f"hard links {now.groups} instead of {self.groups}")
        got, wanted = _settled(now.tree, unsettled), _settled(self.tree, unsettled)
        if got != wanted:
            found.append(differences(got, wanted)[:SHOWN])
        return found

    def hidden(self, upper: str) -> list[str]:
        """Names that the upper layer hides although only lower has them or their data, a line for each.

        Each directory that is marked opaque must have all that the union showed: files with their data, directories
        that look for nothing below themselves.
        """
        opaque = {name for name, seen in self.tree.items() if stat.S_ISDIR(seen.mode) and _marked(upper, name)}
        found = []
        for name, seen in sorted(self.tree.items()):
            parent = os.path.dirname(name)
            if not name or parent not in opaque:
                continue
            path = f"{upper}/{name}"
            if not os.path.lexists(path):
                found.append(f"{parent or os.curdir} is opaque over {name}, which upper has not")
            elif stat.S_ISREG(seen.mode) and not has_data(path):
                found.append(f"{parent or os.curdir} is opaque over {name}, whose data upper has not")
            elif stat.S_ISDIR(seen.mode) and name not in opaque and _looks_below(path):
                found.append(f"{parent or os.curdir} is opaque over {name}, which is not")
        return found


def has_data(path: str) -> bool:
    """Whether a layer has the file and its data, not only its metadata."""
    return os.path.lexists(path) and METACOPY not in os.listxattr(path)


def _looks_below(path: str) -> bool:
    """Whether an upper directory without a mark needs its parent's lower: one made in an opaque directory has no
    origin, and one that was moved there has a redirect, which is followed all the same.
    """
    marks = os.listxattr(path)
    return ORIGIN in marks and REDIRECT not in marks


def _marked(upper: str, name: str) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return is_opaque(f"{upper}/{name}" if name else upper)
    return False


def _settled(tree: Portrait, unsettled: str | None) -> Portrait:
    if unsettled is None or unsettled not in tree:
        return tree
    seen = tree[unsettled]
    kept = tuple(xattr for xattr in seen.xattrs if xattr[0] != CAPABILITY)
    return {**tree, unsettled: seen._replace(xattrs=kept)}


@dataclass(frozen=True, slots=True)
class Disk:
    """The content of an image file: its size in bytes, and pieces of CHUNK bytes by their offset, which is a multiple.

    Those that are all zeroes are left out.
    """

    size: int
    pieces: dict[int, bytes]

    @classmethod
    def of(cls, image: Path) -> Disk:
        """Read it. Raises OSError."""
        pieces = {}
        with image.open("rb", buffering=0) as file:
            fd, size, end = file.fileno(), os.fstat(file.fileno()).st_size, 0
            with suppress(OSError):  # ENXIO: there is no more data
                while end < size:
                    start = os.lseek(fd, end, os.SEEK_DATA)
                    end = os.lseek(fd, start, os.SEEK_HOLE)
                    for at in range(start - start % CHUNK, end, CHUNK):
                        piece = os.pread(fd, CHUNK, at)
                        if piece.count(0) != len(piece):  # mkfs has written zeroes
                            pieces[at] = piece
        return cls(size, pieces)

    def restore(self, image: Path) -> None:
        """Make the file anew with this content; who has the old one open keeps that. Raises OSError."""
        image.unlink(missing_ok=True)
        with image.open("xb", buffering=0) as file:
            file.truncate(self.size)
            for start, piece in self.pieces.items():
                os.pwrite(file.fileno(), piece, start)
