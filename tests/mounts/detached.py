# SPDX-License-Identifier: GPL-2.0-only
"""xino=nofollow on layers of its own: when a directory becomes opaque, and hard links that know no lower."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from datasets.layers import OPAQUE, WHITEOUT
from datasets.tree import Directory, File, HardLink
from tests.mounts.marked import ONE_LOWER, TWO_LOWERS, layers, names, open_for_writing, overwrite, read, xattr
from union import namecalls, syscalls
from union.marks import NLINK, ORIGIN, Handle
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt

OPTIONS: Final = f"{ONE_LOWER},xino=nofollow"
INDEX: Final = f"{OPTIONS},index=on"


def mounted(stand: Stand, options: str = OPTIONS, flags: int = 0) -> str:
    """Mounted with xino=nofollow. Raises Missing where the kernel has no such option."""
    if attempt(stand.mount, options, "m", flags) == errno.EINVAL:
        raise Missing("the kernel has no xino=nofollow")
    return stand.path("m")


def opaque(stand: Stand, name: str = "") -> bool:
    """Whether an upper directory, the root if nothing is said, has the mark."""
    return xattr(stand.path(f"u/{name}"), OPAQUE) == b"y"


def linked(stand: Stand) -> str:
    """The hard link a, b, c in l, of which a is copied up. Mounted again, with nothing in the caches."""
    layers(stand, l=Directory({"a": File(b"lower"), "b": HardLink("a"), "c": HardLink("a"), "f": File(b"f")}))
    at = mounted(stand, INDEX)
    overwrite(f"{at}/a", b"upper")
    stand.again(INDEX)
    return at


def entry(stand: Stand) -> str:
    """The path of the index entry of a."""
    return stand.path(f"w/index/{Handle.of(stand.path('u/a')).entry()}")


def links(at: str, *files: str) -> list[int]:
    """Of each name."""
    return [os.stat(f"{at}/{name}").st_nlink for name in files]


def name_first_found_in_upper(stand: Stand) -> None:
    """An inode that was found by its upper name knows no lower: its other names are linked to it all the same."""
    at = linked(stand)
    number = os.stat(f"{at}/a").st_ino
    stand.same("links", links(at, "a", "b", "c"), [3, 3, 3])
    stand.same("content of b", read(f"{at}/b"), b"upper")
    overwrite(f"{at}/b", b"by b")
    stand.same("inode numbers", [os.stat(f"{at}/{name}").st_ino for name in "abc"], [number] * 3)
    stand.same("content of a", read(f"{at}/a"), b"by b")
    stand.same("upper", names(stand.path("u")), {"a", "b"})
    stand.same("links then", links(at, "a", "b", "c"), [3, 3, 3])


def name_first_found_in_lower(stand: Stand) -> None:
    """The same when a lower name is found first."""
    at = linked(stand)
    stand.same("content of c", read(f"{at}/c"), b"upper")
    overwrite(f"{at}/c", b"by c")
    stand.same("content of a", read(f"{at}/a"), b"by c")
    stand.same("links", links(at, "c", "a", "b"), [3, 3, 3])


def removed_one_by_one(stand: Stand) -> None:
    """The entry in the index goes with the last name."""
    at = linked(stand)
    path = entry(stand)
    for left, name in ((2, "b"), (1, "a")):
        os.unlink(f"{at}/{name}")
        stand.same("links", links(at, "c"), [left])
        stand.same("content", read(f"{at}/c"), b"upper")
        stand.again(INDEX)
    os.unlink(f"{at}/c")
    stand.holds("the entry is gone", not os.path.lexists(path))


def removed_without_lower(stand: Stand) -> None:
    """All this still holds over an empty lower, once everything is in upper."""
    at = linked(stand)
    for name in ("b", "c", "f"):
        open_for_writing(f"{at}/{name}")
    names(at)
    stand.holds("the root is opaque", opaque(stand))
    path = entry(stand)
    stand.layers(empty=Directory())
    stand.again(INDEX.replace("{l}", "{empty}"))
    stand.same("links", links(at, "a", "b", "c"), [3, 3, 3])
    overwrite(f"{at}/c", b"by c")
    stand.same("content of a", read(f"{at}/a"), b"by c")
    for left, name in ((2, "a"), (1, "b")):
        os.unlink(f"{at}/{name}")
        stand.same("links then", links(at, "c"), [left])
    os.unlink(f"{at}/c")
    stand.holds("the entry is gone", not os.path.lexists(path))


def interrupted_copy_up(stand: Stand) -> None:
    """A count of links that is relative to a lower which is not known counts as upper's."""
    at = linked(stand)
    stand.unmount()
    os.setxattr(stand.path("u/a"), NLINK, b"L+4")
    stand.mount(INDEX)
    stand.same("links", links(at, "a"), [2])  # a and the entry


