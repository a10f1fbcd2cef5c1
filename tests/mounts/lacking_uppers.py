# SPDX-License-Identifier: GPL-2.0-only
"""Uppers that lack what overlayfs uses, are read-only or are no upper at all: what falls back and what is refused."""

from __future__ import annotations

import fcntl
import os
import stat
from errno import EINVAL, EIO, ENOENT, ENOSPC, EROFS, ESTALE
from pathlib import Path
from typing import Final, NamedTuple

from datasets.tree import Directory, File
from tests.mounts.phrases import LAYERS, effective, needs_option, prepared
from union import syscalls
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.syscalls import MS_BIND, MS_RDONLY, MS_REMOUNT, MS_UNBINDABLE, FsContext

POOR: Final = "lowerdir={l},upperdir={r/u},workdir={r/w}"
# A ramfs has no xattrs, no file handles and no whiteouts by rename.
LACKING: Final = ("failed to set xattr on upper", "upper fs does not support RENAME_WHITEOUT")


def poor(stand: Stand, fstype: str = "ramfs") -> None:
    """The usual lower l, on a filesystem of its own, and an upper and a work directory on r."""
    stand.filesystem("l", tree=Directory({"f": File(b"lower"), "g": File(b"lower"), "d": Directory({"in": File()})}))
    stand.filesystem("r", fstype, Directory({"u": Directory(), "w": Directory()}))


class Fallback(NamedTuple):
    """Options that need xattrs, what they fall back to, and the words for it."""

    given: str
    wanted: dict[str, str]
    says: str


FALLBACKS: Final = (
    Fallback("redirect_dir=on", {"redirect_dir": "nofollow"}, "...falling back to redirect_dir=nofollow"),
    Fallback("metacopy=on", {"metacopy": "off", "redirect_dir": "nofollow"}, "...falling back to metacopy=off"),
    Fallback("index=on", {"index": "off"}, "...falling back to index=off"),
    Fallback("nfs_export=on", {"index": "off", "nfs_export": "off"}, "falling back to nfs_export=off"),
    Fallback("uuid=on", {"uuid": "null"}, "...falling back to uuid=null"),
    Fallback("xino=auto", {"xino": "off"}, "...falling back to xino=off"),
)
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
EXPLICIT: Final = {"redirect_dir": "nofollow", "uuid": "null"}  # so that no default falls back beside it


def falls_back(row: Fallback) -> Trial:
    """Mounted without the feature, and what needs no xattrs works."""

    def work(stand: Stand) -> None:
        poor(stand)
        stand.warns(*LACKING, row.says)
        rest = {key: value for key, value in EXPLICIT.items() if f"{key}=" not in row.given}
        if row.given == "metacopy=on":
            del rest["redirect_dir"]
            stand.warns("...falling back to redirect_dir=nofollow")
        if row.given == "nfs_export=on":
            stand.warns("...falling back to index=off")
        at = stand.mount(",".join([POOR, row.given, *(f"{key}={value}" for key, value in rest.items())]))
        for key, value in row.wanted.items():
            effective(stand, key, value)
        changes(stand, at)

    return Trial(f"no xattrs with {row.given}", work)


def changes(stand: Stand, at: str) -> None:
    """Files are copied up and removed, directories cannot be renamed."""
    Path(at, "f").write_bytes(b"changed")
    stand.same("content", Path(at, "f").read_bytes(), b"changed")
    os.unlink(f"{at}/g")
    stand.same("names", sorted(os.listdir(at)), ["d", "f"])
    stand.holds("whiteout in upper", stat.S_ISCHR(os.lstat(stand.path("r/u/g")).st_mode))
    Path(at, "new").touch()
    Path(at, "d/new").touch()
    os.rename(f"{at}/new", f"{at}/d/new")
    stand.same("names in d", sorted(os.listdir(f"{at}/d")), ["in", "new"])


