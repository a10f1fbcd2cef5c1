# SPDX-License-Identifier: GPL-2.0-only
"""Migrate a union: copy everything up, list directories until all are opaque, say what could not be.

Two ways. `mail` is what the author of `xino=nofollow` did, with the real programs. `dfs` does the same
in process, changes nothing that a user can see, and needs one pass (contract D4, D5, D6, D7).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from union import syscalls
from union.errors import SetupError
from union.programs import complaints
from union.upper import LIST_FLAGS, OURS, ROOT, OpaqueState, Upper, opaque_state

__all__ = ["ROOT", "Care", "Leftover", "Migration", "OpaqueState", "copy_up", "dfs", "mail", "migrated", "opaque_state"]

MAIL_PASSES: Final = 4  # "iterate 4 times as the depth of the dataset tree"
STILL_MERGED: Final = "still merged with the lower layer after listing"
NONE: Final[frozenset[str]] = frozenset()
PROBE: Final = "ovl-detach.absent"  # an xattr that nothing has, behind its namespace
_COPY_UP_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Leftover:
    """An object that still needs the lower layer: its path in the union (ROOT for the root), and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration did.

    `opaque_after` has the number of opaque directories after each pass that was made. `passes` is how
    many of them it took until the last directory changed: 0 if none ever did. `opaque` of `directories`
    (root included) are opaque at the end; `in_upper` of `objects` (root excluded) have an upper.
    `leftovers` are the objects that could not be copied up, then the directories that stay merged.
    """

    way: str
    opaque_after: tuple[int, ...]
    opaque: int
    directories: int
    in_upper: int
    objects: int
    leftovers: tuple[Leftover, ...] = field(default=())

    @property
    def passes(self) -> int:
        """The number of the last pass that changed the opaque set."""
        counts = (0, *self.opaque_after)
        return max((n for n in range(1, len(counts)) if counts[n] != counts[n - 1]), default=0)

    def describe(self) -> str:
        """One line for a summary."""
        after = ", ".join(map(str, self.opaque_after)) or "nothing listed"
        passes = f"{self.passes} pass{'' if self.passes == 1 else 'es'}"
        left = f", {len(self.leftovers)} left over" if self.leftovers else ""
        return f"{self.way}: {passes} needed (opaque after each: {after}){left}"


@dataclass(frozen=True, slots=True)
class Care:
    """What a walk that migrates must mind. Paths are relative to the union.

    The controls leave things out: `skip_copy` is neither copied up nor entered; a directory of `skip_listing` and all
    below it are copied up, but it is never listed once it is in upper. `done` are directories that nobody need enter.
    `apart` is what cannot be reached, by the reason. `gently`: no file is opened for writing, see `copy_up_gently`.
    `hidden` are names in the root that do not count. `advance` is called with the number of objects after each.
    """

    skip_copy: frozenset[str] = NONE
    skip_listing: frozenset[str] = NONE
    done: frozenset[str] = NONE
    apart: Mapping[str, str] = field(default_factory=dict)
    gently: bool = False
    hidden: frozenset[str] = OURS
    advance: Callable[[int], object] = lambda _: None


class _Walk:
    """What one walk over the union saw and did."""

    def __init__(self, root_fd: int, hidden: frozenset[str] = OURS) -> None:
        self.root_fd = root_fd
        self.objects = 0
        self.leftovers: list[Leftover] = []
        self._hidden = hidden

    def enumerate(self, path: str) -> list[syscalls.Dirent]:
        """List a directory to its end; empty, with a leftover, if it cannot be."""
        try:
            fd = os.open(path, LIST_FLAGS, dir_fd=self.root_fd)
        except OSError as error:
            self.leftovers.append(Leftover(path, f"cannot be opened: {error.strerror}"))
            return []
        try:
            return self.read(fd, path)
        finally:
            os.close(fd)

    def read(self, fd: int, path: str) -> list[syscalls.Dirent]:
        """List an open directory from its start to its end, without `.`, `..` and the names that do not count."""
        hidden = {".", "..", *self._hidden} if path == ROOT else (".", "..")
        try:
            return [entry for entry in syscalls.getdents(fd) if entry.name not in hidden]
        except OSError as error:
            self.leftovers.append(Leftover(path, f"cannot be listed: {error.strerror}"))
            return []


def _inside(path: str, name: str) -> str:
    return name if path == ROOT else f"{path}/{name}"


def mail(union: Path, upper: Path, *, namespace: str = "trusted") -> Migration:
    """The mail's way: the real `chown -R` and 4 times `find` on `union`, then listing on in process.

    `union` is the mounted overlay, `upper` its upper layer directory, which keeps its marks in `namespace`.
    Listing ends when no directory is merged any more or a pass changes nothing. As in the mail, everything is
    owned by 0:0 afterwards and chown takes suid bits and capabilities of what it touches: use `dfs` where that
    matters.

    What chown complains about is a leftover. Raises SetupError if a program is missing or find fails.
    """
    # The mail says 0.0; newer chown warns about the dot on stderr, and 0:0 means the same to all.
    leftovers = _complaints(complaints("chown", "coreutils", ["-R", "0:0", str(union)]), union)
    layer = Upper(upper, namespace)
    opaque_after: list[int] = []
    for _ in range(MAIL_PASSES):
        lines = complaints("find", "findutils", [str(union), "-inum", "0"])
        if lines:
            raise SetupError(f"find {union} -inum 0: {lines[0]}")
        opaque_after.append(layer.refresh() if opaque_after else len(layer.read().opaque))
    root_fd = os.open(union, os.O_PATH | os.O_DIRECTORY)
    try:
        # One listing in any case: it counts the objects.
        walk = _list_top_down(root_fd)
        opaque_after.append(layer.refresh())
        while layer.merged and opaque_after[-1] != opaque_after[-2]:
            walk = _list_top_down(root_fd)
            opaque_after.append(layer.refresh())
    finally:
        os.close(root_fd)
    return _report("mail", layer.state(), opaque_after, walk.objects, [*leftovers, *walk.leftovers])


_CHOWN_COMPLAINT = re.compile(r"(?:.*/)?chown: [^']*'(?P<path>.*)': (?P<reason>[^:]+)$")


def _complaints(lines: Iterable[str], union: Path) -> list[Leftover]:
    """chown's complaints as leftovers; a line that is not of its usual form is about the whole."""
    found = []
    for line in lines:
        match = _CHOWN_COMPLAINT.match(line)
        if match:
            path = os.path.relpath(match["path"], union)
            found.append(Leftover(path, f"not copied up: {match['reason']}"))
        else:
            found.append(Leftover(ROOT, line))
    return found


