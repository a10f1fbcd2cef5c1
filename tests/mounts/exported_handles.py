# SPDX-License-Identifier: GPL-2.0-only
"""File handles of an exported overlay: they survive copy-up, rename and remount, and are stale when they must be.

open_by_handle_at(2) answers ESTALE whatever the reason is that a handle leads nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from datasets.layers import OPAQUE, REDIRECT
from datasets.tree import Directory, File
from tests.mounts.handles import EXPORT, EXPORT_TWO, content, decoded, opened, prepared, stale, where
from tests.mounts.marked import layers, names, open_for_writing, overwrite, xattr
from union.filecalls import name_to_handle
from union.marks import ORIGIN, PATH_UPPER, UPPER, Handle
from union.scenario import Group, Trial
from union.stand import Stand, attempt

# handles that go on leading to their object


def does_nothing(_: str) -> str:
    return ""


def copies_up(name: str) -> Callable[[str], str]:
    """The file is copied up, and stays where it is."""

    def change(at: str) -> str:
        open_for_writing(f"{at}/{name}")
        return name

    return change


def renames(name: str, to: str) -> Callable[[str], str]:
    """It is somewhere else then."""

    def change(at: str) -> str:
        os.rename(f"{at}/{name}", f"{at}/{to}")
        return to

    return change


def leads(label: str, name: str, change: Callable[[str], str]) -> Trial:
    """A handle of `name` made before the change leads to the object after it: at once, and mounted again, cold."""

    def work(stand: Stand) -> None:
        at = prepared(stand)
        os.mkdir(f"{at}/new")
        os.close(os.open(f"{at}/new/f", os.O_CREAT | os.O_WRONLY))
        handle = name_to_handle(f"{at}/{name}")
        now = change(at) or name
        for turn in ("at once", "mounted again"):
            stand.same(turn, opened(stand, handle)[0], os.stat(at).st_dev)
            if turn == "at once":
                stand.again(EXPORT)
        found = os.stat(f"{at}/{now}")
        stand.same("object", opened(stand, handle), (found.st_dev, found.st_ino))
        stand.same("its handle now", name_to_handle(f"{at}/{now}"), handle)
        if os.path.isdir(f"{at}/{now}"):
            stand.same("path", where(stand, handle), os.path.normpath(f"/{now}"))

    return Trial(label, work)


def removes(*taken: str) -> Callable[[str], None]:
    """Files and directories, in this order."""

    def change(at: str) -> None:
        for name in taken:
            remove = os.rmdir if os.path.isdir(f"{at}/{name}") else os.unlink
            remove(f"{at}/{name}")

    return change


def goes(label: str, name: str, change: Callable[[str], None], before: Callable[[str], str] = does_nothing) -> Trial:
    """A handle of what is removed is stale at once, and mounted again, cold; even when the name is used again."""

    def work(stand: Stand) -> None:
        at = prepared(stand)
        os.mkdir(f"{at}/new")
        os.close(os.open(f"{at}/new/f", os.O_CREAT | os.O_WRONLY))
        before(at)
        handle = name_to_handle(f"{at}/{name}")
        change(at)
        stale(stand, handle)
        os.mkdir(f"{at}/{name}")
        stale(stand, handle)
        stand.again(EXPORT)
        stale(stand, handle)

    return Trial(label, work)


LEADING: Final = (
    leads("the root", ".", does_nothing),
    leads("a lower file", "f", does_nothing),
    leads("a lower directory", "d", does_nothing),
    leads("a lower directory in a lower directory", "d/deep", does_nothing),
    leads("an upper file", "new/f", does_nothing),
    leads("an upper directory", "new", does_nothing),
    leads("a file that is copied up", "f", copies_up("f")),
    leads("a file in a merge directory", "d/f", copies_up("d/f")),
    leads("a lower file that is renamed", "f", renames("f", "g")),
    leads("an upper file that is renamed", "new/f", renames("new/f", "f2")),
    leads("a lower directory that is renamed", "d", renames("d", "moved")),
    leads("a lower directory that is moved into an upper one", "d/deep", renames("d/deep", "new/deep")),
    leads("an upper directory that is moved into a lower one", "new", renames("new", "d/deep/new")),
    leads("one name of a hard link that is copied up by it", "a", copies_up("a")),
)
GOING: Final = (
    goes("a lower file is removed", "f", removes("f")),
    goes("a copied up file is removed", "f", removes("f"), copies_up("f")),
    goes("an upper file is removed", "new/f", removes("new/f")),
    goes("a lower directory is removed", "e", removes("e")),
    goes("a merge directory is removed", "d", removes("d/f", "d/deep/f", "d/deep", "d")),
    goes("an upper directory is removed", "new", removes("new/f", "new")),
    goes("both names of a hard link are removed", "a", removes("a", "b")),
)


def below_a_renamed(stand: Stand) -> None:
    """A lower directory below one that was renamed is found at its new path, with nothing in the caches."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    os.rename(f"{at}/d", f"{at}/moved")
    os.rename(f"{at}/moved/f", f"{at}/moved/g")
    stand.again(EXPORT)
    stand.same("path", where(stand, handle), "/moved/deep")