def no_opaque(stand: Stand) -> None:
    """A directory that would have to hide the lower one of its name cannot be made, nor that one be removed."""
    poor(stand)
    stand.warns(*LACKING)
    at = stand.mount(f"{POOR},redirect_dir=nofollow,uuid=null")
    os.unlink(f"{at}/g")
    stand.fails(EIO, os.mkdir, f"{at}/g")
    os.unlink(f"{at}/d/in")
    stand.fails(EIO, os.rmdir, f"{at}/d")
    stand.same("names", sorted(os.listdir(at)), ["d", "f"])
    stand.same("names in d", os.listdir(f"{at}/d"), [])


def nothing_to_detach(stand: Stand) -> None:
    """Without xattrs nothing could ever be opaque, so xino=nofollow is refused."""
    needs_option("xino", "nofollow")
    poor(stand)
    stand.warns(*LACKING)
    says = "xino=nofollow requires xattr support on upper fs."
    stand.refuses(EINVAL, f"{POOR},redirect_dir=nofollow,uuid=null,xino=nofollow", says=says)


def lower_without_handles(key: str, says: str) -> Trial:
    """A feature that needs file handles of a lower that has none."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.filesystem("r", "ramfs", Directory({"f": File(b"of a ramfs")}))
        stand.warns(says)
        at = stand.mount(f"{LAYERS.replace('{l}', '{r}')},{key}=on".replace("xino=on", "xino=auto"))
        effective(stand, key, "off")
        Path(at, "f").write_bytes(b"changed")
        stand.same("content", Path(at, "f").read_bytes(), b"changed")

    return Trial(f"no file handles of the lower with {key}", work)


def handles_without_upper(stand: Stand) -> None:
    """nfs_export of two lowers needs handles of both."""
    prepared(stand)
    stand.filesystem("r", "ramfs")
    stand.warns("does not support file handles, falling back to index=off,nfs_export=off")
    stand.mount("lowerdir={l}:{r},nfs_export=on,redirect_dir=nofollow")
    effective(stand, "nfs_export", "off")


def no_types(stand: Stand) -> None:
    """Entries without a type do not tell whiteouts apart: a removed name is listed, and that is what is warned of."""
    stand.filesystem("l", tree=Directory({"f": File(b"lower"), "g": File(b"lower")}))
    tree = Directory({"u": Directory(), "w": Directory()})
    stand.filesystem("r", "ext4", tree, features=("-O", "^filetype,^has_journal"))
    stand.warns("upper fs needs to support d_type")
    at = stand.mount(f"{POOR},redirect_dir=nofollow")
    os.unlink(f"{at}/g")
    Path(at, "f").write_bytes(b"changed")
    stand.same("names", sorted(os.listdir(at)), ["f", "g"])
    stand.fails(ENOENT, os.stat, f"{at}/g")


def read_only_upper(label: str, flags: int) -> Trial:
    """Refused early, when the option is parsed."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.filesystem("r", "tmpfs", Directory({"u": Directory(), "w": Directory()}))
        syscalls.mount("none", stand.root / "r", None, MS_REMOUNT | MS_RDONLY | flags)
        stand.refuses(EINVAL, POOR, says="is read-only")
        stand.refuses(EINVAL, POOR.replace("{r/u}", "{u}"), says="is read-only")

    return Trial(label, work)


def read_only_too_late(stand: Stand) -> None:
    """It is looked at again when the overlay is made."""
    prepared(stand)
    stand.filesystem("r", "tmpfs", Directory({"u": Directory(), "w": Directory()}))
    stand.warns("upper fs is r/o, try multi-lower layers mount")
    with FsContext("overlay") as context:
        for key, value in (("lowerdir", "{l}"), ("upperdir", "{r/u}"), ("workdir", "{r/w}")):
            context.set(key, stand.spell(value))
        syscalls.mount("none", stand.root / "r", None, MS_REMOUNT | MS_RDONLY)
        stand.fails(EINVAL, context.create)


