# SPDX-License-Identifier: GPL-2.0-only
"""Migrate an overlay of the user's while it is in use, and look in its upper layer whether nothing needs the lower.

Only the upper layer's own marks count: what the walk over the union did or could not do explains what is left, and
decides nothing. What changes meanwhile is no harm: the walk is repeated, where something is left, as long as it helps.
No file is opened for writing, which would keep others from executing it, but with metacopy=on or index=on.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from datasets.tree import APPEND_ONLY, IMMUTABLE
from union import migrate
from union.live import Live
from union.migrate import STILL_MERGED, Care, Leftover
from union.upper import ROOT, OpaqueState, opaque_state

Advance = Callable[[int], object]
"""Called with the number of objects done since the last call."""

NO_DATA: Final = "its data is still in a lower layer (metacopy)"
ROOT_UNMARKED: Final = (
    "the root of the upper layer has no opaque mark; nothing says whether the kernel still looks for names below it"
)
_ROUNDS: Final = 5  # of which the later ones get what was moved or changed while the walk came by
_FS_IOC_GETFLAGS: Final = 0x80086601
_FLAGS: Final = ((IMMUTABLE, "immutable", "chattr -i"), (APPEND_ONLY, "append-only", "chattr -a"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the upper layer says after a migration, and what explains it.

    `opaque` of `directories` (root included) are opaque, `objects` are in upper (root and whiteouts excluded).
    `leftovers` are those objects that need a lower layer and why, then the directories that need it for them alone.
    """

    opaque: int
    directories: int
    objects: int
    leftovers: tuple[Leftover, ...]

    @property
    def detached(self) -> bool:
        """Whether nothing needs a lower layer any more."""
        return not self.leftovers


def carry_out(live: Live, advance: Advance = lambda _: None) -> Outcome:
    """Copy everything up and list it, from where an earlier migration stopped; what has come of it.

    `advance` is told of each object. Raises OSError if the upper layer cannot be read. Can be interrupted anywhere.
    """
    now, before = state(live), None
    leftovers: list[Leftover] = []
    for _ in range(_ROUNDS):
        if not now.needy or now == before:
            break
        leftovers = _walk(live, now, advance)
        now, before = state(live), now
    return Outcome(len(now.opaque), now.directories, now.objects, tuple(_explained(live, now, leftovers)))


def state(live: Live) -> OpaqueState:
    """What its upper layer says now. Raises OSError."""
    return opaque_state(live.upper, namespace=live.namespace, hidden=frozenset(), data=True)


def _walk(live: Live, now: OpaqueState, advance: Advance) -> list[Leftover]:
    shared = live.options.get("metacopy") == "on" or live.options.get("index") == "on"
    care = Care(
        done=now.done,
        apart=live.apart,
        gently=not (shared or now.dataless),
        hidden=frozenset(),
        advance=advance,
    )
    root_fd = os.open(live.point, os.O_PATH | os.O_DIRECTORY)
    try:
        return migrate.migrated(root_fd, care).leftovers
    finally:
        os.close(root_fd)


def _explained(live: Live, now: OpaqueState, leftovers: list[Leftover]) -> list[Leftover]:
    """Why each is left: what went wrong with it, if it did; else what the upper layer says."""
    if not now.needy:
        return []
    found = {one.path: one for one in leftovers if _is_left(live, now, one.path)}
    found = {path: Leftover(path, _flag(f"{live.point}/{path}") or one.reason) for path, one in found.items()}
    for path in sorted(now.dataless):
        found.setdefault(path, Leftover(path, NO_DATA + _refusal(f"{live.point}/{path}")))
    for path in sorted(now.merged - {ROOT}):
        found.setdefault(path, Leftover(path, STILL_MERGED))
    if ROOT in now.merged:
        reason = STILL_MERGED if found else ROOT_UNMARKED
        found.setdefault(ROOT, Leftover(ROOT, reason))
    return sorted(found.values(), key=lambda one: (one.reason == STILL_MERGED, one.path))


def _is_left(live: Live, now: OpaqueState, path: str) -> bool:
    """Whether a complaint of the walk still holds: the object may be gone by now, or in upper all the same."""
    if path in now.needy:
        return True
    if path in live.apart:  # the mount on it is all that can be seen of it
        return not _exists(f"{live.upper}/{path}")
    return _exists(f"{live.point}/{path}") and not _exists(f"{live.upper}/{path}")


def _exists(path: str) -> bool:
    """Whether there is such a name; one that cannot be looked at has not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _flag(path: str) -> str:
    """What the file flags (lsattr) say about why it cannot be copied up; nothing if they do not."""
    try:
        if stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return ""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return obstacle(flags_of(fd))
    finally:
        os.close(fd)


def obstacle(flags: int) -> str:
    """Why an object with these file flags cannot be copied up, and what helps; nothing if it can."""
    return next((f"{word}: not copied up; {how} on it in the union" for bit, word, how in _FLAGS if flags & bit), "")


def _refusal(path: str) -> str:
    """Why a file cannot be opened for writing, which brings its data; nothing if it can."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        return f": {error.strerror}"
    return ""


def flags_of(fd: int) -> int:
    """The flags of FS_IOC_GETFLAGS of an open file, none if its filesystem has no such thing."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))[0])
    except OSError:
        return 0
