# SPDX-License-Identifier: GPL-2.0-only
"""The whole union compared with what the image and all changes to it add up to, by a process that may hang."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from typing import Final, NamedTuple

from union.children import end_with_parent, ended
from union.lazy import image as images
from union.lazy.crew import LAST_WILL, kill_group
from union.lazy.image import Entry, Image
from union.lazy.workload import CLEAN, PREFIX, Changes, owner

_SHOWN: Final = 5  # complaints that are told in full


class Audit(NamedTuple):
    """How many objects were as they must be, how many gave a clean error, and how many are wrong; some are told."""

    right: int = 0
    errors: int = 0
    wrong: int = 0
    told: tuple[str, ...] = ()  # what is wrong, or else the errors
    hung: bool = False


Top = tuple[str, int]
"""A directory, and a descriptor of it by which it is reached."""


def audit(tops: Sequence[Top], image: Image, changes: Changes | None, patience: float) -> Audit:
    """Look at all below these directories, each file to its end. Who is not done after `patience` seconds hangs.

    Without `changes`, of workers that still work, only what is shared is looked at.
    """
    ours, theirs = Pipe(duplex=False)
    pid = os.fork()
    if not pid:
        try:
            end_with_parent()
            theirs.send(_audit(tops, Expected(image, changes)))
        finally:
            os._exit(0)
    theirs.close()
    try:
        found: Audit = ours.recv() if ours.poll(patience) else Audit(hung=True)
    except EOFError:
        found = Audit(wrong=1, told=("who looked at the union has died",))
    finally:
        ours.close()
        kill_group(pid)
        ended(pid, LAST_WILL)
    return found


class Expected:
    """What there must be."""

    def __init__(self, image: Image, changes: Changes | None) -> None:
        self._complete = changes is not None
        if changes is None:
            files = [path for path, entry in image.items() if entry.is_file]
            changes = Changes(unsure=[path for path in files if owner(path, 1) is not None])
        gone = {*changes.gone, *changes.files}
        self.tree: dict[str, Entry | str] = {path: entry for path, entry in image.items() if path not in gone}
        self.tree |= changes.files  # a digest
        self.tree |= dict.fromkeys(changes.directories, image["."])
        self._unsure = set(changes.unsure)
        self._names: dict[str, set[str]] = {}
        for path, entry in self.tree.items():
            if not isinstance(entry, str) and entry.is_directory:
                self._names.setdefault(path, set())
            if path != ".":
                parent, _, name = path.rpartition("/")
                self._names.setdefault(parent or ".", set()).add(name)

    def below(self, top: str) -> Iterator[str]:
        """The directory and all in it, but for what nobody knows."""
        prefix = "" if top == "." else f"{top}/"
        for path in self.tree:
            if (path == top or path.startswith(prefix)) and path not in self._unsure:
                yield path

    def check(self, path: str, relative: str, dir_fd: int) -> str:
        """What is wrong with the object, empty for nothing. Raises OSError."""
        wanted = self.tree[path]
        if isinstance(wanted, str):
            return "" if images.digest(relative, dir_fd) == wanted else "has other content"
        found = os.stat(relative, dir_fd=dir_fd, follow_symlinks=False)
        if found.st_mode != wanted.mode and not _made(path):
            return f"has mode {found.st_mode:o}, not {wanted.mode:o}"
        if wanted.is_file:
            return "" if images.digest(relative, dir_fd) == wanted.what else "has other content"
        if wanted.is_link:
            return "" if os.readlink(relative, dir_fd=dir_fd) == wanted.what else "leads elsewhere"
        return self._listing(path, relative, dir_fd) if wanted.is_directory else ""

    def _listing(self, path: str, relative: str, dir_fd: int) -> str:
        fd = os.open(relative, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dir_fd)
        try:
            found = {name for name in os.listdir(fd) if self._sure(path, name)}
        finally:
            os.close(fd)
        wanted = {name for name in self._names[path] if self._sure(path, name)}
        more, lacking = sorted(found - wanted)[:2], sorted(wanted - found)[:2]
        return f"lists {len(found)} names, not {len(wanted)}: without {lacking}, with {more}" if more or lacking else ""

    def _sure(self, directory: str, name: str) -> bool:
        if not self._complete and _made(name):
            return False
        return (name if directory == "." else f"{directory}/{name}") not in self._unsure


def _made(path: str) -> bool:
    """Whether a worker has made it, with whatever mode."""
    return path.rpartition("/")[2].startswith(PREFIX)


def _audit(tops: Sequence[Top], expected: Expected) -> Audit:
    right, errors, wrong = 0, list[str](), list[str]()
    for top, fd in tops:
        for path in expected.below(top):
            try:
                complaint = expected.check(path, _relative(path, top), fd)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, str(error))
                (errors if error.errno in CLEAN else wrong).append(f"{path}: {name}")
                continue
            if complaint:
                wrong.append(f"{path} {complaint}")
            else:
                right += 1
    return Audit(right, len(errors), len(wrong), tuple((wrong or errors)[:_SHOWN]))


def _relative(path: str, top: str) -> str:
    return path if top == "." else "." if path == top else path[len(top) + 1 :]


def attempt(call: Callable[[], object], patience: float) -> tuple[int, bool]:
    """Start a process that does this one thing, and give it so many seconds: its pid, and whether it is done."""
    pid = os.fork()
    if not pid:
        try:
            end_with_parent()
            call()
        finally:
            os._exit(0)
    return pid, ended(pid, patience)