def unbindable(name: str) -> Trial:
    """A mount that must not be cloned is no layer."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.filesystem("r", "tmpfs", Directory({"u": Directory(), "w": Directory(), "l": Directory()}))
        syscalls.mount("none", stand.root / "r", None, MS_UNBINDABLE)
        options = POOR if name == "upper" else LAYERS.replace("{l}", "{r/l}")
        stand.refuses(EINVAL, options, says=f"failed to clone {name}path")

    return Trial(f"unbindable {name}", work)


def sysfs_upper(stand: Stand) -> None:
    """sysfs takes no directory: the overlay is read-only."""
    prepared(stand)
    stand.filesystem("v", "sysfs")
    stand.warns("failed to create directory", "mounting read-only")
    at = stand.mount("lowerdir={l},upperdir={v/kernel},workdir={v/fs}")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.holds("the upper is shown", os.path.exists(f"{at}/mm"))
    stand.fails(EROFS, os.mkdir, f"{at}/new")


class Room(NamedTuple):
    """How many inodes the upper's filesystem may have, the root, u and w among them, and how the mount ends."""

    inodes: int
    given: str
    errno: int
    says: str | None
    writable: bool = True


ROOM: Final = (
    Room(3, "", 0, "mounting read-only", writable=False),
    Room(4, "", ENOSPC, "upper fs does not support tmpfile"),  # the first thing to be tried in the work directory
    Room(5, "", ENOSPC, None),
    Room(6, "", ENOSPC, None),
    Room(7, "", 0, None),  # an unnamed file, which goes when mount(2) returns, a named one and its whiteout
    Room(7, "volatile", ENOSPC, "Failed to create volatile/dirty file"),
    Room(8, "volatile", 0, None),
)


def room(row: Room) -> Trial:
    """Refused or read-only if there is no room for what a mount makes."""

    def work(stand: Stand) -> None:
        prepared(stand)
        tree = Directory({"u": Directory(), "w": Directory()})
        stand.filesystem("r", "tmpfs", tree, options=f"nr_inodes={row.inodes}")
        if row.says:
            stand.warns(row.says)
        options = ",".join(filter(None, (POOR, "uuid=null,redirect_dir=nofollow", row.given)))
        if row.errno:
            stand.refuses(row.errno, options)
            return
        at = stand.mount(options)
        stand.same("content", Path(at, "f").read_bytes(), b"lower")
        stand.fails(0 if row.writable else EROFS, os.setxattr, at, "user.x", b"1")

    return Trial(f"room for {row.inodes} inodes{' and volatile' if row.given else ''}", work)


def no_room_for_an_index(stand: Stand) -> None:
    """Without room for the index alone the overlay is read-only, and shows no index."""
    prepared(stand)
    stand.filesystem("r", "tmpfs", Directory({"u": Directory(), "w": Directory()}))
    options = f"{POOR},uuid=null,redirect_dir=nofollow,index=on"
    stand.mount(options)
    stand.unmount()
    os.rmdir(stand.path("r/w/index"))
    syscalls.mount("none", stand.root / "r", None, MS_REMOUNT, "nr_inodes=9")  # volatile makes three of them
    stand.warns("failed to create directory", "mounting read-only", "try deleting index dir or mounting with")
    at = stand.mount(f"{options},volatile")
    effective(stand, "index", "off")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.fails(EROFS, os.mkdir, f"{at}/new")


