# SPDX-License-Identifier: GPL-2.0-only
"""Read-only overlays: every kind of change is refused; and remounts, of which the read-only state alone can change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from errno import EBUSY, EINVAL, EOPNOTSUPP, EROFS
from pathlib import Path
from typing import Final, NamedTuple

from datasets.tree import IMMUTABLE, NODUMP, Directory, File, Symlink
from tests.mounts.phrases import LAYERS, needs_option
from union import filecalls, namecalls
from union.filecalls import OVERLAYFS_MAGIC
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name
from union.syscalls import MS_RDONLY, FsContext

FIFREEZE: Final = 0xC0045877


def layers(stand: Stand) -> None:
    """A lower with one of each, an upper that has a file of its own."""
    stand.layers(
        l=Directory({
            "f": File(b"lower", xattrs={"user.x": b"1"}),
            "d": Directory({"in": File()}),
            "e": Directory(),
            "s": Symlink("f"),
        }),
        k=Directory(),
        u=Directory({"own": File(b"upper")}),
        w=Directory(),
    )  # fmt: skip


def opened(flags: int) -> Callable[[str], None]:
    def work(path: str) -> None:
        os.close(os.open(path, flags, 0o600))

    return work


class Change(NamedTuple):
    """Something that changes a filesystem: a name, the call, and the name it is done to."""

    label: str
    call: Callable[[str], object]
    name: str


CHANGES: Final = (
    Change("open to write", opened(os.O_WRONLY), "f"),
    Change("open to read and write", opened(os.O_RDWR), "f"),
    Change("open to append", opened(os.O_WRONLY | os.O_APPEND), "f"),
    Change("open to truncate", opened(os.O_RDONLY | os.O_TRUNC), "f"),
    Change("create", opened(os.O_WRONLY | os.O_CREAT), "new"),
    Change("create a temporary file", opened(os.O_RDWR | os.O_TMPFILE), "d"),
    Change("mkdir", os.mkdir, "new"),
    Change("mknod", os.mknod, "new"),
    Change("symlink", lambda path: os.symlink("f", path), "new"),
    Change("link", lambda path: os.link(path, f"{path}2"), "f"),
    Change("unlink", os.unlink, "f"),
    Change("rmdir", os.rmdir, "e"),
    Change("rename", lambda path: os.rename(path, f"{path}2"), "f"),
    Change("rename a directory", lambda path: os.rename(path, f"{path}2"), "d"),
    Change("truncate", lambda path: os.truncate(path, 0), "f"),
    Change("chmod", lambda path: os.chmod(path, 0o600), "f"),
    Change("chmod of the root", lambda path: os.chmod(path, 0o700), "."),
    Change("chown", lambda path: os.chown(path, 1, 1), "f"),
    Change("chown of a symlink", lambda path: os.lchown(path, 1, 1), "s"),
    Change("utime", os.utime, "f"),
    Change("setxattr", lambda path: os.setxattr(path, "user.y", b"2"), "f"),
    Change("removexattr", lambda path: os.removexattr(path, "user.x"), "f"),
    Change("set flags", lambda path: namecalls.set_flags(path, NODUMP), "f"),
)


def all_refused(stand: Stand, at: str) -> None:
    """Nothing can be changed, all can be read, and nothing has come into the upper."""
    for change in CHANGES:
        got = attempt(change.call, f"{at}/{change.name}")
        stand.same(change.label, errno_name(got), "EROFS")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.same("upper", sorted(os.listdir(stand.path("u"))), ["own"])


def all_taken(stand: Stand, at: str) -> None:
    """The same changes on a writable overlay, where none of them can be undone by another."""
    for change in CHANGES:
        if change.label in ("open to write", "create", "mkdir", "chmod", "setxattr", "utime"):
            got = attempt(change.call, f"{at}/{change.name}{'2' if change.label == 'mkdir' else ''}")
            stand.same(change.label, errno_name(got), "success")


def read_only(stand: Stand) -> None:
    layers(stand)
    at = stand.mount(LAYERS, flags=MS_RDONLY)
    all_refused(stand, at)
    stand.same("of the upper", Path(at, "own").read_bytes(), b"upper")


def no_upper(stand: Stand) -> None:
    layers(stand)
    all_refused(stand, stand.mount("lowerdir={l}:{k}"))


def forced(stand: Stand) -> None:
    """A work directory that takes no entry makes the overlay read-only, and it stays so."""
    layers(stand)
    namecalls.set_flags(stand.path("w"), IMMUTABLE)
    stand.undo(lambda: namecalls.set_flags(stand.path("w"), 0))
    stand.warns("mounting read-only")
    at = stand.mount(LAYERS)
    all_refused(stand, at)
    stand.same("of the upper", Path(at, "own").read_bytes(), b"upper")
    stand.fails(EROFS, stand.remount, "")


def forced_with_exports(stand: Stand) -> None:
    """Without an index there is no nfs_export, and neither is shown."""
    layers(stand)
    namecalls.set_flags(stand.path("w"), IMMUTABLE)
    stand.undo(lambda: namecalls.set_flags(stand.path("w"), 0))
    stand.warns("mounting read-only", "NFS export requires an index dir, falling back to nfs_export=off")
    stand.mount(f"{LAYERS},nfs_export=on,index=on")
    stand.same("shown", [key for key in ("index", "nfs_export") if stand.shown().get(key) == "on"], [])


def there_and_back(stand: Stand) -> None:
    """Writable, read-only and writable again."""
    layers(stand)
    at = stand.mount(LAYERS)
    stand.remount("", flags=MS_RDONLY)
    all_refused(stand, at)
    stand.remount("")
    all_taken(stand, at)


def from_read_only(stand: Stand) -> None:
    """Mounted read-only, writable later."""
    layers(stand)
    at = stand.mount(LAYERS, flags=MS_RDONLY)
    stand.remount("")
    all_taken(stand, at)


def volatile(stand: Stand) -> None:
    """A volatile overlay becomes read-only too."""
    layers(stand)
    at = stand.mount(f"{LAYERS},volatile")
    stand.remount("", flags=MS_RDONLY)
    all_refused(stand, at)


def never_writable(stand: Stand) -> None:
    layers(stand)
    stand.mount("lowerdir={l}:{k}")
    stand.fails(EROFS, stand.remount, "")
    stand.fails(EROFS, stand.remount, LAYERS)
    stand.fails(0, stand.remount, "", "m", MS_RDONLY)


def busy(stand: Stand) -> None:
    """Not read-only while a file is open for writing."""
    layers(stand)
    fd = os.open(f"{stand.mount(LAYERS)}/f", os.O_WRONLY)
    stand.fails(EBUSY, stand.remount, "", "m", MS_RDONLY)
    os.close(fd)
    stand.fails(0, stand.remount, "", "m", MS_RDONLY)


def ignored(stand: Stand) -> None:
    """A remount by mount(2) takes any other option and changes nothing, as it always did."""
    layers(stand)
    stand.mount(f"{LAYERS},redirect_dir=on,index=off")
    before = stand.shown()
    for options in ("redirect_dir=nofollow", "index=on", "redirect_dir=sideways", "no_such_option", "lowerdir={k}"):
        stand.fails(0, stand.remount, options)
        stand.same(f"shown after {options}", stand.shown(), before)


def reconfigured(stand: Stand) -> None:
    """fspick(2) refuses every option of overlayfs, and says so; the read-only state is changed."""
    layers(stand)
    at = stand.mount(LAYERS)
    for key, value in (("redirect_dir", "on"), ("userxattr", ""), ("lowerdir", "{k}"), ("no_such_option", "1")):
        with FsContext("overlay", at) as context:
            stand.fails(EINVAL, context.set, key, stand.spell(value))
            said = context.messages()
            stand.holds(f"{said} for {key}", any("No changes allowed in reconfigure" in line for line in said))
    for flag, wanted in (("ro", "EROFS"), ("rw", "success")):
        with FsContext("overlay", at) as context:
            context.set(flag)
            context.reconfigure()
        stand.same(f"write with {flag}", errno_name(attempt(opened(os.O_WRONLY), f"{at}/f")), wanted)


def never_reconfigured(stand: Stand) -> None:
    layers(stand)
    with FsContext("overlay", stand.mount("lowerdir={l}:{k}")) as context:
        context.set("rw")
        stand.fails(EROFS, context.reconfigure)


def synced(options: str, needs: tuple[str, str] | None = None) -> Trial:
    """The whole overlay and single files are synced without an error, read-only too; the data is there."""

    def work(stand: Stand) -> None:
        if needs:
            needs_option(*needs)
        layers(stand)
        at = stand.mount(",".join(filter(None, (LAYERS, options))))
        Path(at, "f").write_bytes(b"written")
        for _ in range(2):
            fd = os.open(f"{at}/f", os.O_RDONLY)
            stand.fails(0, os.fsync, fd)
            stand.fails(0, os.fdatasync, fd)
            stand.fails(0, filecalls.syncfs, fd)
            os.close(fd)
            directory = os.open(at, os.O_RDONLY)
            stand.fails(0, os.fsync, directory)
            os.close(directory)
            stand.remount("", flags=MS_RDONLY)
        stand.same("upper", Path(stand.path("u/f")).read_bytes(), b"written")

    return Trial(f"synced with {options or 'nothing'}", work)


def space(stand: Stand) -> None:
    """statfs tells the space of the upper, the longest name of all layers and what it is."""
    layers(stand)
    small = stand.filesystem("small", options="size=1m")
    for name in ("u", "w"):
        (small.root / name).mkdir()
    upper, lower = filecalls.statfs(str(small.root)), filecalls.statfs(stand.path("l"))
    got = filecalls.statfs(stand.mount("lowerdir={l},upperdir={small/u},workdir={small/w}"))
    stand.same("type", got.type, OVERLAYFS_MAGIC)
    stand.same("blocks", got.blocks, upper.blocks)
    stand.same("longest name", got.name_max, max(upper.name_max, lower.name_max))
    of_lowers = filecalls.statfs(stand.mount("lowerdir={l}:{k}", "n"))
    stand.same("blocks of the topmost lower", of_lowers.blocks, lower.blocks)


def no_freeze(stand: Stand) -> None:
    """An overlay cannot be frozen: its upper can."""
    layers(stand)
    fd = os.open(stand.mount(LAYERS), os.O_RDONLY)
    try:
        stand.fails(EOPNOTSUPP, fcntl.ioctl, fd, FIFREEZE, 0)
    finally:
        os.close(fd)


GROUPS = (
    Group(
        "read-only",
        "Change something in an overlay that is read-only.",
        trials=(
            Trial("mounted read-only", read_only),
            Trial("two lowers", no_upper),
            Trial("work directory takes no entry", forced),
            Trial("work directory takes no index", forced_with_exports),
        ),
    ),
    Group(
        "remounts",
        "Remount overlays, sync them, and ask for their space.",
        trials=(
            Trial("read-only and back", there_and_back),
            Trial("writable after a read-only mount", from_read_only),
            Trial("read-only after a volatile mount", volatile),
            Trial("two lowers are never writable", never_writable),
            Trial("a file is open for writing", busy),
            Trial("options are ignored by mount(2)", ignored),
            Trial("options are refused by fspick(2)", reconfigured),
            Trial("two lowers are never writable by fspick(2)", never_reconfigured),
            synced(""),
            synced("volatile"),
            synced("fsync=strict", ("fsync", "strict")),
            Trial("space of an overlay", space),
            Trial("no freeze of an overlay", no_freeze),
        ),
    ),
)
