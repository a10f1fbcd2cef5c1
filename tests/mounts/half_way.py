# SPDX-License-Identifier: GPL-2.0-only
"""Half-way through a migration: it is cut off and resumed (D12), names go across its border (D19)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from errno import EXDEV
from typing import Final, NamedTuple

from datasets.acl import ACCESS
from datasets.tree import Directory, File, HardLink, Symlink
from tests.mounts import needs
from tests.mounts.out_of_memory import FILE_ACL, TEXT, both, chown, link, lists, mkdir, opened, rename
from union import filecalls
from union.faults import Call
from union.namecalls import RENAME_EXCHANGE
from union.portrait import Portrait, differences, portrait
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name
from union.witness import is_opaque

LAYERS: Final = "lowerdir={l},upperdir={up/u},workdir={up/w},xino=nofollow"

# D12

TREE: Final = Directory({
    "a": Directory({"big": File(TEXT * 100, 0o660, 1, 2, {ACCESS: FILE_ACL}), "b": Directory({"c": File(b"c")})}),
    "one": File(b"linked"),
    "two": HardLink("one"),
    "link": Symlink("one", 3, 4),
})  # fmt: skip
NAMES: Final = ("a/b/c", "a/b", "a/big", "a", "one", "two", "link", ".")
DATA: Final = ("a/b/c", "a/big", "one", "two")
DIRECTORIES: Final = ("a/b", "a", ".")


def copied(name: str) -> Call:
    """Copied up, showing no change; with metacopy=on without its data."""
    return lambda top: os.utime(f"{top}/{name}", (1, 1), follow_symlinks=False)


STEPS: Final = (
    *map(copied, NAMES),
    *(opened(name, os.O_WRONLY) for name in DATA),
    *map(lists, DIRECTORIES),
)


def cut_off(stand: Stand, options: str, synced: bool) -> None:
    """Upper is shut down after every third step; what is recovered is a whole union, and is migrated to the end.

    `synced`: written out before the last step before the cut, so that the log of upper holds a part.
    """
    needs.recent(LAYERS)
    stand.layers(l=TREE)
    upper = stand.filesystem("up", "xfs", Directory({"u": Directory(), "w": Directory()}))
    point = stand.mount(LAYERS + options)
    wanted = portrait(point)
    for cut in range(2, len(STEPS), 3):
        for number, step in enumerate(STEPS[:cut]):
            if synced and number == cut - 1:
                write_out(point)
            step(point)
        stand.shut_down(upper)
        stand.unmount()
        upper = stand.recover(upper)
        point = stand.mount(LAYERS + options)
        stand.holds(f"cut after {cut} steps: {differences(portrait(point), wanted)}", portrait(point) == wanted)
    for step in STEPS:
        step(point)
    for name in DIRECTORIES:
        stand.holds(f"{name} is opaque in the end", is_opaque(stand.path(f"up/u/{name}")))
    point = stand.again(LAYERS + options)
    stand.holds(f"mounted again: {differences(portrait(point), wanted)}", portrait(point) == wanted)


def write_out(point: str) -> None:
    """syncfs(2)."""
    fd = os.open(point, os.O_RDONLY)
    try:
        filecalls.syncfs(fd)
    finally:
        os.close(fd)


def interrupted(label: str, options: str = "", *, synced: bool = False) -> Trial:
    """A migration with these options too."""
    return Trial(label, lambda stand: cut_off(stand, options, synced))


# D19

BORDER: Final = Directory({
    "merge": Directory({
        "copied": File(b"copied"),
        "plain": File(b"plain"),
        "link": Symlink("plain"),
        "sub": Directory({"x": File(b"x"), "y": Directory({"z": File(b"z")})}),
        "half": Directory({"x": File(b"x"), "y": File(b"y")}),
        "empty": Directory(),
        "gone": File(b"gone"),
    }),
    "opaque": Directory({"old": File(b"old"), "dir": Directory({"in": File(b"in")})}),
})  # fmt: skip
HALF_WAY: Final = both(
    chown("merge/copied", "merge/half/x", "opaque/old", "opaque/dir", "opaque/dir/in"),
    opened("opaque/old", os.O_WRONLY),
    opened("opaque/dir/in", os.O_WRONLY),
    lists("opaque/dir", "opaque"),
    mkdir("merge/made"),
    opened("merge/made/f", os.O_CREAT | os.O_WRONLY),
    lambda top: os.unlink(f"{top}/merge/gone"),
)
FILES: Final = ("merge/copied", "merge/plain", "merge/link")
MOVED: Final = (*FILES, "merge/sub", "merge/half", "merge/empty", "merge/made")


class Move(NamedTuple):
    """A call, its two names, and what it makes of the portrait."""

    label: str
    call: Call
    old: str
    new: str
    becomes: Callable[[Portrait, str, str], Portrait]


def renamed(before: Portrait, old: str, new: str) -> Portrait:
    """All of `old` is at `new`."""
    return {_moved(path, old, new): seen for path, seen in before.items() if not _below(path, new)}


def exchanged(before: Portrait, old: str, new: str) -> Portrait:
    """Each is where the other was."""
    return {_moved(path, old, new) if _below(path, old) else _moved(path, new, old): seen
            for path, seen in before.items()}  # fmt: skip


def linked(before: Portrait, old: str, new: str) -> Portrait:
    """Both names show the same."""
    return {**before, new: before[old]}


def _below(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if _below(path, old) else path


MOVES: Final = (
    *(Move("rename in", rename(old, "opaque/new"), old, "opaque/new", renamed) for old in MOVED),
    *(Move("link in", link(old, "opaque/new"), old, "opaque/new", linked) for old in FILES),
    *(Move("rename over", rename(old, "opaque/old"), old, "opaque/old", renamed) for old in FILES),
    *(Move("exchange", rename(old, "opaque/dir", RENAME_EXCHANGE), old, "opaque/dir", exchanged) for old in MOVED),
    *(
        Move("rename out", rename(old, "merge/gone"), old, "merge/gone", renamed)
        for old in ("opaque/old", "opaque/dir")
    ),
    Move("link out", link("opaque/old", "merge/gone"), "opaque/old", "merge/gone", linked),
    Move("rename over", rename("opaque/dir", "merge/empty"), "opaque/dir", "merge/empty", renamed),
    Move("rename all", rename("opaque", "merge/gone"), "opaque", "merge/gone", renamed),
    Move("rename all", rename("merge", "opaque/new"), "merge", "opaque/new", renamed),
)


def across(options: str, must: Sequence[str]) -> Trial:
    """Every move succeeds as a whole, or gives EXDEV and changes nothing; those of `must` succeed."""

    def work(stand: Stand) -> None:
        needs.recent(LAYERS)
        tops = [str(number) for number in range(len(MOVES))]
        stand.layers(l=Directory(dict.fromkeys(tops, BORDER)), up=Directory({"u": Directory(), "w": Directory()}))
        point = stand.mount(LAYERS + options)
        wanted = []
        for top, move in zip(tops, MOVES, strict=True):
            HALF_WAY(f"{point}/{top}")
            stand.holds("opaque is opaque", is_opaque(stand.path(f"up/u/{top}/opaque")))
            wanted.append(_move(stand, f"{point}/{top}", move, must))
        point = stand.again(LAYERS + options)
        for top, move, tree in zip(tops, MOVES, wanted, strict=True):
            said = f"{move.label} {move.old} {move.new}, mounted again"
            now = portrait(f"{point}/{top}")
            stand.holds(f"{said}: {differences(now, tree)}", now == tree)

    return Trial(f"names across the border{options.replace(',', ' with ')}", work)


def _move(stand: Stand, top: str, move: Move, must: Sequence[str]) -> Portrait:
    """Make the move; what the directory must show from now on."""
    before = portrait(top)
    got = attempt(move.call, top)
    said = f"{move.label} {move.old} {move.new}"
    stand.steps.append(f"{said}: {errno_name(got)}")
    stand.holds(f"{said}: {errno_name(got)}", got in ((0,) if move.old in must else (0, EXDEV)))
    wanted = before if got else move.becomes(before, move.old, move.new)
    now = portrait(top)
    stand.holds(f"{said}: {differences(now, wanted)}", now == wanted)
    return wanted


GROUPS = (
    Group(
        "half-way",
        "Cut a migration off, and change names in the middle of one.",
        trials=(
            interrupted("cut off and resumed"),
            interrupted("cut off after a sync and resumed", synced=True),
            interrupted("cut off and resumed, with an index", ",index=on", synced=True),
            interrupted("cut off and resumed, with metadata copies", ",metacopy=on,redirect_dir=on", synced=True),
            across("", (*FILES, "merge/made", "opaque/old")),
            across(",redirect_dir=on", (*FILES, "merge/made", "opaque/old")),
            across(",metacopy=on,redirect_dir=on", ("merge/copied", "merge/link", "merge/made", "opaque/old")),
            across(",index=on", (*FILES, "merge/made", "opaque/old")),
        ),
    ),
)
