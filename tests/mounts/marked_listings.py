# SPDX-License-Identifier: GPL-2.0-only
"""Listings and removals where layers hold marks: whiteouts of both kinds, impure directories, emptied ones."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from datasets.layers import ESCAPED, OPAQUE, PRIVATE, REDIRECT, WHITEOUT
from datasets.tree import Directory, File, Node, Special, Symlink, Whiteout
from tests.mounts.marked import ONE_LOWER, TWO_LOWERS, layers, names, open_for_writing, read, xattr
from union import namecalls
from union.marks import IMPURE, ORIGIN
from union.scenario import Group, Trial
from union.stand import Stand

GONE: Final = File(xattrs={WHITEOUT: b""})  # a whiteout that is a file


def holding(mark: str = "", **entries: Node) -> Directory:
    """A directory of these entries, `x` for one that may hold whiteouts that are files, `y` for an opaque one."""
    return Directory(entries, xattrs={OPAQUE: mark.encode()} if mark else {})


def inodes(path: str) -> Mapping[str, int]:
    """The d_ino of what a directory lists."""
    with os.scandir(path) as entries:
        return {entry.name: entry.inode() for entry in entries}


# whiteouts


def shows(label: str, wanted: set[str], options: str = TWO_LOWERS, **trees: Directory) -> Trial:
    """The directory d of the merge lists these names, each can be looked up, and no other one of any layer."""

    def work(stand: Stand) -> None:
        layers(stand, **{name: Directory({"d": tree}) for name, tree in trees.items()})
        at = stand.mount(options)
        for _ in range(2):
            stand.same("listing", names(f"{at}/d"), wanted)
        for name in wanted:
            os.lstat(f"{at}/d/{name}")
        for name in {name for tree in trees.values() for name in tree.entries} - wanted:
            stand.fails(errno.ENOENT, os.lstat, f"{at}/d/{name}")

    return Trial(label, work)


TEXT: Final = File(b"text")
LOWERS: Final = "lowerdir={j}:{k}:{l}"
WHITEOUTS: Final = (
    shows("a device in upper", {"g"}, k=holding(f=TEXT, g=TEXT), l=holding(f=TEXT), u=holding(f=Whiteout())),
    shows("a device in the middle", {"g"}, k=holding(f=Whiteout()), l=holding(f=TEXT, g=TEXT), u=holding()),
    shows("a device over nothing", {"g"}, k=holding(f=Whiteout()), l=holding(g=TEXT), u=holding(h=Whiteout())),
    shows("a device in the lowest layer", {"g"}, k=holding(g=TEXT), l=holding(f=Whiteout()), u=holding()),
    shows("a name above a device", {"f"}, k=holding(f=Whiteout()), l=holding(f=TEXT), u=holding(f=TEXT)),
    shows("another device", {"f"}, k=holding(f=Special(stat.S_IFCHR, rdev=os.makedev(1, 3))), l=holding(), u=holding()),
    shows(
        "a device in an opaque directory", {"g"}, k=holding("y", f=Whiteout(), g=TEXT), l=holding(f=TEXT), u=holding()
    ),
    shows("a device alone", set(), k=holding(f=Whiteout()), l=holding(), u=holding()),
    shows("a file in the middle", {"g"}, k=holding("x", f=GONE), l=holding(f=TEXT, g=TEXT), u=holding()),
    shows(
        "a file in the topmost lower",
        {"g"},
        LOWERS,
        j=holding("x", f=GONE),
        k=holding(f=TEXT),
        l=holding(f=TEXT, g=TEXT),
    ),
    shows("a file in the middle of three", {"g"}, LOWERS, j=holding(g=TEXT), k=holding("x", f=GONE), l=holding(f=TEXT)),
    shows("a name above a file", {"f"}, LOWERS, j=holding(f=TEXT), k=holding("x", f=GONE), l=holding(f=TEXT)),
    shows(
        "a file with content is none",
        {"f"},
        k=holding("x", f=File(b"1", xattrs={WHITEOUT: b""})),
        l=holding(f=TEXT),
        u=holding(),
    ),
    shows(
        "a symlink with the mark is none",
        {"f"},
        k=holding("x", f=Symlink("g", xattrs={WHITEOUT: b""})),
        l=holding(f=TEXT),
        u=holding(),
    ),
    shows(
        "a directory with the mark is none",
        {"f"},
        k=holding("x", f=Directory(xattrs={WHITEOUT: b""})),
        l=holding(f=TEXT),
        u=holding(),
    ),
    shows(
        "both kinds in one directory",
        {"h"},
        k=holding("x", f=GONE, g=Whiteout(), h=TEXT),
        l=holding(f=TEXT, g=TEXT),
        u=holding(),
    ),
)


def nested(stand: Stand) -> None:
    """Marks with an `overlay.` more are those of the next overlay: whiteouts, opaque directories, and whatever else."""
    escaped = ESCAPED
    lower = Directory(
        {
            "d": Directory(
                {"f": File(xattrs={f"{escaped}whiteout": b""}), "g": TEXT}, xattrs={f"{escaped}opaque": b"x"}
            ),
            "o": Directory({"g": TEXT}, xattrs={f"{escaped}opaque": b"y"}),
            "e": File(b"e", xattrs={f"{escaped}overlay.redirect": b"deep"}),
        }
    )
    below = Directory({"d": Directory({"f": TEXT}), "o": Directory({"f": TEXT}), "e": TEXT})
    layers(stand, l=lower, below=below, u2=Directory(), w2=Directory())
    inner = stand.mount(ONE_LOWER)
    stand.same("names in the first", names(f"{inner}/d"), {"f", "g"})
    stand.same("xattrs in the first", os.listxattr(f"{inner}/d/f"), [WHITEOUT])
    stand.same("mark in the first", os.getxattr(f"{inner}/o", OPAQUE), b"y")
    outer = stand.mount("lowerdir={m}:{below},upperdir={u2},workdir={w2}", "n")
    stand.same("names in the second", (names(f"{outer}/d"), names(f"{outer}/o")), ({"g"}, {"g"}))
    stand.same("xattrs in the second", os.listxattr(f"{outer}/e"), [f"{PRIVATE}redirect"])
    stand.unmount("n")


def escapes(stand: Stand) -> None:
    """What a user sets of overlayfs' own xattrs is kept, escaped, and copied up so."""
    layers(stand, l=Directory({"f": File(b"lower", xattrs={f"{ESCAPED}any": b"1"})}))
    at = stand.mount(ONE_LOWER)
    os.setxattr(f"{at}/f", f"{PRIVATE}opaque", b"2")
    os.setxattr(f"{at}/f", f"{PRIVATE}overlay.deep", b"3")
    shown = {name: os.getxattr(f"{at}/f", name) for name in os.listxattr(f"{at}/f")}
    wanted = {f"{PRIVATE}any": b"1", f"{PRIVATE}opaque": b"2", f"{PRIVATE}overlay.deep": b"3"}
    stand.same("shown", shown, wanted)
    kept = {name: os.getxattr(stand.path("u/f"), name) for name in os.listxattr(stand.path("u/f"))}
    stand.same("kept", {name: kept.get(f"{ESCAPED}{name.removeprefix(PRIVATE)}") for name in wanted}, wanted)
    os.removexattr(f"{at}/f", f"{PRIVATE}any")
    stand.fails(errno.ENODATA, os.getxattr, f"{at}/f", f"{PRIVATE}any")
    stand.fails(errno.ENODATA, os.removexattr, f"{at}/f", f"{PRIVATE}any")
    stand.fails(errno.EEXIST, create_xattr, f"{at}/f", f"{PRIVATE}opaque")
    stand.fails(errno.ERANGE, os.setxattr, f"{at}/f", f"{PRIVATE}{'n' * 240}", b"")


