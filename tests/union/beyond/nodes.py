# SPDX-License-Identifier: GPL-2.0-only
"""New objects of every kind, with every mode, in every kind of place."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EEXIST, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM
from itertools import product

from datasets.tree import Directory, File, Symlink
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, absent_dir
from union.names import Name, Names
from union.operations import (
    Make,
    Operation,
    chmod,
    chown,
    lists,
    make_dir,
    make_file,
    mknod,
    readlink,
    rename,
    rmdir,
    rmtree,
    shows,
    symlink,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]

NULL = os.makedev(1, 3)
LARGE_NUMBER = os.makedev(259, 262143)  # more than 16 bits; XFS has 32


@dataclass(frozen=True, slots=True)
class Kind:
    """What is made: how, what it looks like, and its mark in a listing."""

    words: str
    make: Callable[[Name, int], Make]
    looks: str
    mark: str = ""
    remove: Callable[[Name], Operation] = unlink


def _node(type: int, rdev: int = 0) -> Callable[[Name, int], Make]:
    return lambda path, fails: mknod(path, type, 0o640, rdev, fails)


KINDS = (
    Kind("file", lambda path, fails: make_file(path, 0o640, fails), "f 0640 0:0 x1 0"),
    Kind("directory", lambda path, fails: make_dir(path, 0o750, fails), "d 0750 0:0", "/", rmdir),
    Kind("symlink", lambda path, fails: symlink("../nowhere", path, fails), "l 0777 0:0 x1 10", "@"),
    Kind("fifo", _node(stat.S_IFIFO), "p 0640 0:0 x1", "|"),
    Kind("socket", _node(stat.S_IFSOCK), "s 0640 0:0 x1", "="),
    Kind("character device", _node(stat.S_IFCHR, NULL), "c 0640 0:0 x1 1:3", "%"),
    Kind("block device", _node(stat.S_IFBLK, LARGE_NUMBER), "b 0640 0:0 x1 259:262143", "#"),
)


@dataclass(frozen=True, slots=True)
class Where:
    """A place for a new object: its path below the set, and what makes the place."""

    words: str
    path: str
    before: Callable[[Name], Operations] = lambda _path: ()


PLACES = (
    Where("in a lower directory", "dir/fresh"),
    Where("in a new directory", "newdir/fresh", lambda path: (make_dir(Name(os.path.dirname(path))),)),
    Where("in the place of a removed file", "dir/file", lambda path: (unlink(path),)),
    Where("in the place of a removed directory", "dir/sub", lambda path: (rmtree(path),)),
)


def tree() -> Directory:
    return Directory(
        {
            "dir": Directory({"file": File(b"lower"), "sub": Directory({"deep": File(b"deep")})}),
            "link": Symlink("dir"),
            "dangling": Symlink("dir/nowhere"),
        }
    )


def made(kind: Kind, where: Where) -> Scenario:
    def script(n: Names) -> Operations:
        path = own(n) / where.path
        others = {"dir/fresh": ("file", "sub/"), "newdir/fresh": (), "dir/file": ("sub/",), "dir/sub": ("file",)}
        parent, name = Name(os.path.dirname(path)), os.path.basename(path)
        moved = parent / "moved"
        return (
            *where.before(path),
            kind.make(path, 0),
            shows(path, kind.looks),
            lists(parent, name + kind.mark, *others[where.path]),
            *(kind.make(path, EEXIST) for kind in KINDS),
            rename(path, moved),
            shows(moved, kind.looks),
            lists(parent, "moved" + kind.mark, *others[where.path]),
            kind.remove(moved),
            lists(parent, *others[where.path]),
            kind.make(path, 0),
            shows(path, kind.looks),
        )

    return Scenario(f"{kind.words} {where.words}", script)


MODES = (0, 0o644, 0o666, 0o777, 0o1777, 0o2755, 0o4755, 0o6777)


def modes(words: str, make: Callable[[Name, int, int], Make], letter: str, rest: str, umask: int) -> Scenario:
    """Every mode under one umask; of a directory mkdir(2) takes neither suid nor sgid."""

    def looks(mode: int) -> str:
        kept = mode & ~umask & (0o1777 if letter == "d" else 0o7777)
        return f"{letter} {kept:04o} 0:0{rest}"

    def script(n: Names) -> Operations:
        names = [(own(n) / f"dir/m{mode:04o}", mode) for mode in MODES]
        return (
            *(operation for path, mode in names for operation in (make(path, mode, umask), shows(path, looks(mode)))),
            *(chmod(path, 0o7777 & ~mode) for path, mode in names),
            *(shows(path, f"{letter} {0o7777 & ~mode:04o} 0:0{rest}") for path, mode in names),
        )

    return Scenario(f"{words} under umask {umask:03o}", script)


MAKERS: tuple[tuple[str, Callable[[Name, int, int], Make], str, str], ...] = (
    ("files", lambda path, mode, umask: make_file(path, mode, umask=umask), "f", " x1 0"),
    ("directories", lambda path, mode, umask: make_dir(path, mode, umask=umask), "d", ""),
    ("fifos", lambda path, mode, umask: mknod(path, stat.S_IFIFO, mode, umask=umask), "p", " x1"),
)


def refused(n: Names) -> Operations:
    """What cannot be made, nor is there afterwards."""
    here = own(n) / "dir"
    return (
        symlink("", here / "new", ENOENT),
        symlink("x" * 4096, here / "new", ENAMETOOLONG),
        make_file(here / "file/new", 0o644, ENOTDIR),
        make_dir(here / "nowhere/new", 0o755, ENOENT),
        mknod(here / ("n" * 260), stat.S_IFIFO, 0o644, 0, ENAMETOOLONG),
        make_file(own(n) / "dangling", 0o644, EEXIST),
        symlink("x", own(n) / "link", EEXIST),
        absent(here / "new"),
        lists(here, "file", "sub/"),
    )


def made_by_others(n: Names) -> Operations:
    """uid 1 makes what it may where it may: devices are for root."""
    here = own(n) / "dir"
    return (
        chmod(here, 0o777),
        mknod(here / "char", stat.S_IFCHR, 0o644, NULL, EPERM, unprivileged=True),
        mknod(here / "block", stat.S_IFBLK, 0o644, NULL, EPERM, unprivileged=True),
        mknod(here / "fifo", stat.S_IFIFO, 0o666, unprivileged=True),
        make_file(here / "new", 0o666, umask=0o027, unprivileged=True),
        make_dir(here / "newdir", 0o777, umask=0o077, unprivileged=True),
        symlink("file", here / "newlink", unprivileged=True),
        shows(here / "fifo", "p 0644 1:1 x1"),
        shows(here / "new", "f 0640 1:1 x1 0"),
        shows(here / "newdir", "d 0700 1:1"),
        shows(here / "newlink", "l 0777 1:1 x1 4"),
        lists(here, "file", "sub/", "fifo|", "new", "newdir/", "newlink@"),
    )


def through_symlinks(n: Names) -> Operations:
    """The last name is never followed, the ones before it always."""
    return (
        make_file(own(n) / "link/new", 0o600),
        shows(own(n) / "dir/new", "f 0600 0:0 x1 0"),
        symlink("new", own(n) / "link/again"),
        shows(own(n) / "dir/again", "f 0600 0:0 x1 0", follow=True),
        readlink(own(n) / "dir/again", reads="new"),
        make_dir(own(n) / "dangling/x", 0o755, ENOENT),
        absent_dir(own(n) / "dir/nowhere"),
    )


def looks_like_a_whiteout(n: Names) -> Operations:
    """A character device 0:0 would be one; it must not be there, nor hide what is."""
    here = own(n) / "dir"
    return (
        mknod(here / "new", stat.S_IFCHR, 0o644, 0, EPERM),
        mknod(here / "file", stat.S_IFCHR, 0o644, 0, EEXIST),
        absent(here / "new"),
        mknod(here / "new", stat.S_IFBLK, 0o644, 0),
        shows(here / "new", "b 0644 0:0 x1 0:0"),
        lists(here, "file", "sub/", "new#"),
        chown(here / "new", 3, 4),
        shows(here / "new", "b 0644 3:4 x1 0:0"),
    )


def group(name: str, sentence: str, *scenarios: Scenario, overlay_alone: bool = False) -> Group:
    return Group(name, sentence, scenarios, lowers=(sets(len(scenarios), tree),), overlay_alone=overlay_alone)


GROUPS = (
    group(
        "make",
        "Make an object of every kind in every kind of place, move, remove and make it again.",
        *(made(kind, where) for kind, where in product(KINDS, PLACES)),
    ),
    group(
        "make-modes",
        "Make objects with every mode, and change it.",
        *(modes(*maker, umask) for maker, umask in product(MAKERS, (0, 0o022, 0o077))),
    ),
    group(
        "make-refused",
        "Try to make what cannot be made, and let others make what they may.",
        Scenario("names and targets that cannot be", refused),
        Scenario("by uid 1", made_by_others),
        Scenario("through symlinks", through_symlinks),
    ),
    group(
        "make-whiteout",
        "Make what an overlay would take for a whiteout.",
        Scenario("character device 0:0", looks_like_a_whiteout),
        overlay_alone=True,
    ),
)