def origin_vanished(stand: Stand) -> None:
    """The entry is found by the origin alone: without it the last name goes all the same, and the entry stays."""
    at = linked(stand)
    path = entry(stand)
    os.stat(f"{at}/a")
    os.removexattr(path, ORIGIN)
    stand.warns("cleanup index of")
    for name in "cba":
        os.unlink(f"{at}/{name}")
    stand.same("listing", names(at), {"f"})
    stand.holds("the entry is still there", os.path.lexists(path))


# when a directory becomes opaque


def covered(stand: Stand, options: str = OPTIONS, flags: int = 0) -> str:
    """A lower root whose two files are in upper already; mounted."""
    layers(
        stand,
        u=Directory({"f": File(b"f"), "g": File(b"g")}),
        l=Directory({"f": File(b"lower"), "g": File(b"lower")}),
    )
    return mounted(stand, options, flags)


def when_listed(stand: Stand) -> None:
    at = covered(stand)
    os.stat(f"{at}/f")
    stand.holds("not opaque before", not opaque(stand))
    stand.same("listing", names(at), {"f", "g"})
    stand.holds("opaque then", opaque(stand))


def when_listed_in_parts(stand: Stand) -> None:
    at = covered(stand)
    fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while namecalls.getdents(fd, 48):
            pass
        stand.holds("opaque", opaque(stand))
    finally:
        os.close(fd)


def not_when_read_only(stand: Stand) -> None:
    at = covered(stand, flags=syscalls.MS_RDONLY)
    stand.same("listing", names(at), {"f", "g"})
    stand.holds("not opaque", not opaque(stand))
    stand.again(OPTIONS)
    names(at)
    stand.holds("opaque when it is writable", opaque(stand))


def not_when_upper_is_read_only(stand: Stand) -> None:
    """A listing succeeds all the same, and the next one marks when upper can be written again."""
    stand.layers(l=Directory({"f": File(b"lower")}))
    stand.filesystem("top", "tmpfs", Directory({"u": Directory({"f": File(b"f")}), "w": Directory()}))
    at = mounted(stand, "lowerdir={l},upperdir={top/u},workdir={top/w},xino=nofollow")
    for flags, mark in ((syscalls.MS_RDONLY, None), (0, b"y")):
        stand.remount("", "top", flags)
        stand.same("listing", names(at), {"f"})
        stand.same("mark", xattr(stand.path("top/u"), OPAQUE), mark)


def partly(label: str, between: Callable[[str, int], None]) -> Trial:
    """A listing during which this happens proves nothing; the next one does."""

    def work(stand: Stand) -> None:
        at = covered(stand)
        fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            namecalls.getdents(fd, 48)  # `.` and perhaps one more
            between(at, fd)
            syscalls.getdents(fd)
            stand.holds("not opaque", not opaque(stand))
        finally:
            os.close(fd)
        names(at)
        stand.holds("opaque after a whole listing", opaque(stand))

    return Trial(label, work)


def seeks(_: str, fd: int) -> None:
    os.lseek(fd, 1, os.SEEK_SET)


def creates(at: str, _: int) -> None:
    os.mkdir(f"{at}/new")


def removes(at: str, _: int) -> None:
    os.unlink(f"{at}/g")


def in_another_mode(stand: Stand) -> None:
    """The mark of the root counts with xino=nofollow alone: elsewhere lower names are shown again, as documented."""
    at = covered(stand)
    names(at)
    os.unlink(f"{at}/f")
    stand.again(OPTIONS)
    stand.same("listing", names(at), {"g"})
    stand.again(f"{ONE_LOWER},xino=on")
    stand.same("listing with xino=on", names(at), {"f", "g"})


