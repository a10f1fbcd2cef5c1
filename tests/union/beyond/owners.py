# SPDX-License-Identifier: GPL-2.0-only
"""Owners, and the mode bits that have to do with them: suid, sgid, setgid and sticky directories.

A union that was migrated by chown -R has other owners than its lower layer: scenarios give their objects
away themselves before they state whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, ENOENT, EPERM
from itertools import product

from datasets.tree import Directory, File, Special, Symlink
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import (
    KEEP,
    RW,
    RWA,
    TRUNC,
    Looks,
    Make,
    OpenFile,
    Operation,
    RemoveDirectory,
    Rename,
    Unlink,
    W,
    chmod,
    chown,
    lchown,
    lists,
    make_dir,
    make_file,
    mknod,
    open_file,
    readlink,
    rename,
    set_times,
    setxattr,
    shows,
    symlink,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]
FIFO = 0o010000


def tree() -> Directory:
    return Directory(
        {
            "file": File(b"lower"),
            "public": File(b"lower", 0o666),
            "program": File(b"lower", 0o6777),
            "locked": File(b"lower", 0o2666),  # sgid without group execution
            "fifo": Special(FIFO, 0o666),
            "dir": Directory({"in": File(b"in"), "sub": Directory({"deep": File(b"deep", 0o666)})}),
            "link": Symlink("file"),
            "dirlink": Symlink("dir"),
            "dangling": Symlink("nowhere"),
            "group": Directory({"old": File(b"old"), "olddir": Directory()}, 0o2777),
            "tmp": Directory(
                {"theirs": File(b"theirs", 0o666), "theirdir": Directory({}, 0o777), "theirlink": Symlink("x")}, 0o1777
            ),
        }
    )


# chown --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owned:
    """What is given away: its name, its look around the owner, and what makes it."""

    words: str
    path: str
    before: str
    after: str
    make: Callable[[Name], Operations] = lambda _path: ()


OWNED = (
    Owned("lower file", "file", "f 0644", " x1 5"),
    Owned("new file", "newfile", "f 0644", " x1 0", lambda path: (make_file(path),)),
    Owned("lower directory", "dir", "d 0755", ""),
    Owned("new directory", "newdir", "d 0755", "", lambda path: (make_dir(path),)),
    Owned("lower fifo", "fifo", "p 0666", " x1"),
    Owned("file deep below", "dir/sub/deep", "f 0666", " x1 4"),
)


def given_away(owned: Owned) -> Scenario:
    def script(n: Names) -> Operations:
        path = own(n) / owned.path

        def looks(owner: str) -> Looks:
            return shows(path, f"{owned.before} {owner}{owned.after}")

        return (
            *owned.make(path),
            chown(path, 3, 4),
            looks("3:4"),
            chown(path, KEEP, 5),
            looks("3:5"),
            chown(path, 6, KEEP),
            looks("6:5"),
            chown(path, KEEP, KEEP),
            looks("6:5"),
            chown(path, 2**32 - 2, 2**31),
            looks(f"{2**32 - 2}:{2**31}"),
            chown(path, 1, 1),
            chown(path, 3, KEEP, EPERM, unprivileged=True),
            chown(path, KEEP, 4, EPERM, unprivileged=True),
            chown(path, 1, 1, unprivileged=True),
            looks("1:1"),
            chown(path, 0, 0),
            chown(path, KEEP, 1, EPERM, unprivileged=True),
            looks("0:0"),
        )

    return Scenario(owned.words, script)


def symlinks_given_away(n: Names) -> Operations:
    """lchown(2) means the symlink, chown(2) what it leads to."""
    here = own(n)
    return (
        lchown(here / "link", 3, 4),
        shows(here / "link", "l 0777 3:4 x1 4"),
        shows(here / "file", "f 0644 0:0 x1 5"),
        chown(here / "link", 5, 6),
        shows(here / "link", "l 0777 3:4 x1 4"),
        shows(here / "file", "f 0644 5:6 x1 5"),
        lchown(here / "dirlink", 7, 8),
        shows(here / "dir", "d 0755 0:0"),
        lchown(here / "dirlink" / "in", 7, 8),
        shows(here / "dir/in", "f 0644 7:8 x1 2"),
        lchown(here / "dangling", 9, KEEP),
        shows(here / "dangling", "l 0777 9:0 x1 7"),
        chown(here / "dangling", 9, 9, ENOENT),
        lchown(here / "dangling", 3, KEEP, EPERM, unprivileged=True),
        readlink(here / "dangling", reads="nowhere"),
    )


# suid, sgid ---------------------------------------------------------------------------------------


def writes(path: Name) -> Operation:
    return OpenFile(path=path, flags=RW, writes=b"W", unprivileged=True)


def appends(path: Name) -> Operation:
    return OpenFile(path=path, flags=RWA, writes=b"A", unprivileged=True)


def truncated_on_open(path: Name) -> Operation:
    return OpenFile(path=path, flags=W | TRUNC, unprivileged=True)


def cut(path: Name) -> Operation:
    return truncate(path, 2, unprivileged=True)


def grown(path: Name) -> Operation:
    return truncate(path, 9, unprivileged=True)


CHANGES: tuple[tuple[str, Callable[[Name], Operation], bytes], ...] = (
    ("writing", writes, b"Wower"),
    ("appending", appends, b"lowerA"),
    ("truncating while opening", truncated_on_open, b""),
    ("cutting", cut, b"lo"),
    ("growing", grown, b"lower\0\0\0\0"),
)


def bits_lost(words: str, change: Callable[[Name], Operation], content: bytes) -> Scenario:
    """uid 1 changes the content of a program: on lower at first, then of one that is copied up."""

    def script(n: Names) -> Operations:
        lower, raised, plain = own(n) / "program", own(n) / "public", own(n) / "locked"
        size = len(content)
        return (
            change(lower),
            shows(lower, f"f 0777 0:0 x1 {size}"),
            holds(lower, content),
            chmod(raised, 0o6777),
            shows(raised, "f 6777 0:0 x1 5"),
            change(raised),
            shows(raised, f"f 0777 0:0 x1 {size}"),
            holds(raised, content),
            chown(plain, 0, 7),
            chmod(plain, 0o2666),  # sgid without group execution is no privilege, but uid 1 is not in the group
            chown(plain, KEEP, 7),
            shows(plain, "f 2666 0:7 x1 5"),
            change(plain),
            shows(plain, f"f 0666 0:7 x1 {size}"),
        )

    return Scenario(f"{words} by uid 1", script)


def bits_kept(n: Names) -> Operations:
    """Root changes the content and the times: all bits stay; giving it away takes them."""
    path = own(n) / "public"
    return (
        chmod(path, 0o6777),
        open_file(path, W, writes=b"root"),
        truncate(path, 3),
        open_file(path, RWA, writes=b"more"),
        set_times(path, 10**18, 10**18),
        setxattr(path, "trusted.test", b"1"),
        shows(path, "f 6777 0:0 x1 7"),
        rename(path, own(n) / "moved"),
        shows(own(n) / "moved", "f 6777 0:0 x1 7"),
        chown(own(n) / "moved", KEEP, KEEP),
        shows(own(n) / "moved", "f 0777 0:0 x1 7"),
    )


def bits_of_the_lower(n: Names) -> Operations:
    """Copied up for its times: what the bits are depends on how it was copied up, that they stay does not."""
    path = own(n) / "program"
    return (
        Looks(path=path),
        set_times(path, None, 10**18),
        Looks(path=path),
        rename(path, own(n) / "dir/program"),
        Looks(path=own(n) / "dir/program"),
        chown(own(n) / "dir/program", 0, 0),
        shows(own(n) / "dir/program", "f 0777 0:0 x1 5"),
    )


def bits_of_directories(n: Names) -> Operations:
    """Giving a directory away takes no bits."""
    path = own(n) / "dir"
    return (
        chmod(path, 0o7755),
        shows(path, "d 7755 0:0"),
        chown(path, 3, 4),
        shows(path, "d 7755 3:4"),
        make_file(path / "new"),
        shows(path / "new", "f 0644 0:4 x1 0"),
        chmod(path, 0o755),
        shows(path, "d 0755 3:4"),
    )


def bits_refused(n: Names) -> Operations:
    """Who is not in a file's group cannot give it the setgid bit, nor change a file of others."""
    path = own(n) / "public"
    return (
        chmod(path, 0o777, EPERM, unprivileged=True),
        chown(path, 1, 7),
        chmod(path, 0o6755, unprivileged=True),
        shows(path, "f 4755 1:7 x1 5"),
        chown(path, 1, 1),
        chmod(path, 0o6755, unprivileged=True),
        shows(path, "f 6755 1:1 x1 5"),
    )


