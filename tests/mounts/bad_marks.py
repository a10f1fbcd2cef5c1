# SPDX-License-Identifier: GPL-2.0-only
"""Marks of overlayfs that are malformed, lead nowhere or are not allowed: what a lookup makes of them.

A redirect or a copy of metadata that cannot be followed is an error of the lookup, never other content.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from datasets.layers import METACOPY, OPAQUE, REDIRECT
from datasets.tree import Directory, File, Node, Symlink, Whiteout
from tests.mounts.marked import ONE_LOWER, TWO_LOWERS, hollow, layers, names, open_for_writing, read
from union import namecalls
from union.marks import PROTATTR
from union.scenario import Group, Trial
from union.stand import Stand

LONG: Final = b"n" * 256  # longer than a name may be
TEXT: Final = b"lower"


def marked(*entries: str, **marks: bytes) -> Directory:
    """A directory with some empty files; marks by the end of their name."""
    return Directory(
        {name: File(b"") for name in entries}, xattrs={f"trusted.overlay.{k}": v for k, v in marks.items()}
    )


def refused(
    label: str, number: int | Sequence[int], upper: Node, lower: Node | None = None, options: str = ""
) -> Trial:
    """The lookup of `x`, which is this in upper and that in lower, fails; its neighbour is not concerned."""

    def work(stand: Stand) -> None:
        below = {} if lower is None else {"x": lower}
        layers(
            stand,
            u=Directory({"x": upper, "beside": File(b"beside")}),
            l=Directory({**below, "other": Directory({"in other": File(TEXT)}), "file": File(TEXT)}),
        )
        at = stand.mount(f"{ONE_LOWER},{options or 'redirect_dir=on,metacopy=on'}")
        stand.fails(number, os.stat, f"{at}/x")
        stand.same("neighbour", read(f"{at}/beside"), b"beside")

    return Trial(label, work)


def refused_in_lower(label: str, number: int, middle: Node, lower: Node, options: str) -> Trial:
    """As above in the upper one of two lowers, with no upper layer at all."""

    def work(stand: Stand) -> None:
        layers(stand, k=Directory({"x": middle, "beside": File(b"beside")}), l=Directory({"x": lower, "y": lower}))
        at = stand.mount(f"lowerdir={{k}}:{{l}},{options}")
        stand.fails(number, os.stat, f"{at}/x")
        stand.same("neighbour", read(f"{at}/beside"), b"beside")

    return Trial(label, work)


def lists(label: str, wanted: Sequence[str], upper: Directory, **lower: Node) -> Trial:
    """The directory `x`, which is this in upper over these entries of the lower root, lists these names."""

    def work(stand: Stand) -> None:
        layers(stand, u=Directory({"x": upper}), l=Directory(lower))
        at = stand.mount(f"{ONE_LOWER},redirect_dir=on")
        stand.same("listing", names(f"{at}/x"), set(wanted))
        for name in wanted:
            os.stat(f"{at}/x/{name}")

    return Trial(label, work)


DIRECTORY: Final = marked("below")
REDIRECTS = tuple(
    refused(f"a redirect to {shown!r}", number, marked(redirect=redirect))
    for redirect, number, shown in (
        (b"", errno.EINVAL, ""),
        (b"/", errno.EINVAL, "/"),
        (b"//other", errno.EINVAL, "//other"),
        (b"/other/", errno.EINVAL, "/other/"),
        (b"/a//b", errno.EINVAL, "/a//b"),
        (b"a/b", errno.EINVAL, "a/b"),
        (b"other/", errno.EINVAL, "other/"),
        (b".", errno.EACCES, "."),
        (b"..", errno.EACCES, ".."),
        (b"/../other", errno.EACCES, "/../other"),
        (b"/other/.", errno.EACCES, "/other/."),
    )
)
FOLLOWED = (
    lists("a redirect to a missing name merges nothing", ["a"], marked("a", redirect=b"gone"), x=DIRECTORY),
    lists("a redirect to a missing path merges nothing", ["a"], marked("a", redirect=b"/gone/y"), x=DIRECTORY),
    lists("a redirect to a file merges nothing", ["a"], marked("a", redirect=b"file"), x=DIRECTORY, file=File(b"")),
    lists("a redirect through a file merges nothing", ["a"], marked("a", redirect=b"/file/y"), file=File(b"")),
    lists("a redirect to a symlink is not followed", ["a"], marked("a", redirect=b"s"), s=Symlink("x"), x=DIRECTORY),
    lists("a redirect to a whiteout merges nothing", ["a"], marked("a", redirect=b"w"), w=Whiteout(), x=DIRECTORY),
    lists("a redirect to a name that is too long merges nothing", ["a"], marked("a", redirect=LONG), x=DIRECTORY),
    lists("a redirect to itself merges", ["a", "below"], marked("a", redirect=b"/x"), x=DIRECTORY),
    lists("an opaque mark beats a redirect", ["a"], marked("a", redirect=b"y", opaque=b"y"), x=DIRECTORY, y=DIRECTORY),
    lists("an empty opaque mark is none", ["a", "below"], marked("a", opaque=b""), x=DIRECTORY),
    lists("an opaque mark of another letter is none", ["a", "below"], marked("a", opaque=b"n"), x=DIRECTORY),
    lists("a long opaque mark is none", ["a", "below"], marked("a", opaque=b"yes"), x=DIRECTORY),
    lists("a metacopy mark on a directory is none", ["a", "below"], marked("a", metacopy=b""), x=DIRECTORY),
)
POLICY = (
    refused(
        "a redirect with redirect_dir=nofollow",
        errno.EPERM,
        marked(redirect=b"other"),
        DIRECTORY,
        "redirect_dir=nofollow",
    ),
    refused(
        "a redirect over nothing with redirect_dir=nofollow",
        (errno.EPERM, 0),  # 0: Linux before 6.16 asks only where it has found something below
        marked(redirect=b"y"),
        None,
        "redirect_dir=nofollow",
    ),
    refused_in_lower(
        "a lower redirect with redirect_dir=nofollow",
        errno.EPERM,
        marked(redirect=b"y"),
        DIRECTORY,
        "redirect_dir=nofollow",
    ),
    refused("a copy of metadata with metacopy=off", errno.EPERM, hollow(5), File(TEXT), "metacopy=off"),
    refused_in_lower("a lower copy of metadata with metacopy=off", errno.EPERM, hollow(5), File(TEXT), "metacopy=off"),
    refused_in_lower(
        "a lower one with a redirect and metacopy=off", errno.EPERM, hollow(5, b"y"), File(TEXT), "metacopy=off"
    ),
)
HOLLOW = (
    refused("metadata over nothing", errno.EIO, hollow(5)),
    refused("metadata over a directory", errno.EIO, hollow(5), DIRECTORY),
    refused("metadata over a symlink", errno.EIO, hollow(5), Symlink("file")),
    refused("metadata over a whiteout", errno.EIO, hollow(5), Whiteout()),
    refused("metadata over metadata and nothing", errno.EIO, hollow(5), hollow(5)),
    refused("metadata redirected to nothing", errno.EIO, hollow(5, b"gone"), File(TEXT)),
    refused("metadata redirected to a directory", errno.EIO, hollow(5, b"/other"), File(TEXT)),
    refused("metadata redirected by a bad path", errno.EINVAL, hollow(5, b"a/b"), File(TEXT)),
    refused("a metacopy mark of 3 bytes", errno.EIO, hollow(5, mark=b"\0\3\0"), File(TEXT)),
    refused("a lower metacopy mark of 1 byte", errno.EIO, hollow(5), hollow(5, mark=b"y")),
)


def on_no_directory(stand: Stand) -> None:
    """Marks of directories, or of files, mean nothing on other objects."""
    layers(
        stand,
        u=Directory(
            {
                "f": File(b"upper", xattrs={OPAQUE: b"y"}),
                "s": Symlink("f", xattrs={METACOPY: b"", OPAQUE: b"y", REDIRECT: b"other"}),
            }
        ),
        l=Directory({"f": File(TEXT), "other": File(TEXT)}),
    )
    at = stand.mount(f"{ONE_LOWER},redirect_dir=on,metacopy=on")
    stand.same("file", read(f"{at}/f"), b"upper")
    stand.same("symlink", os.readlink(f"{at}/s"), "f")
    stand.same("xattrs", (os.listxattr(f"{at}/f"), os.listxattr(f"{at}/s", follow_symlinks=False)), ([], []))


def through_opaque(stand: Stand) -> None:
    """An opaque directory on the way of a redirect hides the rest, unless a redirect in it leads on."""
    layers(
        stand,
        u=Directory({"shut": marked(redirect=b"/o/d"), "open": marked(redirect=b"/o/e")}),
        k=Directory({"o": Directory({"e": marked("middle", redirect=b"/p/e")}, xattrs={OPAQUE: b"y"})}),
        l=Directory(
            {
                "o": Directory({"d": marked("hidden"), "e": marked("hidden")}),
                "p": Directory({"e": marked("lowest")}),
            }
        ),
    )
    at = stand.mount(f"{TWO_LOWERS},redirect_dir=on")
    stand.same("shut off", names(f"{at}/shut"), set())
    stand.same("led on", names(f"{at}/open"), {"middle", "lowest"})


def one_below_the_other(stand: Stand) -> None:
    """Redirects in two layers: each says where its own layer's part goes on."""
    layers(
        stand,
        u=Directory({"a": Directory({"x": marked("top", redirect=b"y")})}),
        k=Directory({"a": Directory({"y": marked("middle", redirect=b"/b/z")})}),
        l=Directory(
            {"a": Directory({"x": marked("wrong"), "y": marked("wrong")}), "b": Directory({"z": marked("low")})}
        ),
    )
    at = stand.mount(f"{TWO_LOWERS},redirect_dir=follow")
    stand.same("listing", names(f"{at}/a/x"), {"top", "middle", "low"})


