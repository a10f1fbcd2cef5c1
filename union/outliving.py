# SPDX-License-Identifier: GPL-2.0-only
"""What outlives a detach: recorded for lowers that die in different ways (D11, D16, D17)."""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from datasets.tree import Directory, File, Symlink, write
from union import filesystems, migrate, syscalls
from union.fences.disk import go_down
from union.holders import ROWS, TREE, Holder
from union.interruption import Step, steps_of
from union.lowerfuse import LowerFuse
from union.portrait import Portrait, portrait
from union.stand import Stand, attempt, errno_name

Kind = Literal["xfs", "fuse"]
KINDS: Final[tuple[Kind, ...]] = ("xfs", "fuse")
DEATHS: Final = {"xfs": "XFS, shut down", "fuse": "FUSE, killed"}
Moment = Literal["before copy-up", "before the listings", "not migrated", "lower alive"]
MOMENTS: Final[tuple[Moment, ...]] = ("before copy-up", "before the listings", "not migrated")
XINO: Final = ("xino", "nofollow")
LAYERS: Final = f"lowerdir={{l}},upperdir={{u}},workdir={{w}},{'='.join(XINO)}"
ANOTHER: Final = Directory({"foreign": File(b"foreign"), "a": Directory({"foreign": File(b"foreign")})})
REAL, DEAD, EMPTY = "the real one", "the dead one", "an empty one"
REMOUNTS: Final = {
    REAL: "lowerdir={l},",
    DEAD: "lowerdir={l},",
    EMPTY: "lowerdir={empty},",
    "another tree": "lowerdir={another},",
    "an absent one": "lowerdir={absent},",
    "none: upper alone": "",
}
"""How the lower is told, in this order: from the second on the real one is dead."""
SAME: Final = "works"
RELEASES: Final = (
    "unmount it while the union is mounted",
    "the kernel lets go of it then",
    "the union shows the same then",
    "the kernel lets go of it once the union is unmounted",
)
SOON: Final = 0.5  # seconds that a daemon may take to end
SMALL: Final = Directory({"a": Directory({"b": Directory({"f": File(b"f")}), "g": File(b"g")}), "s": Symlink("a/g")})


class Lower:
    """A lower layer of this kind on the directory `l` of the stand; it can die, and be unmounted."""

    def __init__(self, stand: Stand, kind: Kind, tree: Directory) -> None:
        """Raises SetupError, Unsupported."""
        self._stack = ExitStack()
        stand.undo(self._stack.close)
        at = stand.root / "l"
        at.mkdir()
        self._fuse: LowerFuse | None = None
        if kind == "fuse":
            home = stand.root / "home"
            home.mkdir()
            write(tree, home)
            self._fuse = LowerFuse(self._stack, home, at, "l")
            self.layer = self._fuse.layer
        else:
            self.layer = filesystems.make(self._stack, kind, at, stand.root, "l")
            write(tree, at)

    def die(self) -> None:
        """From now on whoever needs it gets an error; nothing is in a cache that could be dropped."""
        if self._fuse:
            self._fuse.kill()
        else:
            go_down(self.layer)
        syscalls.drop_caches()

    def unmount(self) -> None:
        """Raises OSError when it is busy."""
        syscalls.umount(self.layer.root)
        syscalls.mount("none", self.layer.root, "tmpfs")  # for those who unmount it at the end

    def released(self) -> bool:
        """Whether the kernel uses it no more: its loop device has no image, its daemon has ended."""
        if not self._fuse:
            return not Path(f"/sys/block/{Path(self.layer.source).name}/loop/backing_file").exists()
        try:
            fd = os.pidfd_open(self._fuse.pid)
        except ProcessLookupError:  # it was killed
            return True
        try:
            return bool(select.select([fd], [], [], SOON)[0])
        finally:
            os.close(fd)


# what was opened before


def held(stand: Stand, kind: Kind, moment: Moment) -> list[str]:
    """The result of each row of ROWS, opened at this moment and used when lower is dead, or alive.

    All is migrated by then, unless the moment says otherwise.
    """
    lower = Lower(stand, kind, Directory({str(number): TREE for number in range(len(ROWS))}))
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount(LAYERS)
    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        migration = list(steps_of(portrait(point))) if moment.startswith("before") else []
        early, late = ([], migration) if moment == "before copy-up" else _split(migration)
        for _, step in early:
            step(root)
        holders = [Holder(row, f"{point}/{number}") for number, row in enumerate(ROWS)]
        for _, step in late:
            step(root)
    finally:
        os.close(root)
    if moment == "lower alive":
        syscalls.drop_caches()
    else:
        lower.die()
    return [holder.result() for holder in holders]


def _split(migration: list[Step]) -> tuple[list[Step], list[Step]]:
    listings = [step for step in migration if step[0].startswith("list ")]
    return [step for step in migration if step not in listings], listings


# mounted again


def remounts(stand: Stand, kind: Kind, *, migrated: bool = True) -> dict[str, str]:
    """Per lower of REMOUNTS what the union is when it is mounted again over that.

    SAME if tree and inode numbers are, an errno, or how it differs.
    """
    lower = Lower(stand, kind, SMALL)
    stand.layers(u=Directory(), w=Directory(), empty=Directory(), another=ANOTHER)
    point = stand.mount(LAYERS)
    if migrated:
        migrate.dfs(Path(point), Path(stand.path("u")))
    wanted = _looked_at(point)
    found = {}
    for words, lowerdir in REMOUNTS.items():
        if words == DEAD:
            lower.die()
        if os.path.ismount(point):
            stand.unmount()
        syscalls.drop_caches()
        try:
            stand.mount(LAYERS.replace("lowerdir={l},", lowerdir))
            now = _looked_at(point)
        except OSError as error:
            found[words] = errno_name(error.errno or 0)
        else:
            found[words] = SAME if now == wanted else difference(now, wanted)
    return found


def _looked_at(point: str) -> tuple[Portrait, dict[str, int]]:
    """The tree and the inode numbers."""
    tree = portrait(point)
    return tree, {name: os.lstat(f"{point}/{name}").st_ino for name, seen in tree.items() if not seen.error}


def difference(now: tuple[Portrait, dict[str, int]], wanted: tuple[Portrait, dict[str, int]]) -> str:
    errors = {errno_name(seen.error) for seen in now[0].values() if seen.error}
    if errors:
        return f"{', '.join(sorted(errors))} for some names"
    if now[0].keys() != wanted[0].keys():
        return "other names"
    return "other objects" if now[0] != wanted[0] else "other inode numbers"


# unmounted and released


def releases(stand: Stand, kind: Kind, *, dead: bool) -> dict[str, str]:
    """Per moment of RELEASES what came of it, for a lower that nothing needs any more."""
    lower = Lower(stand, kind, SMALL)
    stand.layers(u=Directory(), w=Directory())
    point = stand.mount(LAYERS)
    migrate.dfs(Path(point), Path(stand.path("u")))
    point = stand.again(LAYERS)
    tree = portrait(point)
    if dead:
        lower.die()
    unmounted = errno_name(attempt(lower.unmount)).replace("success", SAME)
    released = "yes" if lower.released() else "no"
    syscalls.drop_caches()
    same = "yes" if portrait(point) == tree else "no"
    stand.unmount()
    return dict(zip(RELEASES, (unmounted, released, same, "yes" if lower.released() else "no"), strict=True))