def _list_top_down(root_fd: int) -> _Walk:
    """One pass like find's: each directory is read to its end before any of its subdirectories."""
    walk = _Walk(root_fd)
    waiting = [ROOT]
    while waiting:
        path = waiting.pop()
        entries = walk.enumerate(path)
        walk.objects += len(entries)
        waiting += [_inside(path, entry.name) for entry in entries if entry.type == syscalls.DT_DIR]
    return walk


def dfs(
    union: Path,
    upper: Path,
    *,
    skip_copy: frozenset[str] = NONE,
    skip_listing: frozenset[str] = NONE,
    namespace: str = "trusted",
) -> Migration:
    """Copy up and list in one walk, each directory listed after its subdirectories, then until stable.

    Nothing that a user can see is changed but what copy-up itself changes (D7). The controls leave
    things out by path relative to the union: `skip_copy` neither copies the object up nor enters it;
    `skip_listing` copies a directory and all below it up, but never lists it once it is in upper.

    What cannot be copied up or listed is a leftover. Raises SetupError for a path to skip that is not
    there, OSError if the upper layer cannot be read.
    """
    root_fd = os.open(union, os.O_PATH | os.O_DIRECTORY)
    try:
        walk = migrated(root_fd, Care(skip_copy, skip_listing))
        layer = Upper(upper, namespace)
        opaque_after = [0, len(layer.read().opaque)]
        while layer.merged and opaque_after[-1] != opaque_after[-2]:
            for path in sorted(layer.merged - skip_listing, key=_depth, reverse=True):
                walk.enumerate(path)
            opaque_after.append(layer.refresh())
    finally:
        os.close(root_fd)
    return _report("dfs", layer.state(), opaque_after[1:], walk.objects, walk.leftovers)


def _depth(path: str) -> int:
    return 0 if path == ROOT else path.count("/") + 1


def migrated(root_fd: int, care: Care) -> _Walk:
    """Copy up and list all of the union whose root is `root_fd` in one walk; its `leftovers` and `objects`.

    Raises SetupError for a path to skip that is not there.
    """
    walk = _Migrator(root_fd, care)
    walk.run()
    return walk


@dataclass(slots=True)
class _Opened:
    """A directory that the walk is in: what is still to be done, and whether to list it again behind that."""

    path: str
    fd: int
    rest: Iterator[syscalls.Dirent]
    again: bool


