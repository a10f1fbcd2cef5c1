# SPDX-License-Identifier: GPL-2.0-only
"""What the trials share in which memory runs out: how one is declared, what is done, the trees they begin with."""

from __future__ import annotations

import errno
import inspect
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File, HardLink, Node, Special, Symlink
from tests.mounts import needs
from union import namecalls, syscalls
from union.faults import Call, Disturbed, Injector, Slab, each_allocation
from union.scenario import Trial
from union.stand import Stand

NO_MEMORY: Final = (errno.ENOMEM, errno.ENOSPC)  # the latter from a tmpfs that can make no inode
# Whatever keeps copy-up from taking the locks of its last rename, overlayfs says EIO.
COPY_UP: Final = (*NO_MEMORY, errno.EIO)
# A redirect that cannot be made leaves the move to the caller.
MOVE: Final = (*COPY_UP, errno.EXDEV)

TEXT: Final = b"of lower " * 40
FILE_ACL: Final = acl("u::rw-,u:3:r--,g::r--,m::rw-,o::---")
DEFAULT_ACL: Final = acl("u::rwx,u:3:r-x,g::r-x,m::r-x,o::---")
LOWER: Final = Directory({
    "file": File(TEXT, 0o660, 1, 2, {"user.one": b"1" * 300, "trusted.two": b"2", ACCESS: FILE_ACL}),
    "plain": File(TEXT),
    "link": Symlink("file", 5, 6, {"trusted.link": b"l"}),
    "fifo": Special(stat.S_IFIFO, 0o600, 7, 8),
    "device": Special(stat.S_IFCHR, 0o640, rdev=0x0103),
    "empty": Directory({}, 0o711),
    "dir": Directory({"file": File(b"deep")}, 0o750, 3, 4, {"user.dir": b"d", DEFAULT: DEFAULT_ACL}),
    "one": File(b"linked"),
    "two": HardLink("one"),
})  # fmt: skip


def disturbed(
    label: str,
    call: Call,
    lower: Directory | None = None,
    *,
    upper: Mapping[str, Node] | None = None,
    middle: Mapping[str, Node] | None = None,
    options: str = "",
    before: Call | None = None,
    errors: tuple[int, ...] = COPY_UP,
    settle: Call | None = None,
    kept: Call | None = None,
    injector: Callable[[Stand], Injector] = Slab,
) -> Trial:
    """Each allocation of the call fails once, see `union.faults`.

    Without `lower` that is LOWER, of which, and of `upper`, only what the calls name is made: a layer has dozens of
    copies.
    """
    if lower is None:
        named = {"fifo"}.union(*(_named(one) for one in (call, before, settle, kept)))  # it is in nobody's way
        named |= {"one", "two"} if named & {"one", "two"} else set()
        lower = Directory({name: node for name, node in LOWER.entries.items() if name in named})
        upper = upper and {name: node for name, node in upper.items() if name in named}
    above = Directory(upper) if upper is not None else None
    between = Directory(middle) if middle is not None else None
    what = Disturbed(call, lower, above, between, options, before, errors, settle, kept)

    def work(stand: Stand) -> None:
        needs.recent(options)
        each_allocation(stand, injector(stand), what)

    return Trial(label, work, *declared())


def _named(thing: object) -> set[str]:
    """The names in the top directory that a call, made by the functions below, was given or holds itself."""
    if isinstance(thing, str):
        return {thing.partition("/")[0]}
    if isinstance(thing, tuple):
        return set().union(*map(_named, thing))
    if not inspect.isfunction(thing):
        return set()
    cells = [cell.cell_contents for cell in thing.__closure__ or ()]
    return set().union(*map(_named, (*cells, *(c.strip("/") for c in thing.__code__.co_consts if isinstance(c, str)))))


def declared() -> tuple[int, str]:
    """The line and file of the table that is being read."""
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return (frame.f_lineno, frame.f_code.co_filename) if frame else (0, "")


# what is done to a directory of the union


def chown(*names: str) -> Call:
    """lchown(2) of each name: its metadata is copied up."""

    def call(top: str) -> None:
        for name in names:
            os.lchown(f"{top}/{name}", 11, 12)

    return call


def opened(name: str, flags: int) -> Call:
    """Open and close: the data is copied up if it is for writing."""
    return lambda top: os.close(os.open(f"{top}/{name}", flags, 0o664))


def unlink(*names: str) -> Call:
    """unlink(2) of each name."""

    def call(top: str) -> None:
        for name in names:
            os.unlink(f"{top}/{name}")

    return call


def mkdir(name: str) -> Call:
    """mkdir(2)."""
    return lambda top: os.mkdir(f"{top}/{name}", 0o777)


def rename(old: str, new: str, flags: int = 0) -> Call:
    """renameat2(2)."""
    return lambda top: namecalls.rename(f"{top}/{old}", f"{top}/{new}", flags)


def link(old: str, new: str) -> Call:
    """link(2), of symlinks themselves."""
    return lambda top: os.link(f"{top}/{old}", f"{top}/{new}", follow_symlinks=False)


def lists(*names: str) -> Call:
    """List the directories to their end: names and types, sorted."""

    def call(top: str) -> list[tuple[str, int]]:
        found = []
        for name in names:
            fd = os.open(f"{top}/{name}", os.O_RDONLY | os.O_DIRECTORY)
            try:
                found += [(entry.name, entry.type) for entry in syscalls.getdents(fd)]
            finally:
                os.close(fd)
        return sorted(found)

    return call


def cold(*calls: Call) -> Call:
    """These calls, one after the other, and then no caches."""

    def call(top: str) -> None:
        for step in calls:
            step(top)
        syscalls.drop_caches()

    return call


def both(*calls: Call) -> Call:
    """One after the other; all results."""

    def call(top: str) -> Sequence[object]:
        return [step(top) for step in calls]

    return call
