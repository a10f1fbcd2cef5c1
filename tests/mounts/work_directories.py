# SPDX-License-Identifier: GPL-2.0-only
"""What a mount finds in the work directory: leftovers go, marks of incompatible features and foreign indexes refuse."""

from __future__ import annotations

import os
import stat
from errno import EINVAL, ENOTDIR, EPERM, EROFS, ESTALE
from pathlib import Path
from typing import Final, NamedTuple

from datasets.acl import DEFAULT, acl
from datasets.layers import PRIVATE
from datasets.tree import IMMUTABLE, Directory, File, Special, Symlink, Whiteout, write
from tests.mounts.phrases import LAYERS, prepared
from union import namecalls
from union.scenario import Group, Trial
from union.stand import Stand

INDEXED: Final = f"{LAYERS},index=on"
FULL: Final = Directory({"a": Directory({"b": Directory({"c": File()})})})


def with_work(stand: Stand, tree: Directory) -> None:
    """The usual layers, and this in the work directory."""
    prepared(stand)
    write(tree, stand.root / "w")


def usable(stand: Stand, options: str = LAYERS) -> None:
    """Mounted it can be written; its work directory was empty at first, and is closed to others."""
    at = stand.mount(options)
    stand.same("work directory", os.listdir(stand.path("w/work")), [])
    Path(at, "f").write_bytes(b"changed")
    os.unlink(f"{at}/f")
    stand.same("its mode", oct(os.stat(stand.path("w/work")).st_mode), oct(stat.S_IFDIR))


class Left(NamedTuple):
    """What is left in `work`."""

    label: str
    work: Directory | File | Symlink | Special | Whiteout


LEFT: Final = (
    Left("an empty directory", Directory()),
    Left("a file instead", File(b"no directory")),
    Left("a symlink instead", Symlink("/nowhere")),
    Left("a whiteout instead", Whiteout()),
    Left("files and whiteouts", Directory({"#1": File(b"x"), "#2": Whiteout(), "plain": File(), "s": Symlink("x")})),
    Left("directories", Directory({"#1": Directory({"x": File(), "y": Whiteout(), "z": Directory()})})),
    Left("an empty incompat", Directory({"incompat": Directory()})),
    Left("a file incompat", Directory({"incompat": File()})),
    Left("an open mode", Directory({}, mode=0o777)),
)  # fmt: skip


def left(row: Left) -> Trial:
    """Cleaned up by the mount."""

    def work(stand: Stand) -> None:
        with_work(stand, Directory({"work": row.work}))
        usable(stand)

    return Trial(f"left in work: {row.label}", work)


def too_deep(stand: Stand) -> None:
    """The kernel cleans two levels up: with more it mounts read-only."""
    with_work(stand, Directory({"work": FULL}))
    stand.warns("mounting read-only")
    at = stand.mount(LAYERS)
    stand.fails(EROFS, os.mkdir, f"{at}/new")


def cannot_go(stand: Stand) -> None:
    """A leftover that cannot be removed makes the overlay read-only."""
    with_work(stand, Directory({"work": Directory({"x": File()})}))
    namecalls.set_flags(stand.path("w/work"), IMMUTABLE)
    stand.undo(lambda: namecalls.set_flags(stand.path("w/work"), 0))
    stand.warns("mounting read-only")
    at = stand.mount(LAYERS)
    stand.fails(EROFS, os.mkdir, f"{at}/new")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")


def no_inherited_acl(stand: Stand) -> None:
    """The default ACL of the directory above opens the work directory to nobody."""
    prepared(stand)
    os.setxattr(stand.path("w"), DEFAULT, acl("u::rwx,u:1:rwx,g::rwx,m::rwx,o::rwx"))
    usable(stand)
    stand.same("xattrs", os.listxattr(stand.path("w/work")), [])


def incompat(name: str, kind: type[File] | type[Directory]) -> Trial:
    """Refused until the mark is removed."""

    def work(stand: Stand) -> None:
        with_work(stand, Directory({"work": Directory({"incompat": Directory({name: kind()})})}))
        mark = Path(stand.path("w/work"), "incompat", name)
        stand.refuses(EINVAL, LAYERS, says=f"overlay with incompat feature '{name}' cannot be mounted")
        stand.holds(f"{mark} is kept", mark.exists())
        (mark.rmdir if kind is Directory else mark.unlink)()
        usable(stand)

    return Trial(f"incompatible feature {name} as a {kind.__name__.lower()}", work)


def volatile(stand: Stand) -> None:
    """After a volatile mount every other is refused, a volatile one too, until the mark is removed."""
    prepared(stand)
    at = stand.mount(f"{LAYERS},volatile")
    Path(at, "f").write_bytes(b"changed")
    mark = Path(stand.path("w/work"), "incompat/volatile/dirty")
    stand.holds("there is a mark", mark.is_file())
    stand.unmount()
    for options in (LAYERS, f"{LAYERS},volatile", f"{LAYERS},index=on"):
        stand.refuses(EINVAL, options, says="overlay with incompat feature 'volatile' cannot be mounted")
    mark.unlink()
    mark.parent.rmdir()
    stand.same("content", Path(stand.mount(LAYERS), "f").read_bytes(), b"changed")


