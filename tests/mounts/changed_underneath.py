# SPDX-License-Identifier: GPL-2.0-only
"""Layers that are changed while they are mounted: undefined, "though it will not result in a crash or deadlock".

What the overlay finds to be another object than the one it knows it leaves alone: ESTALE, and nothing is lost.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from datasets.tree import IMMUTABLE, Directory, File
from tests.mounts.marked import ONE_LOWER, layers, names, open_for_writing, read
from union import namecalls
from union.scenario import Group, Trial
from union.stand import Stand, attempt

OPTIONS: Final = f"{ONE_LOWER},redirect_dir=on,index=off,nfs_export=off"

Call = Callable[[str], object]
"""What is done, given the path of the union, or that of the upper layer."""


def mounted(stand: Stand) -> str:
    """A lower file and directory, and upper ones, all of them known to the overlay and copied up."""
    layers(
        stand,
        u=Directory({"own": File(b"own"), "g": File(b"g"), "new": Directory()}),
        l=Directory({"f": File(b"lower"), "d": Directory({"f": File(b"below")}), "gone": File(b"gone")}),
    )
    at = stand.mount(OPTIONS)
    for name in ("f", "d/f"):
        open_for_writing(f"{at}/{name}")
    os.unlink(f"{at}/gone")
    for name in ("own", "g", "f", "d/f", "new"):
        os.stat(f"{at}/{name}")
    for name in ("gone", "free"):
        attempt(os.stat, f"{at}/{name}")
    return at


def replaced(name: str) -> Call:
    """An object of the upper layer is another one then, of the same name and kind."""

    def change(upper: str) -> None:
        path = f"{upper}/{name}"
        os.rename(path, f"{upper}/.kept")
        if os.path.isdir(f"{upper}/.kept"):
            os.mkdir(path)
        else:
            create(path)

    return change


def created(name: str) -> Call:
    """A file turns up in the upper layer."""
    return lambda upper: create(f"{upper}/{name}")


def removed(name: str) -> Call:
    """It goes out of the upper layer."""
    return lambda upper: os.unlink(f"{upper}/{name}")


def locked(name: str) -> Call:
    """It takes no xattr any more."""
    return lambda upper: namecalls.set_flags(f"{upper}/{name}", IMMUTABLE)


def create(path: str) -> None:
    """A new file, which says so."""
    with open(path, "xb") as file:
        file.write(b"other")


def unlinks(name: str) -> Call:
    return lambda at: os.unlink(f"{at}/{name}")


def rmdirs(name: str) -> Call:
    return lambda at: os.rmdir(f"{at}/{name}")


def renames(old: str, new: str, flags: int = 0) -> Call:
    return lambda at: namecalls.rename(f"{at}/{old}", f"{at}/{new}", flags)


def creates(name: str) -> Call:
    return lambda at: create(f"{at}/{name}")


def mkdirs(name: str) -> Call:
    return lambda at: os.mkdir(f"{at}/{name}")


def links(old: str, new: str) -> Call:
    return lambda at: os.link(f"{at}/{old}", f"{at}/{new}")


@dataclass(frozen=True, slots=True)
class Row:
    """A change of the upper layer, what is done to the union then, and the errno of that, or one of these."""

    label: str
    change: Call
    call: Call
    numbers: tuple[int, ...] = (errno.ESTALE,)


GONE: Final = (errno.ESTALE, errno.ENOENT)  # ENOENT: Linux 7.2, which looks up a name that must be there

ROWS: Final = (
    Row("an upper file is another one: unlink", replaced("own"), unlinks("own")),
    Row("a copied up file is another one: unlink", replaced("f"), unlinks("f")),
    Row("an upper directory is another one: rmdir", replaced("new"), rmdirs("new")),
    Row("an upper file is another one: rename", replaced("own"), renames("own", "free")),
    Row("an upper file is another one: rename over it", replaced("own"), renames("g", "own")),
    Row("a copied up file is another one: rename over it", replaced("f"), renames("g", "f")),
    Row("an upper file is another one: exchange", replaced("own"), renames("g", "own", namecalls.RENAME_EXCHANGE)),
    Row("an upper file is gone: rename over it", removed("own"), renames("g", "own")),
    Row("an upper file is gone: unlink", removed("own"), unlinks("own"), GONE),
    Row("an upper directory is locked: rename", locked("d"), renames("d", "free"), (errno.EXDEV,)),
    Row("a free name is taken: rename to it", created("free"), renames("g", "free")),
    Row("a free name is taken: create", created("free"), creates("free")),
    Row("a free name is taken: mkdir", created("free"), mkdirs("free")),
    Row("a free name is taken: link", created("free"), links("g", "free")),
    Row("a whiteout is gone: create over it", removed("gone"), creates("gone")),
    Row("a whiteout is gone: mkdir over it", removed("gone"), mkdirs("gone")),
    Row("a whiteout is a file: create over it", replaced("gone"), creates("gone")),
    Row("a whiteout is a file: rename over it", replaced("gone"), renames("g", "gone")),
)


def stale(row: Row) -> Trial:
    """The operation fails, and upper has what it had."""

    def work(stand: Stand) -> None:
        at = mounted(stand)
        upper = stand.path("u")
        # What the union knows of its names must stay in the caches, whoever drops them meanwhile.
        for name in names(at):
            stand.undo(partial(os.close, os.open(f"{at}/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)))
        row.change(upper)
        before = contents(upper)

        def the_operation() -> None:
            row.call(at)

        stand.fails(row.numbers, the_operation)
        stand.same("upper", contents(upper), before)

    return Trial(row.label, work)


def contents(path: str) -> dict[str, bytes | None]:
    """Every name of a directory with its content, None for what is no file."""
    return {name: read(f"{path}/{name}") if os.path.isfile(f"{path}/{name}") else None for name in names(path)}


def layer_in_a_layer(stand: Stand) -> None:
    """A layer that turns up in another one is not entered."""
    layers(stand, l=Directory({"f": File(b"lower")}))
    at = stand.mount(OPTIONS)
    os.rename(stand.path("u"), stand.path("l/inner"))
    stand.fails(errno.ELOOP, os.stat, f"{at}/inner")
    stand.same("another name", read(f"{at}/f"), b"lower")
    os.rename(stand.path("l/inner"), stand.path("u"))


def lower_directory_in_upper(stand: Stand) -> None:
    """A lower directory that turns up in upper while it is known by its lower name is not that one."""
    layers(stand, l=Directory({"d": Directory({"f": File(b"below")})}))
    at = stand.mount(OPTIONS)
    fd = os.open(f"{at}/d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rename(stand.path("l/d"), stand.path("u/moved"))
        stand.fails(errno.ESTALE, os.stat, f"{at}/moved")
        stand.same("listing of the open one", set(os.listdir(fd)), {"f"})
    finally:
        os.close(fd)
    stand.again(OPTIONS)
    stand.same("listing when mounted again", names(f"{at}/moved"), {"f"})


def lower_file_is_gone(stand: Stand) -> None:
    """A lower file that is removed while it is open is still read and copied up."""
    layers(stand, l=Directory({"f": File(b"lower")}))
    at = stand.mount(OPTIONS)
    with open(f"{at}/f", "rb") as file:
        os.unlink(stand.path("l/f"))
        stand.same("content", file.read(), b"lower")
        os.chmod(f"{at}/f", 0o600)
    stand.same("content in upper", read(stand.path("u/f")), b"lower")


GROUPS = (
    Group(
        "changed-underneath",
        "Layers that are changed while they are mounted.",
        trials=(
            *map(stale, ROWS),
            Trial("a layer turns up in a layer", layer_in_a_layer),
            Trial("a lower directory turns up in upper", lower_directory_in_upper),
            Trial("a lower file is removed", lower_file_is_gone),
        ),
    ),
)