def over_xattr_whiteouts(stand: Stand) -> None:
    """A name that a whiteout of a lower layer hides, one in an xattr, needs no lower."""
    gone = File(xattrs={WHITEOUT: b""})
    layers(
        stand,
        u=Directory({"d": Directory({"f": File(b"f")})}),
        k=Directory({"d": Directory({"g": gone}, xattrs={OPAQUE: b"x"})}),
        l=Directory({"d": Directory({"f": File(b"lower"), "g": File(b"hidden")})}),
    )
    at = mounted(stand, f"{TWO_LOWERS},xino=nofollow")
    stand.same("listing", names(f"{at}/d"), {"f"})
    stand.holds("opaque", opaque(stand, "d"))
    stand.same("listing again", names(f"{at}/d"), {"f"})
    stand.fails(errno.ENOENT, os.stat, f"{at}/d/g")


# moving into a directory that needs no lower


def moves(label: str, name: str, call: Callable[[str, str], None], number: int) -> Trial:
    """Bring a lower object into a directory without lower; a file is in upper then, with its data."""

    def work(stand: Stand) -> None:
        layers(stand, l=Directory({"f": File(b"lower"), "d": Directory({"f": File(b"below")})}))
        at = mounted(stand, f"{OPTIONS},redirect_dir=on,metacopy=on")
        os.mkdir(f"{at}/pure")
        os.mkdir(f"{at}/pure/g")
        if name == "f":
            os.chmod(f"{at}/f", 0o600)  # metadata alone is in upper
            os.rmdir(f"{at}/pure/g")
            os.close(os.open(f"{at}/pure/g", os.O_CREAT | os.O_WRONLY))
        stand.fails(number, call, f"{at}/{name}", f"{at}/pure/g")
        if not number:
            stand.same("data in upper", read(stand.path("u/pure/g")), b"lower")
            stand.same("content", read(f"{at}/pure/g"), b"lower")
        else:
            stand.same("what stays", names(f"{at}/d"), {"f"})

    return Trial(label, work)


def link_over(old: str, new: str) -> None:
    """link(2) after the new name is removed."""
    os.unlink(new)
    os.link(old, new)


def exchange(old: str, new: str) -> None:
    """Both names change places."""
    namecalls.rename(old, new, namecalls.RENAME_EXCHANGE)


def exchange_back(old: str, new: str) -> None:
    """The same, asked for the other way round."""
    namecalls.rename(new, old, namecalls.RENAME_EXCHANGE)


MOVES: Final = tuple(
    moves(f"a {kind} is brought into a pure upper directory: {words}", name, call, number)
    for kind, name, number in (("file", "f", 0), ("directory", "d", errno.EXDEV))
    for words, call in (
        ("rename", os.rename),
        ("link", link_over),
        ("exchange", exchange),
        ("exchange, the other way round", exchange_back),
    )
    if (name, words) != ("d", "link")
)

GROUPS = (
    Group(
        "detached-links",
        "Hard links that are found without their lower.",
        trials=(
            Trial("a name in upper is found first", name_first_found_in_upper),
            Trial("a name in lower is found first", name_first_found_in_lower),
            Trial("removed one by one", removed_one_by_one),
            Trial("removed over an empty lower", removed_without_lower),
            Trial("a copy-up was interrupted", interrupted_copy_up),
            Trial("the origin has vanished", origin_vanished),
        ),
    ),
    Group(
        "detached-directories",
        "When a directory becomes opaque, and what may come into one.",
        trials=(
            Trial("when it is listed", when_listed),
            Trial("when it is listed in parts", when_listed_in_parts),
            Trial("not when the overlay is read-only", not_when_read_only),
            Trial("not when upper is read-only", not_when_upper_is_read_only),
            partly("not when the listing seeks", seeks),
            partly("not when a name is made meanwhile", creates),
            partly("not when a name is removed meanwhile", removes),
            Trial("the root in another mode", in_another_mode),
            Trial("over whiteouts in xattrs", over_xattr_whiteouts),
            *MOVES,
        ),
    ),
)