# setgid directories -------------------------------------------------------------------------------

PLACES: tuple[tuple[str, Callable[[Name], Operations]], ...] = (
    ("lower", lambda _path: ()),
    ("new", lambda path: (make_dir(path), chmod(path, 0o2777))),
    ("renamed", lambda path: (make_dir(path + "-before"), chmod(path + "-before", 0o2777),
                              rename(path + "-before", path))),
)  # fmt: skip


def group_inherited(words: str, before: Callable[[Name], Operations], unprivileged: bool) -> Scenario:
    """What is made in a setgid directory has its group; directories are setgid too."""
    who = "1" if unprivileged else "0"

    def made(path: Name, type: int, mode: int) -> Make:
        return Make(path=path, type=type, mode=mode, umask=0, target="x", unprivileged=unprivileged)

    def script(n: Names) -> Operations:
        here = own(n) / ("group" if words == "lower" else "newgroup")
        sgid = "0755" if unprivileged else "2755"  # a program that runs as a group one is not in
        return (
            *before(here),
            chown(here, 0, 7),
            made(here / "file", 0o100000, 0o664),
            shows(here / "file", f"f 0664 {who}:7 x1 0"),
            made(here / "program", 0o100000, 0o2755),
            shows(here / "program", f"f {sgid} {who}:7 x1 0"),
            made(here / "fifo", FIFO, 0o660),
            shows(here / "fifo", f"p 0660 {who}:7 x1"),
            made(here / "link", 0o120000, 0o777),
            shows(here / "link", f"l 0777 {who}:7 x1 1"),
            made(here / "dir", 0o040000, 0o777),
            shows(here / "dir", f"d 2777 {who}:7"),
            made(here / "dir/below", 0o040000, 0o755),
            shows(here / "dir/below", f"d 2755 {who}:7"),
            made(here / "dir/below/file", 0o100000, 0o644),
            shows(here / "dir/below/file", f"f 0644 {who}:7 x1 0"),
        )

    return Scenario(f"{words} directory, by uid {who}", script)


