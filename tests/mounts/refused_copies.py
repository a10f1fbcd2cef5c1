# SPDX-License-Identifier: GPL-2.0-only
"""Copies that upper cannot hold: what may be left out, and what must not be lost without a word."""

from __future__ import annotations

import os
from errno import EACCES, ENODATA, ENOSPC, ENOTTY, EOPNOTSUPP, EPERM, EXDEV
from typing import Final

from datasets.acl import ACCESS, DEFAULT
from datasets.tree import IMMUTABLE, NOATIME, Directory, File
from tests.mounts.out_of_memory import DEFAULT_ACL, FILE_ACL, rename
from union import namecalls
from union.portrait import differences, portrait
from union.scenario import Group, Trial
from union.stand import Stand, attempt

UPPER: Final = "lowerdir={l},upperdir={up/u},workdir={up/w}"
BARE: Final = f"{UPPER},uuid=null,redirect_dir=nofollow"  # asks for nothing that takes xattrs
PROPERTY: Final = "btrfs.compression"
TWO: Final = Directory({"u": Directory(), "w": Directory()})


def acl_that_upper_refuses(stand: Stand) -> None:
    """An ACL may keep people out, so no copy is made without it."""
    tree = Directory({
        "f": File(b"f", 0o660, xattrs={ACCESS: FILE_ACL}),
        "d": Directory({}, xattrs={DEFAULT: DEFAULT_ACL}),
        "plain": File(b"plain", xattrs={"user.one": b"1"}),
    })  # fmt: skip
    stand.layers(l=tree)
    stand.filesystem("up", "btrfs", TWO, options="noacl")
    point = stand.mount(UPPER)
    before = portrait(point)
    for name in ("f", "d"):
        stand.fails(EOPNOTSUPP, os.chmod, f"{point}/{name}", 0o777)
    stand.fails(EOPNOTSUPP, os.setxattr, f"{point}/plain", ACCESS, FILE_ACL)
    stand.fails(EOPNOTSUPP, os.rename, f"{point}/f", f"{point}/g")
    stand.holds(f"the same tree: {differences(portrait(point), before)}", portrait(point) == before)
    stand.fails(0, os.chmod, f"{point}/plain", 0o600)
    stand.same("its xattr", os.getxattr(f"{point}/plain", "user.one"), b"1")


def xattr_that_is_too_large(stand: Stand) -> None:
    """ext4 holds a block of them, tmpfs more."""
    stand.layers(l=Directory({"f": File(b"f", xattrs={"trusted.large": b"x" * 30000, "user.small": b"s"})}))
    stand.filesystem("up", "ext4", TWO)
    point = stand.mount(UPPER)
    before = portrait(point)
    stand.fails(ENOSPC, os.chmod, f"{point}/f", 0o600)
    stand.fails(ENOSPC, os.truncate, f"{point}/f", 0)
    stand.holds(f"the same tree: {differences(portrait(point), before)}", portrait(point) == before)


def xattr_that_upper_does_not_know(stand: Stand) -> None:
    """A property of btrfs means nothing elsewhere: it may be left out of a copy."""
    lower = stand.filesystem("l", "btrfs", Directory({"f": File(b"f", xattrs={"user.one": b"1"})}))
    os.setxattr(lower.root / "f", PROPERTY, b"zlib")
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    stand.same("the property", os.getxattr(f"{point}/f", PROPERTY), b"zlib")
    stand.fails(0, os.chmod, f"{point}/f", 0o600)
    stand.same("xattrs of the copy", os.listxattr(f"{point}/f"), ["user.one"])
    stand.fails(EOPNOTSUPP, os.setxattr, f"{point}/f", PROPERTY, b"zlib")


def xattrs_on_an_upper_without(stand: Stand) -> None:
    """Unknown xattrs may be left out of a copy."""
    stand.layers(l=Directory({"f": File(b"f", xattrs={"user.one": b"1"}), "g": File(b"g", flags=NOATIME)}))
    stand.filesystem("up", "ramfs", TWO)
    stand.warns("failed to set xattr on upper")
    point = stand.mount(BARE)
    stand.same("xattr of lower", os.getxattr(f"{point}/f", "user.one"), b"1")
    for name in ("f", "g"):
        stand.fails(0, os.chmod, f"{point}/{name}", 0o600)
        stand.same("mode", os.stat(f"{point}/{name}").st_mode & 0o777, 0o600)
    stand.holds("the xattr is gone", attempt(os.getxattr, f"{point}/f", "user.one") in (ENODATA, EOPNOTSUPP))


