# SPDX-License-Identifier: GPL-2.0-only
"""Layers on idmapped mounts: owners and ACLs are mapped, and copy-up keeps what is shown."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File
from union.idmaps import Mapping, idmapped
from union.scenario import Group, Trial
from union.stand import Stand, attempt

LIFTED: Final = Mapping(0, 1000, 100)  # what is 0 on disk is shown as 1000
LOWERED: Final = Mapping(1000, 0, 100)

ON_DISK: Final = acl("u::rwx,u:3:r-x,g::---,g:4:r--,m::r-x,o::---")
SHOWN: Final = acl("u::rwx,u:1003:r-x,g::---,g:1004:r--,m::r-x,o::---")
TREE: Final = Directory({
    "f": File(b"f", 0o750, 1, 2, {ACCESS: ON_DISK}),
    "d": Directory({"g": File(b"g", 0o604, 3, 3)}, 0o750, 1, 2, {ACCESS: ON_DISK, DEFAULT: ON_DISK}),
    "foreign": File(b"foreign", 0o644, 500, 1),
})  # fmt: skip


def over_mapped(stand: Stand) -> str:
    """A lower on an idmapped mount, an upper on a plain one."""
    stand.layers(disk=TREE, u=Directory(), w=Directory())
    idmapped(stand, "disk", "l", LIFTED)
    return stand.mount("lowerdir={l},upperdir={u},workdir={w}")


def owner(path: str) -> tuple[int, int]:
    """Of the name itself."""
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def shows_mapped(stand: Stand) -> None:
    point = over_mapped(stand)
    for name in ("f", "d"):
        stand.same(f"owner of {name}", owner(f"{point}/{name}"), (1001, 1002))
        stand.same(f"ACL of {name}", os.getxattr(f"{point}/{name}", ACCESS), SHOWN)
    stand.same("default ACL", os.getxattr(f"{point}/d", DEFAULT), SHOWN)
    stand.same("ACL on disk", os.getxattr(stand.path("disk/f"), ACCESS), ON_DISK)


def copies_up_what_is_shown(stand: Stand) -> None:
    point = over_mapped(stand)
    for name in ("f", "d"):
        os.utime(f"{point}/{name}", (1, 1))
        for where in (point, stand.path("u")):
            stand.same(f"owner of {where}/{name}", owner(f"{where}/{name}"), (1001, 1002))
            stand.same(f"ACL of {where}/{name}", os.getxattr(f"{where}/{name}", ACCESS), SHOWN)
    stand.same("default ACL", os.getxattr(f"{point}/d", DEFAULT), SHOWN)
    os.close(os.open(f"{point}/d/new", os.O_CREAT | os.O_WRONLY, 0o666))
    stand.holds("the default ACL is inherited", b"\xeb\x03" in os.getxattr(f"{point}/d/new", ACCESS))  # 1003


def an_owner_outside_the_mapping(stand: Stand) -> None:
    """It cannot be shown, so it cannot be copied up."""
    point = over_mapped(stand)
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    stand.same("owner", owner(f"{point}/foreign"), (overflow, 1001))
    stand.fails(errno.EOVERFLOW, os.chmod, f"{point}/foreign", 0o600)
    stand.fails(0, os.stat, f"{point}/foreign")
    stand.holds("nothing is in upper", not os.listdir(stand.path("u")))


def who_may_enter(stand: Stand, point: str, users: dict[int, int]) -> None:
    """Errno of a stat inside `d`, by user."""
    for user, wanted in users.items():
        os.seteuid(user)
        try:
            got = attempt(os.stat, f"{point}/d/g")
        finally:
            os.seteuid(0)
        stand.same(f"stat by {user}", got, wanted)


def permission_by_mapped_acl(stand: Stand) -> None:
    point = over_mapped(stand)
    who_may_enter(stand, point, {1003: 0, 3: errno.EACCES, 1001: 0, 1: errno.EACCES, 0: 0})
    os.utime(f"{point}/d", (1, 1))
    who_may_enter(stand, point, {1003: 0, 3: errno.EACCES})


def permission_by_plain_acl(stand: Stand) -> None:
    stand.layers(l=TREE, u=Directory(), w=Directory())
    point = stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    who_may_enter(stand, point, {3: 0, 1003: errno.EACCES, 1: 0})
    who_may_enter(stand, point, {3: 0, 1003: errno.EACCES, 1: 0})


def an_upper_that_is_mapped(stand: Stand) -> None:
    """What is made by 0 is 1000 on disk; copy-up maps likewise."""
    at_home = Directory(uid=1000, gid=1000)
    stand.layers(l=TREE, disk=Directory({"u": at_home, "w": at_home}))
    idmapped(stand, "disk", "up", LOWERED)
    point = stand.mount("lowerdir={l},upperdir={up/u},workdir={up/w}")
    os.close(os.open(f"{point}/new", os.O_CREAT | os.O_WRONLY))
    os.mkdir(f"{point}/d/sub")
    os.utime(f"{point}/f", (1, 1))
    for name, shown in {"new": (0, 0), "d/sub": (0, 0), "d": (1, 2), "f": (1, 2)}.items():
        stand.same(f"owner of {name}", owner(f"{point}/{name}"), shown)
        on_disk = (shown[0] + 1000, shown[1] + 1000)
        stand.same(f"owner of {name} on disk", owner(stand.path(f"disk/u/{name}")), on_disk)
    stand.same("ACL", os.getxattr(f"{point}/f", ACCESS), ON_DISK)
    stand.same("ACL on disk", os.getxattr(stand.path("disk/u/f"), ACCESS), SHOWN)
    os.unlink(f"{point}/f")
    os.rename(f"{point}/new", f"{point}/f")
    stand.same("owner after the rename", owner(f"{point}/f"), (0, 0))
    os.setxattr(f"{point}/f", ACCESS, ON_DISK)
    stand.same("a new ACL on disk", os.getxattr(stand.path("disk/u/f"), ACCESS), SHOWN)
    stand.fails(errno.EOVERFLOW, os.chmod, f"{point}/foreign", 0o600)


def an_overlay_that_is_mapped(stand: Stand) -> None:
    """overlayfs does not support it."""
    stand.layers(l=TREE, u=Directory(), w=Directory())
    stand.mount("lowerdir={l},upperdir={u},workdir={w}")
    stand.fails(errno.EINVAL, idmapped, stand, "m", "n", LIFTED)


GROUPS = (
    Group(
        "idmapped-layers",
        "Mount an overlay of layers on idmapped mounts.",
        trials=(
            Trial("owners and ACLs of lower are mapped", shows_mapped),
            Trial("copy-up keeps owners and ACLs as they are shown", copies_up_what_is_shown),
            Trial("an owner outside the mapping", an_owner_outside_the_mapping),
            Trial("a mapped ACL decides who may enter", permission_by_mapped_acl),
            Trial("an ACL decides who may enter", permission_by_plain_acl),
            Trial("upper is mapped", an_upper_that_is_mapped),
            Trial("an overlay cannot be mapped itself", an_overlay_that_is_mapped),
        ),
    ),
)