def by_another_name(stand: Stand) -> None:
    """The handle of a hard link is one for all names, and goes with the last one."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/a")
    overwrite(f"{at}/b")
    stand.same("handle of the other name", name_to_handle(f"{at}/b"), handle)
    stand.same("content", content(stand, handle), b"new")
    os.unlink(f"{at}/b")
    stand.again(EXPORT)
    stand.same("content with one name left", content(stand, handle), b"new")
    os.unlink(f"{at}/a")
    stale(stand, handle)


def copied_up_by_handle(stand: Stand) -> None:
    """A file that is opened for writing by its handle is copied up, and found by its name."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/f")
    stand.again(EXPORT)
    with decoded(stand, handle, os.O_WRONLY | os.O_TRUNC) as fd:
        os.write(fd, b"by handle")
    stand.same("content by handle", content(stand, handle), b"by handle")
    with open(f"{at}/d/f", "rb") as file:
        stand.same("content by name", file.read(), b"by handle")


# layers that change while nothing is mounted


def moved_out(stand: Stand) -> None:
    """A lower directory that was moved out of the layer."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    stand.unmount()
    os.rename(stand.path("l/d/deep"), stand.path("out"))
    stand.mount(EXPORT)
    stale(stand, handle)


def upper_moved_out(stand: Stand) -> None:
    """An upper directory that was moved out of the layer."""
    at = prepared(stand)
    os.makedirs(f"{at}/new/deep")
    handle = name_to_handle(f"{at}/new/deep")
    stand.unmount()
    os.rename(stand.path("u/new/deep"), stand.path("out"))
    stand.mount(EXPORT)
    stale(stand, handle)


def upper_moved(stand: Stand) -> None:
    """An upper directory that was moved to another place of the layer is found there."""
    at = prepared(stand)
    os.makedirs(f"{at}/new/deep")
    handle = name_to_handle(f"{at}/new/deep")
    stand.unmount()
    os.rename(stand.path("u/new/deep"), stand.path("u/deep"))
    stand.mount(EXPORT)
    stand.same("path", where(stand, handle), "/deep")


def index_removed(stand: Stand) -> None:
    """Without its entry in the index, the handle of a copied up file leads to what lower has."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/f")
    overwrite(f"{at}/f")
    stand.unmount()
    os.unlink(stand.path(f"w/index/{Handle.of(stand.path('u/f')).entry()}"))
    stand.mount(EXPORT)
    stand.same("content", content(stand, handle), b"lower")


def hidden(stand: Stand) -> None:
    """A lower directory that a whiteout hides since has no place in the union."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    stand.unmount()
    os.mknod(stand.path("u/d"), stat.S_IFCHR)
    stand.mount(EXPORT)
    stale(stand, handle)


def covered(stand: Stand) -> None:
    """A lower directory that an unrelated directory of upper covers since has no place either."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    stand.unmount()
    os.makedirs(stand.path("u/d/deep"))
    os.setxattr(stand.path("u/d"), OPAQUE, b"y")
    stand.mount(EXPORT)
    stale(stand, handle)