def protection_on_an_upper_without_xattrs(stand: Stand) -> None:
    """What upper cannot hold cannot be changed there; nothing is lost by trying."""
    stand.layers(l=Directory({"f": File(b"f", flags=IMMUTABLE)}))
    stand.filesystem("up", "ramfs", TWO)
    stand.warns("failed to set xattr on upper")
    point = stand.mount(BARE)
    stand.same("flags of lower", namecalls.get_flags(f"{point}/f") & IMMUTABLE, IMMUTABLE)
    stand.fails(EPERM, os.truncate, f"{point}/f", 0)
    stand.fails(ENOTTY, namecalls.set_flags, f"{point}/f", 0)  # upper has no flags at all
    stand.same("content", attempt(os.stat, f"{point}/f"), 0)


def path_that_is_too_long(stand: Stand) -> None:
    """An absolute redirect has 256 bytes at most, as documented; within a directory it is the name alone."""
    deep = "/".join(letter * 70 for letter in "abcd")
    bottom = Directory({"e": Directory({"f": File(b"f")}), "g": Directory()})
    for name in reversed(deep.split("/")):
        bottom = Directory({name: bottom})
    stand.layers(l=Directory({**bottom.entries, "to": Directory()}), u=Directory(), w=Directory())
    options = "lowerdir={l},upperdir={u},workdir={w},redirect_dir=on"
    point = stand.mount(options)
    before = portrait(point)
    stand.fails(EXDEV, os.rename, f"{point}/{deep}/e", f"{point}/to/e")
    stand.same("exchanged", attempt(lambda: exchange(point, f"{deep}/e", "to")), EXDEV)
    stand.holds(f"the same tree: {differences(portrait(point), before)}", portrait(point) == before)
    stand.fails(0, os.rename, f"{point}/{deep}/e", f"{point}/{deep}/h")
    point = stand.again(options)
    stand.same("moved", portrait(f"{point}/{deep}/h").keys(), {"", "f"})


def exchange(point: str, old: str, new: str) -> object:
    """RENAME_EXCHANGE."""
    return rename(old, new, namecalls.RENAME_EXCHANGE)(point)


def default_acl_of_a_file(stand: Stand) -> None:
    """Only directories have one; its removal is nothing."""
    stand.layers(l=Directory({"f": File(b"f")}), u=Directory(), w=Directory())
    point = stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    stand.fails(EACCES, os.setxattr, f"{point}/f", DEFAULT, DEFAULT_ACL)
    stand.fails((0, ENODATA), os.removexattr, f"{point}/f", DEFAULT)
    stand.fails((0, ENODATA), os.removexattr, f"{point}/f", ACCESS)
    stand.fails(0, os.setxattr, f"{point}/f", ACCESS, FILE_ACL)


def group_that_the_owner_is_not_in(stand: Stand) -> None:
    """An ACL set by such an owner takes the setgid bit away, as chmod does."""
    stand.layers(
        l=Directory({"f": File(b"f", 0o2750, 5, 6), "d": Directory({}, 0o2750, 5, 6)}), u=Directory(), w=Directory()
    )
    point = stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    os.seteuid(5)
    try:
        for name in ("f", "d"):
            stand.fails(0, os.setxattr, f"{point}/{name}", ACCESS, FILE_ACL)
    finally:
        os.seteuid(0)
    for name in ("f", "d"):
        stand.same(f"mode of {name}", os.stat(f"{point}/{name}").st_mode & 0o7777, 0o660)
        stand.same(f"ACL of {name}", os.getxattr(f"{point}/{name}", ACCESS), FILE_ACL)


GROUPS = (
    Group(
        "refused-copies",
        "Copy up what upper cannot hold.",
        trials=(
            Trial("an ACL that upper refuses", acl_that_upper_refuses),
            Trial("an xattr that is too large for upper", xattr_that_is_too_large),
            Trial("an xattr that upper does not know", xattr_that_upper_does_not_know),
            Trial("xattrs and flags on an upper without them", xattrs_on_an_upper_without),
            Trial("a protection on an upper without xattrs", protection_on_an_upper_without_xattrs),
            Trial("a path that is too long for a redirect", path_that_is_too_long),
            Trial("a default ACL of a file", default_acl_of_a_file),
            Trial("an ACL and a group that the owner is not in", group_that_the_owner_is_not_in),
        ),
    ),
)
