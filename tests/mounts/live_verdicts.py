# SPDX-License-Identifier: GPL-2.0-only
"""Overlays of a user's that are not migrated as they are mounted, and those that must not be called detached."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from datasets.tree import Directory, File
from tests.mounts.live_migration import UPPER, left, looked_through, merged, migrated, mounted
from union import syscalls
from union.errors import HarnessError, SetupError, Unsupported, UsageError
from union.live import Live, find
from union.live_migration import NO_DATA, ROOT_UNMARKED, carry_out
from union.scenario import Group, Trial
from union.stand import Stand

OPAQUE: Final = "trusted.overlay.opaque"


def refused(stand: Stand) -> None:
    """What cannot be migrated as it is mounted is refused, with how to get it; a dry run needs less."""
    point = mounted(stand)
    refuses(stand, UsageError, stand.path("up"), "is not an overlay but up (tmpfs) on")
    refuses(stand, UsageError, f"{point}/a", f"lies inside of an overlay: name the whole of it, {point}")
    refuses(stand, UsageError, f"{point}/absent", "No such file or directory")
    stand.remount("", "m", syscalls.MS_RDONLY)
    refuses(stand, SetupError, point, f"is mounted read-only: mount -o remount,rw {point}")
    stand.same("obstacles of a dry run", looked_through(point).obstacles, [])
    stand.remount("", "m")
    stand.remount("", "up", syscalls.MS_RDONLY)
    refuses(stand, SetupError, point, "is read-only: remount it read-write")
    stand.remount("", "up")
    stand.mount("lowerdir={low}:{up/w}", "only")
    refuses(stand, UsageError, stand.path("only"), "has no upper layer")
    stand.filesystem("again", "tmpfs", UPPER)
    stand.mount("lowerdir={low},upperdir={again/u},workdir={again/w},xino=on", "on")
    refuses(stand, Unsupported, stand.path("on"), "is not mounted with xino=nofollow")
    with syscalls.without_capabilities(syscalls.CAP_DAC_OVERRIDE):
        refuses(stand, Unsupported, point, "CAP_DAC_OVERRIDE")
    part = Path(stand.path("part"))
    part.mkdir()
    syscalls.mount(f"{point}/a", part, None, syscalls.MS_BIND)
    refuses(stand, UsageError, str(part), "is only the directory /a of an overlay")
    syscalls.umount(part)


def refuses(stand: Stand, kind: type[HarnessError], point: str, words: str) -> None:
    """The overlay is not migrated, for this reason."""
    try:
        find(Path(point))
    except HarnessError as error:
        stand.holds(f"{kind.__name__} with {words!r}: {error!r}", type(error) is kind and words in str(error))
        stand.holds(f"one line: {error}", "\n" not in str(error))
    else:
        stand.complaints.append(f"{point} was not refused: {words}")


def elsewhere(stand: Stand) -> None:
    """An upper layer is found by its path alone if that leads to it: not hidden, moved, made anew, or relative."""
    point = mounted(stand)
    live = find(Path(point))
    stand.same("upper", str(live.upper), stand.path("up/u"))
    hiding = Path(stand.path("other"))
    (hiding / "u").mkdir(parents=True)
    os.utime(hiding / "u", (1, 1))  # or it might have been made in the same tick of the clock
    syscalls.mount(str(hiding), stand.path("up"), None, syscalls.MS_BIND)
    refuses(stand, SetupError, point, "but what is there is another directory")
    syscalls.umount(stand.path("up"))
    os.rename(stand.path("up/u"), stand.path("up/v"))
    refuses(stand, SetupError, point, "but it is not there")
    os.rename(stand.path("up/v"), stand.path("up/u"))
    stand.same("then", find(Path(point)).upper, live.upper)
    _relative(stand)


def _relative(stand: Stand) -> None:
    stand.layers(low2=Directory({"x": File(b"x")}), **{"odd: \\name,=": UPPER})
    home = Path.cwd()
    os.chdir(stand.root)
    try:
        shutil.copytree("odd: \\name,=", "rel")
        point = stand.mount("lowerdir=low2,upperdir=rel/u,workdir=rel/w,xino=nofollow", "n")
        stand.same("the relative one", str(find(Path(point)).upper), stand.path("rel/u"))
        os.chdir("/")
        refuses(stand, SetupError, point, "run this in the directory in which it was mounted")
    finally:
        os.chdir(home)
    name = "odd: \\\\name\\,="
    odd = stand.mount(f"lowerdir={{low2}},upperdir={{{name}/u}},workdir={{{name}/w}},xino=nofollow", "o")
    live = find(Path(odd))
    stand.same("the odd upper", str(live.upper), stand.path("odd: \\name,=/u"))
    stand.same("the lower", list(map(str, live.lowers)), [stand.path("low2")])
    stand.same("left over in it", migrated(odd).leftovers, ())


def unmark(*paths: str) -> None:
    """Take the marks of these directories off."""
    for path in paths:
        os.removexattr(path, OPAQUE)


def tampered(
    change: Callable[[str], object], expected: dict[str, str], directories: set[str]
) -> Callable[[Stand], None]:
    """The control: what is detached is not called that any more once its upper layer is changed by hand."""

    def work(stand: Stand) -> None:
        point = mounted(stand)
        live: Live = find(Path(point))
        stand.same("left over", carry_out(live).leftovers, ())
        os.mkdir(f"{point}/a/made")
        stand.same("left over with one more directory", carry_out(live).leftovers, ())
        change(str(live.upper))
        outcome = carry_out(live)
        stand.same("left over", left(outcome), expected)
        stand.same("merged", merged(outcome), directories)

    return work


GROUPS = (
    Group(
        "live-verdicts",
        "Refuse overlays of a user's, and say what is not detached.",
        trials=(
            Trial("refused", refused),
            Trial("layers that are elsewhere", elsewhere),
            Trial(
                "unmarked by hand",
                tampered(lambda up: unmark(f"{up}/a", up), {}, {".", "a", "a/made"}),
            ),
            Trial(
                "the root unmarked by hand",
                tampered(unmark, {".": ROOT_UNMARKED}, set()),
            ),
            Trial(
                "without data by hand",
                tampered(lambda up: os.setxattr(f"{up}/one", "trusted.overlay.metacopy", b""), {"one": NO_DATA}, set()),
            ),
            Trial(
                "redirected by hand",
                tampered(lambda up: os.setxattr(f"{up}/a/made", "trusted.overlay.redirect", b"/a/b"), {}, {"a/made"}),
            ),
        ),
    ),
)
