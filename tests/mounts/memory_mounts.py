# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out while an overlay is mounted: it is refused, or mounted with less and says so."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from datasets.tree import Directory
from tests.mounts import needs
from tests.mounts.out_of_memory import LOWER, NO_MEMORY, chown, declared, unlink
from union import syscalls
from union.faults import MOST, Call, Met, Slab
from union.portrait import Portrait, differences, portrait
from union.scenario import Group, Trial, When
from union.stand import OVERLAY, Stand, errno_name

LAYERS: Final = "lowerdir={l},upperdir={u},workdir={w}"
# What overlayfs does without if upper or lower seem to lack what it takes, and what is shown then.
WITHOUT: Final[Mapping[str, tuple[str | None, ...]]] = {
    "index": (None, "off"),
    "nfs_export": (None, "off"),
    "metacopy": (None, "off"),
    "redirect_dir": (None, "nofollow"),
    "uuid": (None, "null"),
    "rw": (None,),  # with no work directory it is mounted read-only
}
NO_INDEX, NO_UUID, NO_EXPORT, NO_METACOPY, NO_REDIRECT = (
    f"falling back to {option}"
    for option in ("index=off", "uuid=null", "nfs_export=off", "metacopy=off", "redirect_dir=nofollow")
)
NOFOLLOW: Final = ("xino=nofollow requires xattr support",)  # and is then refused (D1)
REFUSALS: Final = (*NO_MEMORY, errno.EINVAL, errno.EIO)


def mounts(
    label: str,
    options: str,
    used: Call | None = None,
    layers: str = LAYERS,
    says: Sequence[str] = (),
    each: Call = lambda _: None,
) -> Trial:
    """Each allocation of mount(2) fails once; `used` is what an earlier overlay on these layers was used for.

    `says` are the fallbacks that the kernel must tell of; `each` is done to the work directory before each mount.
    """

    def work(stand: Stand) -> None:
        needs.recent(options)
        slab = Slab(stand)
        stand.warns(*says)
        stand.layers(l=LOWER, k=LOWER, u=Directory(), w=Directory())
        point = stand.mount(f"{layers},{options}")
        if used:
            used(point)
        stand.unmount()
        each(stand.path("w"))
        point = stand.mount(f"{layers},{options}")  # a uuid of its own is told from the second mount on
        wanted, shown = portrait(point), stand.shown()
        stand.same("writable at first", "rw" in shown, "{u}" in layers)
        stand.unmount()
        told = len(stand.steps)
        number = _each(stand, slab, f"{layers},{options}", each, lambda: _check(stand, point, wanted, shown))
        del stand.steps[told:]
        stand.steps.append(f"{number - 1} times a failing allocation")
        each(stand.path("w"))
        point = stand.mount(f"{layers},{options}")
        stand.same("what is shown in the end", stand.shown(), shown)
        stand.holds(f"the same tree: {differences(portrait(point), wanted)}", portrait(point) == wanted)

    return Trial(label, work, *declared())


def _each(stand: Stand, slab: Slab, options: str, each: Call, check: Callable[[], None]) -> int:
    """Mount it with each allocation failing; the number of the first that was not reached."""
    point, spelled, failures = stand.path("m"), stand.spell(options), 0
    for number in range(1, MOST):
        each(stand.path("w"))
        met: Met = slab.call(number, lambda: syscalls.mount(OVERLAY, point, OVERLAY, 0, spelled))
        if met.error:
            failures += 1
            stand.holds(f"allocation {number}: {errno_name(met.error)} is a refusal", met.error in REFUSALS)
        else:
            try:
                check()
            finally:
                syscalls.umount(point)
        if not met.reached or stand.complaints:
            break
    stand.holds("some mount failed", failures > 0)
    stand.holds("all allocations were reached", not met.reached or bool(stand.complaints))
    return number


def _check(stand: Stand, point: str, wanted: Portrait, shown: Mapping[str, str]) -> None:
    """The tree is whole, and what is not in effect is not shown."""
    now, seen = portrait(point), stand.shown()
    stand.holds(f"the same tree: {differences(now, wanted)}", now == wanted)
    for key, value in shown.items():
        stand.holds(f"{key}: {seen.get(key)} for {value}", seen.get(key) in (value, *WITHOUT.get(key, ())))


def changed(point: str) -> None:
    """Copies, an index entry, a whiteout."""
    chown("file", "one", "two", "dir")(point)
    unlink("plain")(point)
    os.mkdir(f"{point}/new")


def left_over(work: str) -> None:
    """What an overlay that ended in the middle of something leaves in its work directory."""
    top = Path(work, "work")
    for name in ("#1", "#2"):
        (top / name).mkdir(parents=True, exist_ok=True)
        (top / name / "file").touch()
    (top / "#3").touch()


def forgiven(work: str) -> None:
    """The user says that nothing was lost when a volatile overlay ended."""
    shutil.rmtree(Path(work, "work/incompat"), ignore_errors=True)


GROUPS = (
    Group(
        "memory-mount",
        "Mount with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=(
            mounts("with redirects", "redirect_dir=on", says=(NO_REDIRECT, NO_UUID)),
            mounts("with metadata copies", "metacopy=on", says=(NO_REDIRECT, NO_METACOPY, NO_UUID)),
            mounts("with an index in use", "index=on", changed, says=(NO_INDEX, NO_UUID)),
            mounts("for export", "index=on,nfs_export=on", changed, says=(NO_INDEX, NO_UUID, NO_EXPORT)),
            mounts("with xino=nofollow", "xino=nofollow,index=on", changed, says=(NO_INDEX, NO_UUID, *NOFOLLOW)),
            mounts("with a uuid of its own", "uuid=on,xino=on", says=(NO_UUID,)),
            mounts("with userxattr", "userxattr", says=(NO_UUID,)),
            mounts("over leftovers", "redirect_dir=on", says=(NO_REDIRECT, NO_UUID), each=left_over),
            mounts("with volatile", "volatile", says=(NO_UUID,), each=forgiven),
            mounts("without an upper", "redirect_dir=on", layers="lowerdir={k}:{l}"),
        ),
    ),
)
