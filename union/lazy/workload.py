# SPDX-License-Identifier: GPL-2.0-only
"""What a container does that starts before its image is there: it reads, runs programs, writes, and checks all of it.

Each worker may change files of its own, of which it keeps account; what nobody may change is shared. So each knows at
any time what it must find.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal, NamedTuple

from union.lazy import image as images
from union.lazy.image import Image

Verdict = Literal["ok", "error", "wrong"]
CLEAN: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ESTALE})
"""What a lower that is gone may give. Any other errno says something about the tree, and that is wrong data."""
MISSING: Final = ".never-there"
PREFIX: Final = ".w"  # of the names that workers make
_PROGRAMS: Final = ("bin", "sbin", "lib", "lib64", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/libexec")
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
_MODULES: Final = ("json, decimal", "email.message", "argparse, csv", "xml.dom.minidom", "sqlite3.dump", "asyncio")


class Wrong(Exception):
    """What was read is not what must be there."""


class Failed(Exception):
    """A program came to no good end."""


class Step(NamedTuple):
    """`kind` is a word, `words` tell all, `call` does it: raises Wrong, Failed or OSError."""

    kind: str
    words: str
    call: Callable[[], object]


@dataclass(slots=True)
class Changes:
    """What a worker has made of the image: files and their digests, directories, and what is no more.

    `unsure` are the paths of operations that failed: they may have been carried out or not.
    """

    files: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def add(self, other: Changes) -> None:
        """Those of another worker, which has other names."""
        self.files |= other.files
        self.directories += other.directories
        self.gone += other.gone
        self.unsure += other.unsure


def judge(step: Step) -> tuple[Verdict, str]:
    """Carry the step out; what came of it, in a word and in all."""
    try:
        step.call()
    except Wrong as wrong:
        return "wrong", str(wrong)
    except Failed as failed:
        return "error", str(failed)
    except OSError as error:
        return "error" if error.errno in CLEAN else "wrong", errno.errorcode.get(error.errno or 0, str(error))
    return "ok", ""


def owner(path: str, crew: int) -> int | None:
    """The number of the worker that a file of the image belongs to; None for what is shared."""
    if path.startswith(tuple(f"{directory}/" for directory in _PROGRAMS)):
        return None
    number = zlib.crc32(os.fsencode(path))
    return None if number % 4 else number // 4 % crew


class Worker:
    """Worker `number` of a crew of `crew`, whose root is the union. All it does follows from `seed`."""

    def __init__(self, image: Image, number: int, crew: int, seed: int) -> None:
        self._image = image
        self._number = number
        self._crew = crew
        self._dice = Random(f"{seed}/{number}")
        self._prefix = f"{PREFIX}{number}-"
        self._count = 0
        self._names = images.names(image)
        self._directories = sorted(self._names)
        self._shared = [path for path, entry in image.items() if entry.is_file and owner(path, crew) is None]
        self._links = [path for path, entry in image.items() if entry.is_link]
        self._own = [path for path, entry in image.items() if entry.is_file and owner(path, crew) == number]
        self._python = "usr/bin/python3" in image
        self._shell = bool({"bin/sh", "usr/bin/sh"} & image.keys())
        self.changes = Changes()
        self.read: set[str] = set()  # the files of the image that it has read
        self.input = -1  # a descriptor of /dev/null, which the image need not have

    def steps(self) -> Iterator[Step]:
        """What it does, without end."""
        kinds: list[tuple[Callable[[], Step], int]] = [
            (self._read, 40), (self._stat, 10), (self._list, 12), (self._missing, 4), (self._create, 8),
            (self._append, 5), (self._rename, 5), (self._unlink, 3), (self._mkdir, 2), (self._rmdir, 1),
        ]  # fmt: skip
        kinds += [(self._readlink, 5)] if self._links else []
        kinds += [(self._true, 3), (self._sh, 3), (self._sum, 3)] if self._shell else []
        kinds += [(self._import, 2)] if self._python else []
        # The first of each kind is looked at: who waits for a container waits for these.
        first = [self._read, *([self._true] if self._shell else []), *([self._import] if self._python else [])]
        yield first[self._number % len(first)]()
        calls, weights = zip(*kinds, strict=True)
        while True:
            yield self._dice.choices(calls, weights)[0]()

    # looking

    def _read(self) -> Step:
        path = self._dice.choice(self._mine() or self._shared if self._dice.random() < 0.2 else self._shared)
        return Step("read", f"read {path}", lambda: self._check(path))

    def _check(self, path: str) -> None:
        self._touch(path)
        found = images.digest(path)
        if path not in self.changes.unsure and found != (wanted := self._digest(path)):
            raise Wrong(f"{path} has the digest {found[:12]}, not {wanted[:12]}")

    def _stat(self) -> Step:
        path = self._dice.choice(self._shared)
        return Step("stat", f"stat {path}", lambda: self._check_stat(path))

    def _check_stat(self, path: str) -> None:
        found, wanted = os.lstat(path), self._image[path]
        if (found.st_mode, found.st_size) != (wanted.mode, wanted.size):
            raise Wrong(f"{path} has mode {found.st_mode:o} and {found.st_size} bytes, not {wanted}")

    def _readlink(self) -> Step:
        path = self._dice.choice(self._links)
        return Step("readlink", f"readlink {path}", lambda: self._check_link(path))

    def _check_link(self, path: str) -> None:
        if (found := os.readlink(path)) != self._image[path].what:
            raise Wrong(f"{path} leads to {found}, not {self._image[path].what}")

    def _list(self) -> Step:
        path = self._dice.choice([*self._directories, *self.changes.directories])
        return Step("list", f"list {path}", lambda: self._check_names(path))

    def _check_names(self, path: str) -> None:
        found = {name for name in os.listdir(path) if not self._foreign(_inside(path, name))}
        wanted = {name for name in self._wanted(path) if not self._foreign(_inside(path, name))}
        if found != wanted:
            lacking, more = sorted(wanted - found), sorted(found - wanted)
            raise Wrong(f"of {len(wanted)} names in {path} {len(lacking)} are missing {lacking[:2]}, others {more[:2]}")

    def _wanted(self, directory: str) -> set[str]:
        """The names that there must be in a directory, as far as this worker knows."""
        mine = {*self.changes.files, *self.changes.directories}
        added = {path.rpartition("/")[2] for path in mine if (path.rpartition("/")[0] or ".") == directory}
        lost = {path.rpartition("/")[2] for path in self.changes.gone if (path.rpartition("/")[0] or ".") == directory}
        return (self._names.get(directory, set()) | added) - lost

    def _foreign(self, path: str) -> bool:
        """Whether it is another worker's, or not known."""
        name = path.rpartition("/")[2]
        if name.startswith(PREFIX):
            return not name.startswith(self._prefix) or path in self.changes.unsure
        entry = self._image.get(path)
        theirs = entry is not None and entry.is_file and owner(path, self._crew) not in (None, self._number)
        return theirs or path in self.changes.unsure

    def _missing(self) -> Step:
        path = _inside(self._dice.choice(self._directories), MISSING)
        return Step("lookup", f"look {path} up", lambda: self._check_missing(path))

    def _check_missing(self, path: str) -> None:
        try:
            os.lstat(path)
        except FileNotFoundError:
            return
        raise Wrong(f"{path} is found")

    # programs

    def _true(self) -> Step:
        return Step("exec", "run true", lambda: self._run(["/bin/true"], ""))

    def _sh(self) -> Step:
        one, two = self._dice.randrange(1000), self._dice.randrange(1000)
        command = ["/bin/sh", "-c", f"echo $(({one} * {two}))"]
        return Step("exec", f"run {' '.join(command)}", lambda: self._run(command, f"{one * two}\n"))

    def _sum(self) -> Step:
        path = self._dice.choice(self._shared)
        command = ["sha256sum", f"/{path}"]
        wanted = f"{self._image[path].what}  /{path}\n"
        self._touch(path)
        return Step("exec", f"run {' '.join(command)}", lambda: self._run(command, wanted))

    def _import(self) -> Step:
        modules = self._dice.choice(_MODULES)
        # -B: it writes no byte code into the image
        command = ["/usr/bin/python3", "-I", "-B", "-c", f"import {modules}; print(6 * 7)"]
        return Step("import", f"import {modules}", lambda: self._run(command, "42\n"))

    def _run(self, command: Sequence[str], wanted: str) -> None:
        done = subprocess.run(command, stdin=self.input, capture_output=True, env=_ENVIRONMENT, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(f"{command[0]} ended with status {done.returncode} {said}")
        if done.stdout.decode(errors="replace") != wanted:
            raise Wrong(f"{command[0]} printed {done.stdout[:80]!r}, not {wanted!r}")

    # changes

    def _create(self) -> Step:
        path = _inside(self._dice.choice([*self._directories, *self.changes.directories]), self._name())
        data = self._dice.randbytes(self._dice.choice((0, 10, 5000, 70000)))
        return Step("create", f"create {path}", lambda: self._do_create(path, data))

    def _do_create(self, path: str, data: bytes) -> None:
        with self._changing(path):
            _write(path, data, os.O_CREAT | os.O_EXCL)
            self.changes.files[path] = hashlib.sha256(data).hexdigest()

    def _append(self) -> Step:
        path = self._any_own()
        data = self._dice.randbytes(100)
        return Step("append", f"append to {path}", lambda: self._do_append(path, data)) if path else self._create()

    def _do_append(self, path: str, data: bytes) -> None:
        self._touch(path)
        with self._changing(path):
            content = images.hashed(path)
            if content.hexdigest() != self._digest(path):
                raise Wrong(f"{path} has the digest {content.hexdigest()[:12]}, not {self._digest(path)[:12]}")
            _write(path, data, os.O_APPEND)
            content.update(data)
            self.changes.files[path] = content.hexdigest()

    def _rename(self) -> Step:
        path = self._any_own()
        new = _inside(self._dice.choice(self._directories), self._name())
        return Step("rename", f"rename {path} to {new}", lambda: self._do_rename(path, new)) if path else self._create()

    def _do_rename(self, path: str, new: str) -> None:
        with self._changing(path, new):
            os.rename(path, new)
            digest = self._digest(path)
            self._lose(path)
            self.changes.files[new] = digest

    def _unlink(self) -> Step:
        path = self._any_own()
        return Step("unlink", f"unlink {path}", lambda: self._do_unlink(path)) if path else self._create()

    def _do_unlink(self, path: str) -> None:
        with self._changing(path):
            os.unlink(path)
            self._lose(path)

    def _mkdir(self) -> Step:
        path = _inside(self._dice.choice(self._directories), self._name())
        return Step("mkdir", f"mkdir {path}", lambda: self._do_mkdir(path))

    def _do_mkdir(self, path: str) -> None:
        with self._changing(path):
            os.mkdir(path)
            self.changes.directories.append(path)

    def _rmdir(self) -> Step:
        used = {path.rpartition("/")[0] for path in (*self.changes.files, *self.changes.unsure)}
        empty = [path for path in self.changes.directories if path not in used]
        if not empty:
            return self._mkdir()
        path = self._dice.choice(empty)
        return Step("rmdir", f"rmdir {path}", lambda: self._do_rmdir(path))

    def _do_rmdir(self, path: str) -> None:
        with self._changing(path):
            os.rmdir(path)
            self.changes.directories.remove(path)

    # its account

    def _changing(self, *paths: str) -> _Changing:
        return _Changing(self.changes, paths)

    def _mine(self) -> list[str]:
        """Its files, as they are now."""
        left = [path for path in self._own if path not in self.changes.gone]
        return [path for path in {**dict.fromkeys(left), **self.changes.files} if path not in self.changes.unsure]

    def _any_own(self) -> str | None:
        mine = self._mine()
        return self._dice.choice(mine) if mine else None

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def _digest(self, path: str) -> str:
        return self.changes.files.get(path) or self._image[path].what

    def _lose(self, path: str) -> None:
        self.changes.files.pop(path, None)
        if path in self._image:
            self.changes.gone.append(path)

    def _touch(self, path: str) -> None:
        if path in self._image:
            self.read.add(path)


class _Changing:
    """Around a change: if it fails nobody knows what is there."""

    def __init__(self, changes: Changes, paths: Sequence[str]) -> None:
        self._changes = changes
        self._paths = paths

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._changes.unsure += self._paths


def _inside(directory: str, name: str) -> str:
    return name if directory == "." else f"{directory}/{name}"


def _write(path: str, data: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