def create_xattr(path: str, name: str) -> None:
    """setxattr(2) of a name that must be new."""
    os.setxattr(path, name, b"", os.XATTR_CREATE)


def in_userxattr_mode(stand: Stand) -> None:
    """With userxattr the marks are user.overlay.*, and those of trusted.overlay.* are like any other xattr."""
    marks = {"user.overlay.opaque": b"y", "user.overlay.overlay.a": b"1"}
    layers(
        stand,
        u=Directory({"d": Directory({"g": TEXT}, xattrs=marks), "e": Directory(xattrs={OPAQUE: b"y"})}),
        l=Directory({"d": Directory({"f": TEXT}), "e": Directory({"f": TEXT})}),
    )
    at = stand.mount(f"{ONE_LOWER},userxattr")
    stand.same("opaque one", names(f"{at}/d"), {"g"})
    stand.same("its xattrs", os.listxattr(f"{at}/d"), ["user.overlay.a"])
    stand.same("other one", names(f"{at}/e"), {"f"})
    stand.same("its xattr", os.getxattr(f"{at}/e", OPAQUE), b"y")
    open_for_writing(f"{at}/e/f")
    stand.holds("user.overlay.origin", xattr(stand.path("u/e/f"), "user.overlay.origin") is not None)
    stand.same("trusted.overlay.origin", xattr(stand.path("u/e/f"), ORIGIN), None)