def group_of_what_replaces(n: Names) -> Operations:
    """In the place of removed lower names, and what is moved in keeps its own."""
    here = own(n) / "group"
    return (
        chown(here, 0, 7),
        unlink(here / "old"),
        RemoveDirectory(path=here / "olddir"),
        make_file(here / "old", 0o600),
        make_dir(here / "olddir", 0o700),
        shows(here / "old", "f 0600 0:7 x1 0"),
        shows(here / "olddir", "d 2700 0:7"),
        rename(own(n) / "file", here / "file"),
        shows(here / "file", "f 0644 0:0 x1 5"),
        lists(here, "old", "olddir/", "file"),
    )


# sticky directories -------------------------------------------------------------------------------


def sticky(words: str, here: str, unsticky: bool) -> Scenario:
    """In a sticky directory uid 1 removes and renames its own names, not those of others."""
    others = 0 if unsticky else EPERM

    def script(n: Names) -> Operations:
        tmp = own(n) / here
        made = (
            make_dir(tmp),
            make_file(tmp / "theirs", 0o666),
            make_dir(tmp / "theirdir", 0o777),
            symlink("x", tmp / "theirlink"),
        )
        return (
            *(made if here == "newtmp" else ()),
            chmod(tmp, 0o777 if unsticky else 0o1777),
            make_file(tmp / "mine", unprivileged=True),
            Make(path=tmp / "mydir", type=0o040000, mode=0o755, unprivileged=True),
            Rename(path=tmp / "theirs", to=tmp / "other", fails=others, unprivileged=True),
            Rename(path=tmp / "mine", to=tmp / ("other" if unsticky else "theirs"), fails=others, unprivileged=True),
            Rename(path=tmp / "theirlink", to=tmp / "moved", fails=0 if unsticky else EPERM, unprivileged=True),
            Unlink(path=tmp / ("moved" if unsticky else "theirlink"), fails=others, unprivileged=True),
            RemoveDirectory(path=tmp / "theirdir", fails=others, unprivileged=True),
            Unlink(path=tmp / ("other" if unsticky else "mine"), unprivileged=True),
            Rename(path=tmp / "mydir", to=tmp / "mydir2", unprivileged=True),
            RemoveDirectory(path=tmp / "mydir2", unprivileged=True),
            lists(tmp, *(() if unsticky else ("theirs", "theirdir/", "theirlink@"))),
        )

    return Scenario(words, script)


