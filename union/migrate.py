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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datasets.reference import SAMPLE_NAME
from union import syscalls
from union.errors import SetupError
from union.programs import complaints

ROOT: Final = "."  # how the root of a union or an upper layer is named in what follows
MAIL_PASSES: Final = 4  # "iterate 4 times as the depth of the dataset tree"
STILL_MERGED: Final = "still merged with the lower layer after listing"
NONE: Final[frozenset[str]] = frozenset()
_COPY_UP_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Leftover:
    """An object that still needs the lower layer: its path in the union (ROOT for the root), and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpaqueState:
    """What an upper layer says of itself. Paths are relative, ROOT is its root.

    `opaque`: directories with the mark. `merged`: directories that still look into the lower. `pure`:
    directories without the mark that cannot, since they were made in an opaque directory. `objects`:
    everything below the root but whiteouts and the sample file. All directories but the root count.
    """

    opaque: frozenset[str]
    merged: frozenset[str]
    pure: frozenset[str]
    objects: int

    @property
    def directories(self) -> int:
        """The number of directories that are or were merged, the root included."""
        return len(self.opaque) + len(self.merged)


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


def opaque_state(upperdir: Path, *, namespace: str = "trusted") -> OpaqueState:
    """Read the whole upper layer; needs the privilege to read `namespace`.overlay xattrs.

    Raises OSError. Nothing of the lower or the union is touched.
    """
    return _Upper(upperdir, namespace).read()


class _Upper:
    """An upper layer, read once in full and after that only where a directory is still merged."""

    def __init__(self, root: Path, namespace: str = "trusted") -> None:
        self._root = root
        self._opaque_key = f"{namespace}.overlay.opaque"
        self._redirect_key = f"{namespace}.overlay.redirect"
        self._opaque: set[str] = set()
        self.merged: set[str] = set()
        self._pure: set[str] = set()
        self._objects = 0

    def read(self) -> OpaqueState:
        """Walk all of it."""
        root_fd = os.open(self._root, _LIST_FLAGS)
        try:
            self._directory(root_fd, ROOT, below_opaque=False)
            waiting = [(entry, ROOT in self._opaque) for entry in self._subdirectories(root_fd, root_fd, "")]
            while waiting:
                path, below_opaque = waiting.pop()
                fd = os.open(path, _LIST_FLAGS, dir_fd=root_fd)
                try:
                    opaque = self._directory(fd, path, below_opaque)
                    waiting += [(entry, opaque) for entry in self._subdirectories(root_fd, fd, path + "/")]
                finally:
                    os.close(fd)
        finally:
            os.close(root_fd)
        return self.state()

    def state(self) -> OpaqueState:
        """What is known now."""
        opaque, merged, pure = map(frozenset, (self._opaque, self.merged, self._pure))
        return OpaqueState(opaque, merged, pure, self._objects)

    def refresh(self) -> int:
        """Look again at the merged directories, the only ones that can change; the number of opaque ones."""
        turned = {path for path in self.merged if self._marked(f"{self._root}/{path}")}
        self._opaque |= turned
        self.merged -= turned
        return len(self._opaque)

    def _directory(self, fd: int, path: str, below_opaque: bool) -> bool:
        """File the directory under its kind; whether its entries are hidden from the lower."""
        if self._marked(fd):
            self._opaque.add(path)
            return True
        if below_opaque and not _xattr(fd, self._redirect_key):
            self._pure.add(path)
            return True
        self.merged.add(path)
        return False

    def _subdirectories(self, root_fd: int, fd: int, prefix: str) -> Iterator[str]:
        """The paths of the directories in `fd`; counts its objects on the way."""
        for name, _ino, kind in syscalls.getdents(fd):
            if name in (".", "..") or (name == SAMPLE_NAME and not prefix):
                continue
            path = prefix + name
            if kind == syscalls.DT_CHR and os.stat(path, dir_fd=root_fd, follow_symlinks=False).st_rdev == 0:
                continue  # a whiteout
            self._objects += 1
            if kind == syscalls.DT_DIR:
                yield path

    def _marked(self, where: str | int) -> bool:
        return _xattr(where, self._opaque_key) == b"y"  # "x" says that there are whiteouts kept as xattrs


def _xattr(where: str | int, key: str) -> bytes:
    try:
        return os.getxattr(where, key)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        raise


class _Walk:
    """What one walk over the union saw and did."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self.objects = 0
        self.leftovers: list[Leftover] = []

    def enumerate(self, path: str) -> list[syscalls.Dirent]:
        """List a directory to its end; empty, with a leftover, if it cannot be."""
        try:
            fd = os.open(path, _LIST_FLAGS, dir_fd=self.root_fd)
        except OSError as error:
            self.leftovers.append(Leftover(path, f"cannot be opened: {error.strerror}"))
            return []
        try:
            return self.read(fd, path)
        finally:
            os.close(fd)

    def read(self, fd: int, path: str) -> list[syscalls.Dirent]:
        """List an open directory from its start to its end, without `.`, `..` and the sample file."""
        hidden = (".", "..", SAMPLE_NAME) if path == ROOT else (".", "..")
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
    layer = _Upper(upper, namespace)
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
        walk = _Migrator(root_fd, skip_copy, skip_listing)
        walk.run()
        layer = _Upper(upper, namespace)
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