def sysctl(kind: str, options: str) -> Trial:
    """A directory with name comparison of its own is no layer."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.filesystem("v", "proc")
        stand.refuses(EINVAL, options, says="not supported")

    return Trial(f"a directory of sysctls as {kind}", work)


def proc_lower(stand: Stand) -> None:
    """proc calls itself stacked as deep as can be, so that nothing is stacked on it."""
    prepared(stand)
    stand.filesystem("v", "proc")
    stand.refuses(EINVAL, "lowerdir={v}:{l}", says="maximum fs stacking depth exceeded")


def revalidated(options: str, fstype: str, directory: str, name: str) -> Trial:
    """A lower that checks its names again shows what it shows itself."""

    def work(stand: Stand) -> None:
        prepared(stand)
        lower = stand.filesystem("v", fstype).root / directory
        at = Path(stand.mount(options))
        for _ in range(2):
            stand.same("content", (at / directory / name).read_bytes(), (lower / name).read_bytes())
            stand.same("names", sorted(os.listdir(at / directory)), sorted(os.listdir(lower)))
        stand.same("from below", (at / "f").read_bytes(), b"lower")
        stand.fails(ENOENT, os.stat, at / directory / "none")
        top = os.open(at, os.O_PATH)  # names on the way there may need locks, and then all that follow have them
        for path in (directory, f"{directory}/{name}"):
            stand.same(f"mode of {path}", os.stat(path, dir_fd=top).st_mode, os.stat(lower.parent / path).st_mode)
        os.close(top)
        fd = os.open(at / directory, os.O_RDONLY)  # a weak check follows, of where it is
        stand.same("by descriptor", sorted(os.listdir(f"/proc/self/fd/{fd}")), sorted(os.listdir(lower)))
        os.close(fd)

    return Trial(f"{fstype} as {'a lower above' if options.startswith('lowerdir={v}') else 'a lower below'}", work)


def gone_below(stand: Stand) -> None:
    """A name that vanishes from such a lower vanishes from the overlay, though it was looked up before."""
    prepared(stand)
    stand.filesystem("v", "sysfs")
    at = stand.mount("lowerdir={v}:{l}")
    try:
        control = os.open("/dev/loop-control", os.O_RDWR)
        stand.undo(lambda: os.close(control))
        number = fcntl.ioctl(control, LOOP_CTL_ADD, -1)
    except OSError as error:
        raise Missing(f"no loop device can be added: {error.strerror}") from error
    size = Path(at, f"devices/virtual/block/loop{number}/size")
    try:
        stand.same("size", size.read_bytes(), b"0\n")
    finally:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
    stand.fails((ENOENT, ESTALE), os.stat, size)
    stand.fails((ENOENT, ESTALE), os.stat, size.parent)
    stand.same("from below", Path(at, "f").read_bytes(), b"lower")


GROUPS = (
    Group(
        "lacking-uppers",
        "Mount with an upper that lacks something, or that cannot be one.",
        trials=(
            *map(falls_back, FALLBACKS),
            Trial("no xattrs, no opaque directory", no_opaque),
            Trial("no xattrs with xino=nofollow", nothing_to_detach),
            lower_without_handles("index", "falling back to index=off,nfs_export=off"),
            lower_without_handles("nfs_export", "falling back to index=off,nfs_export=off"),
            lower_without_handles("xino", "falling back to xino=off"),
            Trial("no file handles of two lowers with nfs_export", handles_without_upper),
            Trial("no types in directory entries", no_types),
            read_only_upper("an upper that is read-only", 0),
            read_only_upper("an upper on a read-only mount", MS_BIND),
            Trial("an upper that becomes read-only", read_only_too_late),
            *map(room, ROOM),
            Trial("room for all but the index", no_room_for_an_index),
            unbindable("upper"),
            unbindable("lower"),
            Trial("sysfs as an upper", sysfs_upper),
        ),
    ),
    Group(
        "kernel-filesystems",
        "Mount with layers that the kernel makes up, and that check their names again.",
        trials=(
            sysctl("a lower", "lowerdir={v/sys/kernel},upperdir={u},workdir={w}"),
            sysctl("an upper", "lowerdir={l},upperdir={v/sys/kernel},workdir={w}"),
            revalidated("lowerdir={v}:{l}", "sysfs", "kernel", "uevent_seqnum"),
            revalidated("lowerdir={l}:{v}", "sysfs", "kernel", "uevent_seqnum"),
            Trial("a lower name that vanishes", gone_below),
            Trial("proc as a lower", proc_lower),
        ),
    ),
)
