# SPDX-License-Identifier: GPL-2.0-only
"""A union with a bit of everything whose migration is hindered again and again, each time from the same disk (D12)."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File, HardLink, Special, Symlink
from tests.mounts import needs
from union import migrate
from union.durability import Disk, Original, has_data
from union.fences.disk import Shutdown
from union.filesystems import Layer
from union.interruption import Step, steps_of
from union.stand import Stand

NOFOLLOW: Final = ",xino=nofollow"
LAYERS: Final = f"lowerdir={{l}},upperdir={{up/u}},workdir={{up/w}},redirect_dir=on{NOFOLLOW}"
INDEX: Final = ",index=on"
METACOPY: Final = ",metacopy=on"
VOLATILE: Final = ",volatile"
CAPABLE: Final = pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # security.capability: cap_net_bind_service, effective
TEXT: Final = b"of lower " * 40
LARGE: Final = bytes(range(1, 256)) * 1100  # 274 KiB
SPARSE: Final = bytes(192 << 10) + b"behind a hole" + bytes(64 << 10)
FILE_ACL: Final = acl("u::rw-,u:3:r--,g::r--,m::rw-,o::---")
DIRECTORY_ACL: Final = acl("u::rwx,u:3:r-x,g::r-x,m::r-x,o::---")
WHEN: Final = 10**18 + 1  # nanoseconds

TREE: Final = Directory({
    "a": Directory({
        "b": Directory({
            "c": Directory({"deep": File(b"deep", mtime=WHEN), "empty": File()}, 0o700, 7, 8),
            "large": File(LARGE, 0o640, 1, 2, mtime=WHEN),
        }),
        "sparse": File(SPARSE, mtime=WHEN),
        "acl": File(TEXT, 0o660, 1, 2, {"user.one": b"1" * 300, "trusted.two": b"2", ACCESS: FILE_ACL}),
    }, 0o1777, mtime=WHEN),
    "capable": File(b"program", 0o755, xattrs={"security.capability": CAPABLE}),
    "suid": File(b"program", 0o4755),
    "one": File(b"linked", mtime=WHEN),
    "two": HardLink("one"),
    "link": Symlink("one", 3, 4, {"trusted.link": b"l"}, WHEN),
    "fifo": Special(stat.S_IFIFO, 0o600, 7, 8),
    "socket": Special(stat.S_IFSOCK, 0o640),
    "device": Special(stat.S_IFCHR, 0o640, rdev=0x0103),
    "empty": Directory({}, 0o711),
    "acls": Directory({"in": File(b"in")}, 0o750, 3, 4, {"user.dir": b"d", DEFAULT: DIRECTORY_ACL}),
    "moved": Directory({"x": File(b"x"), "y": Directory({"z": File(b"z"), "gone": File(b"gone")})}),
    "into": Directory({"x": File(b"x"), "y": Directory({"z": File(b"z")})}),
    "gone": File(b"gone"),
    "emptied": Directory({"p": File(b"p"), "q": Directory()}),
    "again": Directory({"old": File(b"old"), "sub": Directory({"old": File(b"old")})}),
    "changed": File(TEXT * 20),
})  # fmt: skip


def used_before(top: str) -> None:
    """What an earlier mount has left in upper: whiteouts, redirects, an opaque directory, files of its own."""
    os.rename(f"{top}/moved", f"{top}/a/b/there")
    os.unlink(f"{top}/a/b/there/y/gone")
    os.unlink(f"{top}/gone")
    os.unlink(f"{top}/emptied/p")
    os.rmdir(f"{top}/emptied/q")
    for name in ("again/old", "again/sub/old"):
        os.unlink(f"{top}/{name}")
    os.rmdir(f"{top}/again/sub")
    os.rmdir(f"{top}/again")
    os.mkdir(f"{top}/again", 0o751)
    Path(top, "again/new").write_bytes(b"new")
    os.rename(f"{top}/into", f"{top}/again/into")
    with Path(top, "changed").open("r+b") as file:
        file.write(b"changed")
    os.mkdir(f"{top}/a/made")
    os.symlink("new", f"{top}/a/made/link")


def metadata_only(name: str) -> Step:
    """Copied up, with metacopy=on without the data of a file; nothing changes that a user sees."""

    def work(root: int) -> None:
        now = os.stat(name, dir_fd=root, follow_symlinks=False)
        os.utime(name, ns=(now.st_atime_ns, now.st_mtime_ns), dir_fd=root, follow_symlinks=False)

    return f"copy up metadata of {name}", work


def steps(original: Original, options: str) -> list[Step]:
    """Of a whole migration; with metacopy=on the metadata of all files first, and a listing of all directories then."""
    whole = list(steps_of(original.tree))
    if METACOPY not in options:
        return whole
    files = [metadata_only(name) for name in original.regular()]
    listings = [step for step in whole if step[0].startswith("list ")]
    return [*files, *listings, *whole]


@dataclass(slots=True)
class Bench:
    """Where migrations are hindered: two filesystems, the upper disk as each begins, and what must be shown."""

    stand: Stand
    options: str
    lower: Layer
    upper: Layer
    disk: Disk
    original: Original
    hollow: frozenset[str]  # files whose data is not in upper then

    @classmethod
    def prepared(cls, stand: Stand, fstype: str, options: str = "", features: Sequence[str] = ()) -> Bench:
        """A union that was used before, unmounted and saved. Raises Missing.

        `options` are more of the union's, `features` more arguments of upper's mkfs.
        """
        needs.recent(LAYERS)
        lower = stand.filesystem("l", "xfs", TREE)
        upper = stand.filesystem("up", fstype, Directory({"u": Directory(), "w": Directory()}), features)
        kept = options.replace(VOLATILE, "")
        used_before(stand.mount(LAYERS.removesuffix(NOFOLLOW) + kept))
        original = Original.of(stand.again(LAYERS + kept), linked=INDEX in options)
        stand.unmount()
        hollow = frozenset(
            name
            for name in original.regular()
            if original.tree[name].data and not has_data(stand.path(f"up/u/{name}"))
        )
        lower = stand.recover(lower)
        saved: list[Disk] = []
        upper = stand.recover(upper, lambda image: saved.append(Disk.of(image)))
        return cls(stand, LAYERS + options, lower, upper, saved[0], original, hollow)

    def losses(self, point: str, of: str | None) -> list[str]:
        """What is lost, and what is hidden in the upper layer; mtime and capabilities of the name `of` are let off."""
        linked = INDEX in self.options
        return [*self.original.losses(point, of, linked=linked), *self.original.hidden(self.stand.path("up/u"))]

    def renewed(self, *, fenced: bool = True) -> None:
        """The disks as they were before, that of lower if it was fenced; the union is not mounted."""
        if fenced:
            self.lower = self.stand.recover(self.lower)
        self.upper = self.stand.recover(self.upper, self.disk.restore)

    def left(self, of: str | None = None, *, resume: bool = True) -> list[str]:
        """Mount what is left: it is whole, and to `resume` it is `finished`. What was not so; `of` as in `losses`."""
        point = self.stand.mount(self.options)
        found = self.finished(of) if resume else self.whole(point, of)
        self.stand.unmount()
        return found

    def whole(self, point: str, of: str | None = None) -> list[str]:
        """What is hidden before it is looked at, since a listing may mark, and what is lost or hidden then."""
        return [*self.original.hidden(self.stand.path("up/u")), *self.losses(point, of)]

    def finished(self, of: str | None = None) -> list[str]:
        """The mounted union is whole, is migrated to the end, and is whole without its lower. What was not so."""
        point, upper = self.stand.path("m"), self.stand.path("up/u")
        found = self.whole(point, of)
        if not found:
            migration = migrate.dfs(Path(point), Path(upper))
            found += [f"resumed: {one.path}: {one.reason}" for one in migration.leftovers]
        if not found:
            fence = Shutdown(self.lower, in_process=True)
            fence.fence()
            fence.self_test(cold=True)
            found += [f"without lower: {line}" for line in self.losses(point, of)]
        return found