class _Migrator(_Walk):
    """The walk that copies up: as few system calls as it takes, a slow guest pays for each."""

    def __init__(self, root_fd: int, skip_copy: frozenset[str], skip_listing: frozenset[str]) -> None:
        super().__init__(root_fd)
        self._skip_copy = skip_copy
        self._skip_listing = skip_listing
        self._skipped: set[str] = set()

    def run(self) -> None:
        """Walk the whole union."""
        self._directory(ROOT)
        absent = (self._skip_copy | self._skip_listing) - self._skipped
        if absent:
            names = ", ".join(sorted(absent))
            raise SetupError(f"to be left out of the migration, but not in the union: {names}")

    def _directory(self, path: str) -> None:
        """Copy up the directory and all below it, then list it once more if that covered anything."""
        if path in self._skip_listing:
            self._skipped.add(path)
            entries = self.enumerate(path)  # as long as it is a lower directory this cannot make it opaque
            self._copy_up(path, syscalls.DT_DIR)
            self._entries(path, entries)
            return
        self._copy_up(path, syscalls.DT_DIR)
        try:
            fd = os.open(path, _LIST_FLAGS, dir_fd=self.root_fd)
        except OSError as error:
            self.leftovers.append(Leftover(path, f"cannot be opened: {error.strerror}"))
            return
        try:
            entries = self.read(fd, path)
            if entries:
                self._entries(path, entries)
                os.lseek(fd, 0, os.SEEK_SET)
                self.read(fd, path)
        finally:
            os.close(fd)

    def _entries(self, path: str, entries: Iterable[syscalls.Dirent]) -> None:
        for name, _ino, kind in entries:
            self.objects += 1
            child = _inside(path, name)
            if child in self._skip_copy:
                self._skipped.add(child)
                self.leftovers.append(Leftover(child, "left out on request"))
            elif kind == syscalls.DT_DIR:
                self._directory(child)
            else:
                self._copy_up(child, kind)

    def _copy_up(self, path: str, kind: int) -> None:
        try:
            copy_up(path, kind, self.root_fd)
        except OSError as error:
            self.leftovers.append(Leftover(path, f"not copied up: {error.strerror}"))


def copy_up(path: str, kind: int, root_fd: int) -> None:
    """Copy one object of type `kind` (DT_*) below the directory `root_fd` up, without a change to it.

    chown to nobody in particular would do for all, but the kernel takes that as a reason to clear suid
    bits and capabilities of anything but directories. Opening a regular file for writing clears
    nothing, and also copies the data that a metadata-only copy-up (metacopy=on) leaves behind. Raises OSError.
    """
    if kind in (syscalls.DT_DIR, syscalls.DT_LNK):
        os.chown(path, -1, -1, dir_fd=root_fd, follow_symlinks=False)
    elif kind != syscalls.DT_REG or not _opened(path, root_fd):
        mode = os.stat(path, dir_fd=root_fd, follow_symlinks=False).st_mode
        os.chmod(path, stat.S_IMODE(mode), dir_fd=root_fd)


def _opened(path: str, root_fd: int) -> bool:
    """Whether the file could be opened for writing; a running program, for one, cannot (ETXTBSY)."""
    try:
        os.close(os.open(path, _COPY_UP_FLAGS, dir_fd=root_fd))
    except OSError:
        return False
    return True


def _report(
    way: str, state: OpaqueState, opaque_after: Iterable[int], objects: int, leftovers: Iterable[Leftover]
) -> Migration:
    """The report; directories that stay merged join the leftovers, each path once."""
    reasons = {leftover.path: leftover for leftover in leftovers}
    for path in sorted(state.merged):
        reasons.setdefault(path, Leftover(path, STILL_MERGED))
    counts = tuple(opaque_after)
    return Migration(way, counts, len(state.opaque), state.directories, state.objects, objects, tuple(reasons.values()))