# impure directories


def impure(stand: Stand) -> str:
    """A pure upper directory `pure` with two names that came from lower, and one of its own; mounted."""
    layers(stand, l=Directory({"a": File(b"a"), "b": File(b"b")}))
    at = stand.mount(ONE_LOWER)
    os.mkdir(f"{at}/pure")
    for name in "ab":
        os.rename(f"{at}/{name}", f"{at}/pure/{name}")
    os.close(os.open(f"{at}/pure/own", os.O_CREAT | os.O_WRONLY))
    return at


def agrees(stand: Stand, at: str) -> None:
    """d_ino is st_ino for each name, as it is where all layers are on one filesystem."""
    for name, number in inodes(f"{at}/pure").items():
        stand.same(f"d_ino of {name}", number, os.lstat(f"{at}/pure/{name}").st_ino)


def numbers_of_origin(stand: Stand) -> None:
    at = impure(stand)
    for _ in range(2):
        agrees(stand, at)
        stand.same("number of a", inodes(f"{at}/pure")["a"], os.stat(stand.path("l/a")).st_ino)
        stand.same("mark", xattr(stand.path("u/pure"), IMPURE), b"y")
        stand.again(ONE_LOWER)


def forgotten(stand: Stand) -> None:
    """A listing removes the mark of a directory that has no name of lower any more."""
    at = impure(stand)
    for name in "ab":
        os.unlink(f"{at}/pure/{name}")
    stand.same("listing", names(f"{at}/pure"), {"own"})
    stand.same("mark", xattr(stand.path("u/pure"), IMPURE), None)
    agrees(stand, at)


def origins_gone(stand: Stand) -> None:
    """The same when only their origins are gone."""
    at = impure(stand)
    stand.unmount()
    for name in "ab":
        os.removexattr(stand.path(f"u/pure/{name}"), ORIGIN)
    stand.mount(ONE_LOWER)
    agrees(stand, at)
    stand.same("mark", xattr(stand.path("u/pure"), IMPURE), None)


def changed_while_listed(stand: Stand) -> None:
    """A name that comes or goes makes the next listing look again."""
    at = impure(stand)
    agrees(stand, at)
    os.unlink(f"{at}/pure/a")
    os.rename(f"{at}/pure/b", f"{at}/pure/c")
    stand.same("listing", names(f"{at}/pure"), {"c", "own"})
    agrees(stand, at)
    os.rename(f"{at}/pure/c", f"{at}/b")
    agrees(stand, at)
    stand.same("mark", xattr(stand.path("u/pure"), IMPURE), None)