def sticky_owner(n: Names) -> Operations:
    """The owner of a sticky directory may remove all names in it."""
    tmp = own(n) / "tmp"
    return (
        chown(tmp, 1, 1),
        Unlink(path=tmp / "theirs", unprivileged=True),
        Rename(path=tmp / "theirlink", to=tmp / "moved", unprivileged=True),
        RemoveDirectory(path=tmp / "theirdir", unprivileged=True),
        lists(tmp, "moved@"),
        absent(tmp / "theirs"),
    )


def closed_directory(n: Names) -> Operations:
    """Where uid 1 may not write it makes, removes and renames nothing; where it may not search it finds nothing."""
    here = own(n) / "dir"
    return (
        Make(path=here / "new", type=0o100000, fails=EACCES, unprivileged=True),
        mknod(here / "fifo", FIFO, 0o644, 0, EACCES, unprivileged=True),
        Unlink(path=here / "in", fails=EACCES, unprivileged=True),
        Rename(path=here / "in", to=own(n) / "in", fails=EACCES, unprivileged=True),
        lists(here, "in", "sub/", unprivileged=True),
        chmod(here, 0o711),
        holds(here / "in", b"in", unprivileged=True),
        chmod(here, 0o700),
        open_file(here / "in", RW, fails=EACCES, unprivileged=True),
        chmod(here, 0o755),
        lists(here, "in", "sub/", unprivileged=True),
    )


def group(name: str, sentence: str, *scenarios: Scenario) -> Group:
    return Group(name, sentence, scenarios, lowers=(sets(len(scenarios), tree),))


GROUPS = (
    group(
        "chown",
        "Give objects of every kind away, as root and as uid 1.",
        *(given_away(owned) for owned in OWNED),
        Scenario("symlinks and what they lead to", symlinks_given_away),
    ),
    group(
        "suid",
        "Lose suid and sgid bits to a change, and keep them where nothing takes them.",
        *(bits_lost(*change) for change in CHANGES),
        Scenario("changes by root", bits_kept),
        Scenario("lower program copied up", bits_of_the_lower),
        Scenario("directories", bits_of_directories),
        Scenario("changes that are refused", bits_refused),
    ),
    group(
        "setgid-dir",
        "Make objects in setgid directories.",
        *(group_inherited(*place, unprivileged) for place, unprivileged in product(PLACES, (False, True))),
        Scenario("in the place of what was removed", group_of_what_replaces),
    ),
    group(
        "sticky-dir",
        "Remove and rename what belongs to others.",
        sticky("lower sticky directory", "tmp", False),
        sticky("lower directory that is sticky no more", "tmp", True),
        sticky("new sticky directory", "newtmp", False),
        sticky("new directory that is not sticky", "newtmp", True),
        Scenario("by the directory's owner", sticky_owner),
        Scenario("directory closed for others", closed_directory),
    ),
)