def without_whiteout(first: str, second: str) -> Trial:
    """A lower directory is under two names, for no whiteout hides the one that it had: the second to come is stale."""

    def work(stand: Stand) -> None:
        layers(
            stand,
            u=Directory({name: marked("a", redirect=b"/d") for name in ("moved", "again")}),
            l=Directory({"d": marked("below")}),
        )
        at = stand.mount(f"{ONE_LOWER},redirect_dir=on,index=off,nfs_export=off")
        os.stat(f"{at}/{first}")
        stand.fails(errno.ESTALE, os.stat, f"{at}/{second}")
        stand.holds("the first is still merged", "below" in names(f"{at}/{first}"))

    return Trial(f"a lower directory is found as {first}, then as {second}", work)


TWICE = tuple(without_whiteout(*pair) for pair in (("moved", "d"), ("d", "moved"), ("moved", "again")))


def protected(label: str, mark: bytes, overwriting: int, unlinking: int) -> Trial:
    """An upper file with this mark: what opening it for writing and removing it come to."""

    def work(stand: Stand) -> None:
        layers(stand, u=Directory({"f": File(b"upper", xattrs={PROTATTR: mark})}), l=Directory())
        at = stand.mount(ONE_LOWER)
        stand.fails(overwriting, open_for_writing, f"{at}/f")
        wanted = {bit for letter, bit in ((b"a", namecalls.STATX_ATTR_APPEND), (b"i", namecalls.STATX_ATTR_IMMUTABLE))
                  if overwriting and letter in mark}  # fmt: skip
        shown = namecalls.statx(f"{at}/f", follow=False).attributes
        stand.same("attributes", shown & (namecalls.STATX_ATTR_APPEND | namecalls.STATX_ATTR_IMMUTABLE), sum(wanted))
        stand.fails(unlinking, os.unlink, f"{at}/f")

    return Trial(label, work)


PROTECTED = (
    protected("append-only", b"a", errno.EPERM, errno.EPERM),
    protected("immutable", b"i", errno.EPERM, errno.EPERM),
    protected("both", b"ai", errno.EPERM, errno.EPERM),
    protected("an empty mark", b"", 0, 0),
    protected("an unknown letter", b"x", 0, 0),
    protected("a known letter and an unknown one", b"ix", 0, 0),
    protected("a mark that is too long", b"i" * 33, 0, 0),
)


GROUPS = (
    Group("bad-redirects", "Redirects that lead nowhere, or nowhere allowed.", trials=(*REDIRECTS, *FOLLOWED)),
    Group(
        "bad-marks",
        "Marks of layers that cannot be followed.",
        trials=(
            *POLICY,
            *HOLLOW,
            Trial("marks on objects that they are not for", on_no_directory),
            Trial("redirects through an opaque directory", through_opaque),
            Trial("redirects in two layers", one_below_the_other),
            *TWICE,
        ),
    ),
    Group("protection-marks", "File flags that the union keeps in an xattr.", trials=PROTECTED),
)