def lower_of_volatile(stand: Stand) -> None:
    """The mark is in the work directory: the upper alone can be a lower."""
    prepared(stand)
    Path(stand.mount(f"{LAYERS},volatile"), "new").write_bytes(b"new")
    stand.unmount()
    stand.same("content", Path(stand.mount("lowerdir={u}:{l}"), "new").read_bytes(), b"new")


def index_leftovers(stand: Stand) -> None:
    """Temporary objects of the index go, in directories too."""
    left_over = Directory({"#1": File(), "#2": Directory({"x": File()}), "#3": Whiteout()})
    with_work(stand, Directory({"index": left_over}))
    stand.mount(INDEXED)
    stand.same("index", os.listdir(stand.path("w/index")), [])


def index_entry(name: str) -> Trial:
    """An entry that is no file handle: not ours to change."""

    def work(stand: Stand) -> None:
        with_work(stand, Directory({"index": Directory({name: File()})}))
        stand.refuses(EINVAL, INDEXED, says="failed index dir cleanup")
        stand.holds("it is kept", os.path.exists(stand.path(f"w/index/{name}")))
        stand.mount(f"{LAYERS},index=off")

    return Trial(f"index with an entry {name[:4]} of {len(name)} letters", work)


def index_is_a_file(stand: Stand) -> None:
    with_work(stand, Directory({"index": File()}))
    stand.refuses(ENOTDIR, INDEXED)
    stand.mount(f"{LAYERS},index=off")


def once_indexed(stand: Stand) -> None:
    """The usual layers, after a mount with an index."""
    prepared(stand)
    Path(stand.mount(INDEXED), "f").write_bytes(b"changed")
    stand.unmount()


def other_lower(stand: Stand) -> None:
    """With an index the upper belongs to its lower: with another one it is refused, without an index taken."""
    once_indexed(stand)
    other = INDEXED.replace("{l}", "{k}")
    stand.refuses(ESTALE, other, says="failed to verify upper root origin")
    stand.same("content", Path(stand.mount(INDEXED), "f").read_bytes(), b"changed")
    stand.unmount()
    stand.mount(other.replace("index=on", "index=off"))


def other_upper(stand: Stand) -> None:
    """An index belongs to its upper."""
    once_indexed(stand)
    stand.layers(u2=Directory())
    stand.refuses(ESTALE, INDEXED.replace("{u}", "{u2}"), says="failed to verify index dir 'upper' xattr")


def old_index(stand: Stand) -> None:
    """Old kernels kept the upper's handle as origin of the index: one of another upper is told, no more.

    Every kernel since has gone on to the mark `upper`, which alone decides.
    """
    once_indexed(stand)
    other = os.getxattr(stand.path("u"), f"{PRIVATE}origin")
    os.setxattr(stand.path("w/index"), f"{PRIVATE}origin", other)
    stand.warns("failed to verify index dir 'origin' xattr")
    stand.mount(INDEXED)


def locked_index(stand: Stand) -> None:
    """An index that cannot be marked refuses the mount; without an index it is not in the way."""
    with_work(stand, Directory({"index": Directory()}))
    namecalls.set_flags(stand.path("w/index"), IMMUTABLE)
    stand.undo(lambda: namecalls.set_flags(stand.path("w/index"), 0))
    stand.refuses(EPERM, INDEXED, says="failed to verify index dir 'upper' xattr")
    stand.mount(f"{LAYERS},index=off")


GROUPS = (
    Group(
        "work-leftovers",
        "Mount over a work directory that holds something.",
        trials=(
            *map(left, LEFT),
            Trial("left in work: more than two levels", too_deep),
            Trial("left in work: what cannot be removed", cannot_go),
            Trial("a default acl above", no_inherited_acl),
            incompat("volatile", Directory),
            incompat("time-travel", Directory),
            incompat("encryption", File),
            Trial("volatile and its mark", volatile),
            Trial("upper of a volatile mount as a lower", lower_of_volatile),
        ),
    ),
    Group(
        "index-at-mount",
        "Mount with an index that is of other layers, or holds something else.",
        trials=(
            Trial("leftovers in the index", index_leftovers),
            index_entry("x"),
            index_entry("zz" * 40),
            index_entry("00" * 40),
            Trial("index that is a file", index_is_a_file),
            Trial("another lower", other_lower),
            Trial("another upper", other_upper),
            Trial("an origin as old kernels had it", old_index),
            Trial("an index that cannot be marked", locked_index),
        ),
    ),
)
