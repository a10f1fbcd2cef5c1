# SPDX-License-Identifier: GPL-2.0-only
"""What the families about marked layers share: words for layers, and calls that a trial states the errno of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File
from union.stand import Stand

ONE_LOWER: Final = "lowerdir={l},upperdir={u},workdir={w}"
TWO_LOWERS: Final = "lowerdir={k}:{l},upperdir={u},workdir={w}"


def layers(stand: Stand, **trees: Directory) -> None:
    """Layers of these trees, with an empty upper u and an empty work directory w if nothing else is said."""
    stand.layers(**{"u": Directory(), "w": Directory(), **trees})


def hollow(size: int, redirect: bytes | None = None, mark: bytes = b"", mode: int = 0o644) -> File:
    """A copy of metadata alone: the data is elsewhere, at `redirect` if that is said."""
    marks = {METACOPY: mark} if redirect is None else {METACOPY: mark, REDIRECT: redirect}
    return File(bytes(size), mode, xattrs=marks)


def read(path: str) -> bytes:
    """The whole content of a file."""
    return Path(path).read_bytes()


def overwrite(path: str, text: bytes = b"new") -> None:
    """Put other content into a file that is there."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def open_for_writing(path: str) -> None:
    """What copies a file up with its data, and changes nothing."""
    os.close(os.open(path, os.O_RDWR))


def xattr(path: str, name: str) -> bytes | None:
    """The xattr of a layer's object, None if there is none."""
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def names(path: str) -> set[str]:
    """What a directory lists."""
    return set(os.listdir(path))
