# SPDX-License-Identifier: GPL-2.0-only
"""The power is cut after each step of a migration: nothing is lost or hidden, and it can be resumed to its end (D12).

Upper is shut down without its log, so that what was not written out is lost. Each cut begins with the same disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from struct import pack
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File, HardLink, Special, Symlink
from tests.mounts import needs
from tests.mounts.half_way import write_out
from union import migrate
from union.diskfences import Shutdown, go_down
from union.durability import Disk, Original, has_data
from union.filesystems import Layer
from union.interruption import Step, steps_of
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name

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
    """Where the power is cut: the two filesystems, the upper disk as each cut begins, and what must be shown."""

    stand: Stand
    options: str
    lower: Layer
    upper: Layer
    disk: Disk
    original: Original
    hollow: frozenset[str]  # files whose data is not in upper when a cut begins

    @classmethod
    def prepared(cls, stand: Stand, fstype: str, options: str) -> Bench:
        """A union that was used before, unmounted and saved. Raises Missing."""
        needs.recent(LAYERS)
        lower = stand.filesystem("l", "xfs", TREE)
        upper = stand.filesystem("up", fstype, Directory({"u": Directory(), "w": Directory()}))
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

    def cut(self, taken: Sequence[Step], synced: bool) -> None:
        """Take the steps and cut the power; the union is unmounted then, upper recovered.

        `synced`: all was written out before the last step.
        """
        root = os.open(self.stand.mount(self.options), os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number, (_, step) in enumerate(taken, start=1):
                if synced and number == len(taken):
                    write_out(str(self.upper.root))  # a volatile union would not
                step(root)
        finally:
            os.close(root)
        go_down(self.upper)
        self.stand.unmount()
        self.upper = self.stand.recover(self.upper)

    def unsettled(self, taken: Sequence[Step]) -> str | None:
        """The file whose data came last after its metadata.

        Overlayfs writes the data out, and only then gives the file its mtime and capabilities back: a cut in between
        loses them, see docs/kernel-findings.md. No other name may be harmed.
        """
        if METACOPY not in self.options:
            return None
        copied = (words.removeprefix("copy up ") for words, _ in reversed(taken))
        return next((name for name in copied if name in self.hollow), None)

    def losses(self, point: str, of: str | None) -> list[str]:
        """What is lost, and what is hidden in the upper layer."""
        linked = INDEX in self.options
        return [*self.original.losses(point, of, linked=linked), *self.original.hidden(self.stand.path("up/u"))]

    def renewed(self) -> None:
        """The disks as they were before the cut."""
        self.lower = self.stand.recover(self.lower)
        self.upper = self.stand.recover(self.upper, self.disk.restore)


def resumed(bench: Bench, of: str | None) -> list[str]:
    """Mount what is left: it is whole, is migrated to the end, and is whole without its lower. What was not so."""
    point, upper = bench.stand.mount(bench.options), bench.stand.path("up/u")
    found = bench.original.hidden(upper)  # before it is looked at: a listing may mark
    found += bench.losses(point, of)
    if not found:
        migration = migrate.dfs(Path(point), Path(upper))
        found += [f"resumed: {one.path}: {one.reason}" for one in migration.leftovers]
    if not found:
        fence = Shutdown(bench.lower, in_process=True)
        fence.fence()
        fence.self_test(cold=True)
        found += [f"without lower: {line}" for line in bench.losses(point, of)]
    bench.stand.unmount()
    return found


def refused_or_whole(bench: Bench, synced: bool) -> tuple[list[str], bool]:
    """A volatile union is refused with and without that option, if anything of it is on disk; and whether it was."""
    stand, found = bench.stand, []
    for options in (bench.options, bench.options.replace(VOLATILE, "")):
        got = attempt(stand.mount, options)
        if got not in (0, EINVAL) or (synced and not got):
            found.append(f"-o {options}: {errno_name(got)}")
        if got == 0:
            found += bench.losses(stand.path("m"), None)
            stand.unmount()
    return found, got == EINVAL


def each_step(stand: Stand, fstype: str, options: str, synced: bool) -> None:
    """Cut after each step; each time the tree is whole, nothing is hidden, and it is migrated to the end and fenced."""
    bench = Bench.prepared(stand, fstype, options)
    whole = steps(bench.original, options)
    told, refusals = len(stand.steps), 0
    for number in range(1, len(whole) + 1):
        taken = whole[:number]
        bench.cut(taken, synced)
        if VOLATILE in options:
            found, refused = refused_or_whole(bench, synced)
            refusals += refused
        else:
            found = resumed(bench, bench.unsettled(taken))
        stand.complaints += [f"cut {number}, after {taken[-1][0]}: {line}" for line in found]
        if found:
            return
        bench.renewed()
    del stand.steps[told:]
    words = f", {refusals} of them refused as volatile" if VOLATILE in options else ""
    stand.steps.append(f"{len(whole)} cut points{words}")


def trial(fstype: str, options: str = "", *, synced: bool = False) -> Trial:
    """Cuts of an upper on this filesystem, with these options too."""
    label = f"{fstype}{options.replace(',', ', ')}{', written out before the last step' if synced else ''}"
    return Trial(label, lambda stand: each_step(stand, fstype, options, synced))


KINDS: Final = (("", False), ("", True), (METACOPY, True), (INDEX, True), (VOLATILE, True))
GROUPS = (
    Group(
        "power-cuts",
        "Cut the power after each step of a migration, and resume it.",
        trials=tuple(trial(fstype, options, synced=synced) for fstype in ("xfs", "ext4") for options, synced in KINDS),
    ),
)
