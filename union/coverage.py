# SPDX-License-Identifier: GPL-2.0-only
"""Which directories of a union need their lower still: the model follows a detach listing by listing (D4, D5).

A name is covered when the lower layers are not needed for it. A directory in which all are turns opaque when it is
listed to its end; one in which a name is not, there or anywhere below, must not be opaque.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from union.inodes import DirectoryInode, directories
from union.model import Model
from union.witness import Witness


def uncovered(directory: DirectoryInode) -> Iterator[str]:
    """The names in it that need a lower layer; what is absent is hidden by a whiteout."""
    for name, inode in directory.entries.items():
        if isinstance(inode, DirectoryInode):
            needed = inode.lower is not None or any(uncovered(inode))
        else:
            needed = not inode.in_upper or (id(directory), name) in inode.lower_names
        if needed:
            yield name


def list_whole(model: Model, directory: DirectoryInode) -> None:
    """It was listed to its end: it needs no lower from now on if all its names are covered."""
    if model.renumbers and directory.lower is not None and directory.in_upper and not any(uncovered(directory)):
        directory.lower, directory.opaque = None, True


def list_level_by_level(model: Model) -> None:
    """All directories were listed, each before those in it: what was opaque below before that counts (D5)."""
    for _, inode in list(model.walk()):
        if isinstance(inode, DirectoryInode):
            list_whole(model, inode)


def is_detached(model: Model) -> bool:
    """Whether nothing needs a lower any more."""
    return all(directory.lower is None for directory in directories(model.root)) and not any(uncovered(model.root))


def compare_marks(model: Model, witness: Witness, may: Collection[DirectoryInode] = ()) -> list[str]:
    """What is wrong with the marks of the upper layer; directories of `may` are free to have turned opaque just now.

    Where the root keeps its mark is the implementation's affair (D11), so it need not have one.
    """
    found = []
    for path, inode in list(model.walk()):
        if not isinstance(inode, DirectoryInode):
            continue
        marked = witness.upper(path).opaque
        if marked and (inode in may or inode is model.root):
            list_whole(model, inode)
        if marked and inode.lower is not None:
            found.append(f"{path or '/'}: opaque although {_reason(inode)}")
        elif inode.opaque and not marked and inode is not model.root:
            found.append(f"{path}: not opaque although it was listed to its end with all names in it covered")
    return found


def _reason(directory: DirectoryInode) -> str:
    names = ", ".join(uncovered(directory))
    return f"the lower is needed for {names} in it" if names else "it was not listed to its end"