def many_names(stand: Stand) -> None:
    """A merge directory is listed in parts, and again from a position in it."""
    some = {f"n{number:03}": File() for number in range(100)}
    layers(stand, l=Directory({"d": Directory(some)}), u=Directory({"d": Directory({"n003": Whiteout(), "u": TEXT})}))
    at = stand.mount(ONE_LOWER)
    wanted = {*some, "u"} - {"n003"}
    fd = os.open(f"{at}/d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.lseek(fd, 2, os.SEEK_SET)
        stand.same("past `.` and `..` at first", {cookie.name for cookie in namecalls.getdents(fd, 8192)}, wanted)
        os.lseek(fd, 0, os.SEEK_SET)
        parts = []
        while part := namecalls.getdents(fd, 512):
            parts.append(part)
        stand.same("listing", {cookie.name for part in parts for cookie in part}, {*wanted, ".", ".."})
        os.lseek(fd, parts[2][-1].after, os.SEEK_SET)
        stand.same("from there on", namecalls.getdents(fd, 512), parts[3])
        stand.fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
        stand.fails(errno.EINVAL, os.lseek, fd, 0, os.SEEK_END)
        end = parts[-1][-1].after
        os.lseek(fd, end + 7, os.SEEK_SET)
        stand.same("behind the end", namecalls.getdents(fd, 512), [])
    finally:
        os.close(fd)


# directories that are removed


def emptied(label: str, prepare: Callable[[str], str]) -> Trial:
    """A directory that shows nothing but holds whiteouts in upper is removed, and stays removed."""

    def work(stand: Stand) -> None:
        lower = Directory({"d": Directory({"f": TEXT, "g": TEXT}), "e": Directory()})
        layers(stand, l=lower)
        options = f"{ONE_LOWER},redirect_dir=on"
        at = stand.mount(options)
        name = prepare(at)
        stand.fails(errno.ENOTEMPTY, os.rmdir, f"{at}/{name}")
        for file in ("f", "g"):
            os.unlink(f"{at}/{name}/{file}")
        stand.same("listing", names(f"{at}/{name}"), set())
        os.rmdir(f"{at}/{name}")
        stand.fails(errno.ENOENT, os.stat, f"{at}/{name}")
        os.mkdir(f"{at}/{name}")
        stand.same("made again", names(f"{at}/{name}"), set())
        stand.again(options)
        stand.same("mounted again", names(f"{at}/{name}"), set())

    return Trial(label, work)


def where_it_is(_: str) -> str:
    return "d"


def renamed(at: str) -> str:
    os.rename(f"{at}/d", f"{at}/renamed")
    return "renamed"


def moved(at: str) -> str:
    os.mkdir(f"{at}/pure")
    os.rename(f"{at}/d", f"{at}/pure/d")
    return "pure/d"


def renamed_over(stand: Stand) -> None:
    """A directory that holds nothing but whiteouts may be replaced; one that shows a name may not."""
    layers(stand, l=Directory({"d": Directory({"f": TEXT}), "e": Directory({"g": TEXT})}))
    at = stand.mount(f"{ONE_LOWER},redirect_dir=on")
    os.mkdir(f"{at}/new")
    stand.fails(errno.ENOTEMPTY, os.rename, f"{at}/new", f"{at}/d")
    os.unlink(f"{at}/d/f")
    os.rename(f"{at}/new", f"{at}/d")
    stand.same("listing", names(f"{at}/d"), set())
    os.unlink(f"{at}/e/g")
    os.rename(f"{at}/e", f"{at}/moved")
    os.mkdir(f"{at}/other")
    os.rename(f"{at}/other", f"{at}/moved")
    stand.same("listing of the moved", names(f"{at}/moved"), set())


def without_lower(stand: Stand) -> None:
    """Whiteouts of a directory whose lower is gone: its origin, even an unknown one, says that it may hold some."""
    layers(stand, u=Directory({"d": Directory({"f": Whiteout()}, xattrs={ORIGIN: b""})}), l=Directory())
    at = stand.mount(ONE_LOWER)
    stand.same("listing", names(f"{at}/d"), set())
    stand.fails(errno.ENOENT, os.stat, f"{at}/d/f")
    os.rmdir(f"{at}/d")
    stand.same("upper", names(stand.path("u")), set())


def exchanged(stand: Stand) -> None:
    """A pure upper directory that takes the place of a lower one does not merge with it."""
    layers(stand, l=Directory({"d": Directory({"f": TEXT}), "f": TEXT}))
    at = stand.mount(f"{ONE_LOWER},redirect_dir=on")
    os.makedirs(f"{at}/pure/one")
    os.mkdir(f"{at}/pure/two")
    for name, other in (("d", "one"), ("f", "two")):
        namecalls.rename(f"{at}/{name}", f"{at}/pure/{other}", namecalls.RENAME_EXCHANGE)
    for _ in range(2):
        stand.same("listings", [names(f"{at}/{name}") for name in ("d", "f", "pure/one")], [set(), set(), {"f"}])
        stand.same("content", read(f"{at}/pure/two"), b"text")
        stand.again(f"{ONE_LOWER},redirect_dir=on")


def too_long(stand: Stand) -> None:
    """A directory whose path is too long for a redirect is not moved: EXDEV, as to another filesystem."""
    name = "n" * 140
    layers(stand, l=Directory({name: Directory({name: Directory({"f": TEXT}), "d": Directory({"f": TEXT})})}))
    at = stand.mount(f"{ONE_LOWER},redirect_dir=on")
    stand.fails(errno.EXDEV, os.rename, f"{at}/{name}/{name}", f"{at}/moved")
    stand.same("listing", names(f"{at}/{name}/{name}"), {"f"})
    for old, new in ((f"{name}/{name}", f"{name}/renamed"), (f"{name}/d", "moved")):
        os.rename(f"{at}/{old}", f"{at}/{new}")
        stand.same(f"listing of {new[-7:]}", names(f"{at}/{new}"), {"f"})


def one_bad_name(stand: Stand) -> None:
    """Names are looked up for their numbers: one that cannot be is left out of a merge, and fails another listing."""
    bad = Directory({"bad": Directory(xattrs={REDIRECT: b"a/b"}), "good": TEXT}, xattrs={IMPURE: b"y"})
    layers(stand, u=Directory({"d": bad, "pure": bad}), l=Directory({"d": Directory({"f": TEXT})}))
    at = stand.mount(f"{ONE_LOWER},redirect_dir=on")
    stand.same("merge directory", names(f"{at}/d"), {"good", "f"})
    stand.fails(errno.EINVAL, os.listdir, f"{at}/pure")
    for name in ("d", "pure"):
        stand.fails(errno.EINVAL, os.stat, f"{at}/{name}/bad")
        stand.same("a good name", read(f"{at}/{name}/good"), b"text")
    stand.unmount()
    for name in ("d", "pure"):
        os.rmdir(stand.path(f"u/{name}/bad"))
    stand.mount(f"{ONE_LOWER},redirect_dir=on")
    stand.same("listings then", [names(f"{at}/{name}") for name in ("d", "pure")], [{"good", "f"}, {"good"}])


def left_behind(stand: Stand) -> None:
    """What a crash left in the work directory is removed when mounting, with all that is in it."""
    layers(
        stand,
        l=Directory({"f": TEXT}),
        w=Directory(
            {"work": Directory({"#1": TEXT, "#2": Directory({"a": TEXT, "b": Directory()}), "#3": Whiteout()})}
        ),
    )
    at = stand.mount(ONE_LOWER)
    stand.same("work directory", names(stand.path("w/work")), set())
    stand.same("content", read(f"{at}/f"), b"text")


GROUPS = (
    Group("whiteouts", "Whiteouts of both kinds in several layers.", trials=WHITEOUTS),
    Group(
        "nested-marks",
        "Marks that are escaped, or those of another mode.",
        trials=(
            Trial("an overlay of an overlay", nested),
            Trial("xattrs that users set", escapes),
            Trial("marks with userxattr", in_userxattr_mode),
        ),
    ),
    Group(
        "impure-listings",
        "Inode numbers in directories with names of lower layers.",
        trials=(
            Trial("numbers are those of the origin", numbers_of_origin),
            Trial("a directory with no name of lower left", forgotten),
            Trial("a directory whose origins are gone", origins_gone),
            Trial("names that come and go", changed_while_listed),
            Trial("in parts, and from a position", many_names),
        ),
    ),
    Group(
        "marked-directories",
        "Directories that hold whiteouts alone, that move, and what a crash left.",
        trials=(
            emptied("removed where it is", where_it_is),
            emptied("removed where it was renamed to", renamed),
            emptied("removed in an upper directory", moved),
            Trial("renamed over", renamed_over),
            Trial("removed when its lower is gone", without_lower),
            Trial("exchanged with a directory that is in upper alone", exchanged),
            Trial("a path too long for a redirect", too_long),
            Trial("one name that cannot be looked up", one_bad_name),
            Trial("left in the work directory", left_behind),
        ),
    ),
)