def opaque_since(stand: Stand) -> None:
    """A lower directory below one that was copied up, and is opaque since, has no place either."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    open_for_writing(f"{at}/d/f")
    stand.unmount()
    os.setxattr(stand.path("u/d"), OPAQUE, b"y")
    stand.mount(EXPORT)
    stale(stand, handle)


def badly_marked(stand: Stand) -> None:
    """A directory that cannot be looked up for a bad mark is not found by its handle."""
    at = prepared(stand)
    os.makedirs(f"{at}/new/deep")
    handle = name_to_handle(f"{at}/new/deep")
    stand.unmount()
    os.setxattr(stand.path("u/new/deep"), REDIRECT, b"a/b")
    stand.mount(EXPORT)
    stale(stand, handle)


def below_a_removed(stand: Stand) -> None:
    """A lower directory that a whiteout hid, below one that was copied up and is removed since."""
    at = prepared(stand)
    handle = name_to_handle(f"{at}/d/deep")
    open_for_writing(f"{at}/d/f")
    stand.unmount()
    os.mknod(stand.path("u/d/deep"), stat.S_IFCHR)
    stand.mount(EXPORT)
    os.unlink(f"{at}/d/f")
    os.rmdir(f"{at}/d")
    stand.again(EXPORT)
    stale(stand, handle)


def removed_while_open(stand: Stand) -> None:
    """Who has a directory open goes on having it, but its handle leads nowhere when it is removed."""
    at = prepared(stand)
    os.mkdir(f"{at}/new")
    handle = name_to_handle(f"{at}/new")
    fd = os.open(f"{at}/new", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.listdir(fd)
        os.rmdir(f"{at}/new")
        stale(stand, handle)
        stand.same("links of the open one", os.fstat(fd).st_nlink, 0)
    finally:
        os.close(fd)


def changed_when_mounted(label: str, name: str, change: Callable[[Stand, str], None]) -> Trial:
    """The index entry of a copied up object is wrong since the overlay was mounted: its handle is stale."""

    def work(stand: Stand) -> None:
        at = prepared(stand)
        handle = name_to_handle(f"{at}/{name}")
        open_for_writing(f"{at}/d/f")
        entry = stand.path(f"w/index/{Handle.of(stand.path(f'u/{name}')).entry()}")
        stand.again(EXPORT)
        change(stand, entry)
        stale(stand, handle)

    return Trial(label, work)


def other_origin(stand: Stand, entry: str) -> None:
    os.setxattr(entry, ORIGIN, Handle.of(stand.path("u/d")).packed())


def no_upper(stand: Stand, _: str) -> None:
    os.unlink(stand.path("u/d/f"))
    os.rmdir(stand.path("u/d"))


# what encoding does


def connected(stand: Stand) -> None:
    """A directory of the lower of two layers is copied up as far as its handle needs it, see ovl_connect_layer()."""
    deep = Directory({"b": Directory({"c": Directory({"f": File(b"f")})})})
    layers(stand, k=Directory({"a": Directory()}), l=Directory({"a": deep}))
    at = stand.mount(EXPORT_TWO)
    handle = name_to_handle(f"{at}/a/b/c")
    stand.same("upper", names(stand.path("u/a")), {"b"})
    stand.same("upper below", names(stand.path("u/a/b")), set())
    stand.same("the same again", name_to_handle(f"{at}/a/b/c"), handle)
    os.rename(f"{at}/a", f"{at}/z")
    stand.again(EXPORT_TWO)
    stand.same("path", where(stand, handle), "/z/b/c")


def below_redirect(stand: Stand) -> None:
    """A directory below one that a middle layer renamed is found where it is now."""
    layers(
        stand,
        k=Directory({"now": Directory(xattrs={REDIRECT: b"/old"})}),
        l=Directory({"old": Directory({"c": Directory()})}),
    )
    at = stand.mount(EXPORT_TWO)
    handle = name_to_handle(f"{at}/now/c")
    stand.again(EXPORT_TWO)
    stand.same("path", where(stand, handle), "/now/c")


def not_copied_up(stand: Stand) -> None:
    """Where upper cannot be written, what needs a copy-up to be encoded is not encoded."""
    deep = Directory({"b": Directory({"c": Directory()})})
    lower = {"k": Directory({"a": Directory()}), "l": Directory({"a": deep})}
    stand.layers(**lower)
    stand.filesystem("top")
    for name in ("top/u", "top/w"):
        os.mkdir(stand.path(name))
    at = stand.mount("lowerdir={k}:{l},upperdir={top/u},workdir={top/w},index=on,nfs_export=on")
    os.stat(f"{at}/a/b/c")
    remount_read_only(stand, "top")
    stand.holds("no handle", attempt(name_to_handle, f"{at}/a/b/c") != 0)
    stand.same("upper", names(stand.path("top/u")), set())


def remount_read_only(stand: Stand, name: str) -> None:
    """Make a filesystem of the stand read-only."""
    stand.remount("", name, 1)


def bound(stand: Stand) -> None:
    """What the index has of a directory that was encoded and copied up: origin and handle of the upper one."""
    at = prepared(stand)
    open_for_writing(f"{at}/d/f")
    entry = stand.path(f"w/index/{Handle.of(stand.path('u/d')).entry()}")
    kept = Handle.of(entry, UPPER)
    stand.same("upper directory", (kept.type, kept.fid), name_to_handle(stand.path("u/d")))
    stand.same("flags", kept.flags & PATH_UPPER, PATH_UPPER)
    stand.same("no origin on the entry", xattr(entry, ORIGIN), None)


GROUPS = (
    Group("exported-handles", "Handles that lead to their object, or are stale.", trials=(*LEADING, *GOING)),
    Group(
        "exported-layers",
        "Handles of objects in other layers, by other names, after other changes.",
        trials=(
            Trial("a directory below a renamed one", below_a_renamed),
            Trial("a hard link by its other name", by_another_name),
            Trial("a file is written by its handle", copied_up_by_handle),
            Trial("a lower directory is moved out of its layer", moved_out),
            Trial("an upper directory is moved out of its layer", upper_moved_out),
            Trial("an upper directory is moved in its layer", upper_moved),
            Trial("a file whose index entry is gone", index_removed),
            Trial("a directory hidden by a whiteout", hidden),
            Trial("a directory covered by an opaque one", covered),
            Trial("a directory below one that is opaque since", opaque_since),
            Trial("a directory with a bad mark", badly_marked),
            Trial("a directory below a removed one", below_a_removed),
            Trial("a directory is removed while it is open", removed_while_open),
            changed_when_mounted("an entry with the origin of another", "d/f", other_origin),
            changed_when_mounted("an entry whose upper directory is gone", "d", no_upper),
            Trial("a directory of the lowest layer is connected", connected),
            Trial("a directory below a redirect", below_redirect),
            Trial("what cannot be copied up has no handle", not_copied_up),
            Trial("the index knows the upper directory", bound),
        ),
    ),
)
