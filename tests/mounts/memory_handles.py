# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out while file handles are made and opened: the right object, or none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from datasets.tree import Directory
from tests.mounts.out_of_memory import COPY_UP, LOWER, both, chown, cold, disturbed, mkdir, opened
from union import filecalls
from union.faults import Call
from union.filecalls import FileHandle
from union.scenario import Group, Trial, When

EXPORT: Final = "index=on,nfs_export=on"
# A handle that cannot be encoded has no size; one that cannot be decoded is stale.
HANDLES: Final = (*COPY_UP, errno.EOVERFLOW, errno.ESTALE)
CREATE: Final = os.O_CREAT | os.O_RDWR

# Empty: with nfs_export=on a lookup takes an origin that it cannot read for a wrong one, and merges no names of lower.
DIRECTORIES: Final = Directory({"a": Directory({"b": Directory()})})

_known: Final[dict[str, FileHandle]] = {}


def encode(name: str) -> Call:
    """name_to_handle_at(2): its type."""
    return lambda top: filecalls.name_to_handle(f"{top}/{name}").type


def remembered(name: str) -> Call:
    """Make the handle of it that `decode` opens."""

    def call(top: str) -> None:
        _known[top] = filecalls.name_to_handle(f"{top}/{name}")

    return call


def decode(look: Callable[[int], object], flags: int = os.O_RDONLY) -> Call:
    """open_by_handle_at(2), and what a look at the descriptor says."""

    def call(top: str) -> object:
        mount = os.open(os.path.dirname(top), os.O_RDONLY)
        try:
            fd = filecalls.open_by_handle(mount, _known[top], flags)
            try:
                return look(fd)
            finally:
                os.close(fd)
        finally:
            os.close(mount)

    return call


def owner(fd: int) -> int:
    """What tells a copy from another object."""
    return os.fstat(fd).st_uid


def text(fd: int) -> bytes:
    """Its beginning."""
    return os.read(fd, 9)


def encodes(label: str, name: str, before: Call | None = None) -> Trial:
    """The handle is made with memory that runs out."""
    return disturbed(label, encode(name), options=EXPORT, before=before, errors=HANDLES)


def decodes(
    label: str,
    name: str,
    look: Callable[[int], object],
    *before: Call,
    flags: int = os.O_RDONLY,
    below: Directory = LOWER,
) -> Trial:
    """The handle is opened with no caches, and with memory that runs out."""
    made = cold(*before, remembered(name))
    return disturbed(label, decode(look, flags), below, options=EXPORT, before=made, errors=HANDLES)


GROUPS = (
    Group(
        "memory-handles",
        "Make and open file handles with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=(
            encodes("handle of a lower file", "dir/file"),
            encodes("handle of a lower directory", "dir"),
            encodes("handle of a copied file", "file", chown("file")),
            encodes("handle of a file of upper", "new", opened("new", CREATE)),
            decodes("open a lower file by handle", "dir/file", text),
            decodes("open a hard link by handle for writing", "one", text, flags=os.O_RDWR),
            decodes("open a lower directory by handle", "dir", owner),
            decodes("open a hard link by handle", "one", text),
            decodes("open a copied file by handle", "file", text, chown("file")),
            decodes("open a directory of upper by handle", "a/b", owner, mkdir("a"), mkdir("a/b"), below=Directory()),
            decodes("open a copied directory by handle", "a/b", owner, chown("a/b"), below=DIRECTORIES),
            decodes("open a file of upper by handle", "dir/new", owner, opened("dir/new", CREATE)),
            decodes("open by handle what was copied up since", "file", owner, both(remembered("file"), chown("file"))),
        ),
    ),
)