class _Migrator(_Walk):
    """The walk that copies up: as few system calls as it takes, a slow guest pays for each.

    It goes from directory to directory by descriptors and never through a symlink: who changes the tree meanwhile
    cannot lead it out of there.
    """

    def __init__(self, root_fd: int, care: Care) -> None:
        super().__init__(root_fd, care.hidden)
        self._care = care
        self._copy = copy_up_gently if care.gently else copy_up
        self._skipped: set[str] = set()
        self._opened: list[_Opened] = []

    def run(self) -> None:
        """Walk the whole union."""
        try:
            if ROOT not in self._care.done:
                self._enter(ROOT)
            while self._opened:
                self._go_on(self._opened[-1])
        finally:
            for directory in self._opened:
                os.close(directory.fd)
        absent = (self._care.skip_copy | self._care.skip_listing) - self._skipped
        if absent:
            names = ", ".join(sorted(absent))
            raise SetupError(f"to be left out of the migration, but not in the union: {names}")

    def _go_on(self, directory: _Opened) -> None:
        """With the entries up to the next subdirectory, which is entered; behind the last list it once more."""
        care = self._care
        for name, _ino, kind in directory.rest:
            self.objects += 1
            care.advance(1)
            child = _inside(directory.path, name)
            if child in care.skip_copy:
                self._skipped.add(child)
                self.leftovers.append(Leftover(child, "left out on request"))
            elif child in care.apart:
                self.leftovers.append(Leftover(child, care.apart[child]))
            elif kind != syscalls.DT_DIR:
                self._copy_up(child, kind)
            elif child not in care.done and self._enter(child):
                return
        self._opened.pop()
        try:
            if directory.again:
                os.lseek(directory.fd, 0, os.SEEK_SET)
                self.read(directory.fd, directory.path)
        finally:
            os.close(directory.fd)

    def _enter(self, path: str) -> bool:
        """Copy the directory up, open and list it; if that covered anything it will be listed once more."""
        entries: list[syscalls.Dirent] = []
        unlisted = path in self._care.skip_listing
        if unlisted:
            self._skipped.add(path)
            entries = self.enumerate(path)  # as long as it is a lower directory this cannot make it opaque
        self._copy_up(path, syscalls.DT_DIR)
        try:
            fd = os.open(path.rpartition("/")[2], LIST_FLAGS, dir_fd=self._at())
        except OSError as error:
            self.leftovers.append(Leftover(path, f"cannot be opened: {error.strerror}"))
            return False
        directory = _Opened(path, fd, iter(()), False)
        self._opened.append(directory)
        if not unlisted:
            entries = self.read(fd, path)
            directory.again = bool(entries)
        directory.rest = iter(entries)
        return True

    def _copy_up(self, path: str, kind: int) -> None:
        try:
            self._copy(path.rpartition("/")[2], kind, self._at())
        except OSError as error:
            self.leftovers.append(Leftover(path, f"not copied up: {error.strerror}"))

    def _at(self) -> int:
        """The directory that the walk is in."""
        return self._opened[-1].fd if self._opened else self.root_fd


def copy_up(path: str, kind: int, root_fd: int) -> None:
    """Copy one object of type `kind` (DT_*) below the directory `root_fd` up, without a change to it.

    chown to nobody in particular would do for all, but the kernel takes that as a reason to clear suid
    bits and capabilities of anything but directories. Opening a regular file for writing clears
    nothing, and also copies the data that a metadata-only copy-up (metacopy=on) leaves behind. Raises OSError.
    """
    if kind in (syscalls.DT_DIR, syscalls.DT_LNK):
        os.chown(path, -1, -1, dir_fd=root_fd, follow_symlinks=False)
    elif kind != syscalls.DT_REG or not _could_be_opened(path, root_fd):
        _set_same_mode(path, root_fd)


def copy_up_gently(path: str, kind: int, root_fd: int) -> None:
    """Like `copy_up`, while others use the tree; without the data of metacopy=on, nor further hard links of index=on.

    As long as a file is open for writing, which includes that its data is copied, nobody can execute it (ETXTBSY).
    So try to change an xattr that is not there: the kernel copies the file up before it finds that out. One that may
    only be appended to has to be opened all the same.
    """
    if kind != syscalls.DT_REG:
        copy_up(path, kind, root_fd)
        return
    try:
        os.setxattr(f"/proc/self/fd/{root_fd}/{path}", f"user.{PROBE}", b"", os.XATTR_REPLACE, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EPERM:
            os.close(os.open(path, _COPY_UP_FLAGS, dir_fd=root_fd))
        elif error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


def _could_be_opened(path: str, root_fd: int) -> bool:
    """Whether the file could be opened for writing; a running program, for one, cannot (ETXTBSY)."""
    try:
        os.close(os.open(path, _COPY_UP_FLAGS, dir_fd=root_fd))
    except OSError:
        return False
    return True


def _set_same_mode(path: str, root_fd: int) -> None:
    """chmod(2) to the mode that it has, by a descriptor: the name may be a symlink's by now."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW, dir_fd=root_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(os.fstat(fd).st_mode))
    finally:
        os.close(fd)


def _report(
    way: str, state: OpaqueState, opaque_after: Iterable[int], objects: int, leftovers: Iterable[Leftover]
) -> Migration:
    """The report; directories that stay merged join the leftovers, each path once."""
    reasons = {leftover.path: leftover for leftover in leftovers}
    for path in sorted(state.merged):
        reasons.setdefault(path, Leftover(path, STILL_MERGED))
    counts = tuple(opaque_after)
    return Migration(way, counts, len(state.opaque), state.directories, state.objects, objects, tuple(reasons.values()))
