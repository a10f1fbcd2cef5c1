# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out while names come, go and move: each is as before or as after, and the next attempt works."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

from datasets.acl import DEFAULT
from datasets.layers import PRIVATE
from datasets.tree import Directory, File, Node, Whiteout
from tests.mounts.out_of_memory import (
    DEFAULT_ACL,
    MOVE,
    both,
    chown,
    cold,
    disturbed,
    link,
    mkdir,
    opened,
    rename,
    unlink,
)
from union.faults import Call
from union.namecalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from union.scenario import Group, When

NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
INDEX: Final = "index=on"
EXPORT: Final = "index=on,nfs_export=on"
REDIRECT: Final = "redirect_dir=on"
METACOPY: Final = "metacopy=on,redirect_dir=on"

HIDDEN: Final[Mapping[str, Node]] = {
    "file": Whiteout(),
    "empty": Whiteout(),
    "dir": Directory({"file": Whiteout()}, 0o2775, 3, 4, {DEFAULT: DEFAULT_ACL}),
}
PURE: Final[Mapping[str, Node]] = {
    "dir": Directory({"in": File(b"of upper")}, 0o750),
    "new": Directory({"sub": Directory({"x": File(b"x")}), "file": File(b"upper"), "none": Directory()}),
    "stale": Directory({"gone": Whiteout()}, xattrs={f"{PRIVATE}origin": b""}),
    "empty": Whiteout(),
}


def mknod(name: str) -> Call:
    """A fifo."""
    return lambda top: os.mknod(f"{top}/{name}", stat.S_IFIFO | 0o644)


def symlink(name: str) -> Call:
    """A symlink to nowhere."""
    return lambda top: os.symlink("target" * 20, f"{top}/{name}")


def rmdir(name: str) -> Call:
    """rmdir(2)."""
    return lambda top: os.rmdir(f"{top}/{name}")


COMING = (
    disturbed("create", opened("new", NEW)),
    disturbed("create where the default ACL is inherited", opened("dir/new", NEW)),
    disturbed("mkdir", mkdir("dir/new")),
    disturbed("mkdir in a directory of upper", mkdir("new/n"), upper=PURE),
    disturbed("mknod", mknod("new")),
    disturbed("symlink", symlink("new")),
    disturbed("link", link("file", "dir/new")),
    disturbed("link of a symlink", link("link", "empty/new")),
    disturbed("link within the index", link("one", "dir/new"), options=INDEX),
    disturbed("link of an indexed copy", link("one", "dir/new"), options=INDEX, before=chown("two")),
    disturbed("link of a metadata copy", link("file", "empty/new"), options=METACOPY, errors=MOVE),
    disturbed("create over a whiteout", opened("file", NEW), upper=HIDDEN),
    disturbed("create over a whiteout, with ACL", opened("dir/file", NEW), upper=HIDDEN),
    disturbed("mkdir over a whiteout", mkdir("empty"), upper=HIDDEN),
    disturbed("mkdir over a whiteout, with ACL", mkdir("dir/file"), upper=HIDDEN),
    disturbed("mknod over a whiteout", mknod("file"), upper=HIDDEN),
    disturbed("symlink over a whiteout", symlink("dir/file"), upper=HIDDEN),
    disturbed("link over a whiteout", link("plain", "dir/file"), upper=HIDDEN),
)

GOING = (
    disturbed("unlink a lower file", unlink("dir/file")),
    disturbed("unlink a copied file", unlink("file"), before=chown("file")),
    disturbed("unlink a file of upper", unlink("new/file"), upper=PURE),
    disturbed("unlink a lower hard link", unlink("one"), options=INDEX),
    disturbed("unlink the last indexed link", unlink("two"), options=INDEX, before=both(chown("one"), unlink("one"))),
    disturbed("unlink the last link for export", unlink("two"), options=EXPORT, before=unlink("one")),
    disturbed("unlink a file for export", unlink("file"), options=EXPORT),
    disturbed("rmdir a lower directory", rmdir("empty")),
    disturbed("rmdir a lower directory for export", rmdir("empty"), options=EXPORT),
    disturbed("rmdir a directory of upper", rmdir("new/none"), upper=PURE),
    disturbed("rmdir a merge directory of whiteouts", rmdir("dir"), before=unlink("dir/file")),
    disturbed("rmdir it cold", rmdir("dir"), before=cold(unlink("dir/file"))),
    disturbed("rmdir it with its default ACL", rmdir("dir"), upper=HIDDEN),
    disturbed("rmdir a directory of upper with whiteouts", rmdir("stale"), upper=PURE),
    disturbed("rmdir a merge directory for export", rmdir("dir"), options=EXPORT, before=unlink("dir/file")),
)

MOVING = (
    disturbed("a lower file", rename("file", "new"), errors=MOVE),
    disturbed("a lower file to another directory", rename("file", "dir/new"), errors=MOVE),
    disturbed("a lower file over a file", rename("file", "dir/file"), errors=MOVE),
    disturbed("a file onto a whiteout", rename("plain", "file"), upper=HIDDEN, errors=MOVE),
    disturbed("a metadata copy", rename("file", "dir/new"), options=METACOPY, errors=MOVE),
    disturbed("a file over an indexed link", rename("file", "one"), options=INDEX, errors=MOVE),
    disturbed("without replacing", rename("file", "new", RENAME_NOREPLACE), errors=MOVE),
    disturbed("a lower directory", rename("dir", "new"), options=REDIRECT, errors=MOVE),
    disturbed("a lower directory to another", rename("dir", "empty/new"), options=REDIRECT, errors=MOVE),
    disturbed(
        "a directory moved before",
        rename("new", "empty/other"),
        options=REDIRECT,
        before=rename("dir", "new"),
        errors=MOVE,
    ),
    disturbed("a directory over an empty one", rename("dir", "empty"), options=REDIRECT, errors=MOVE),
    disturbed(
        "a directory over a merge directory of whiteouts",
        rename("empty", "dir"),
        options=REDIRECT,
        before=unlink("dir/file"),
        errors=MOVE,
    ),
    disturbed("a directory of upper", rename("new/sub", "dir/sub"), upper=PURE, errors=MOVE),
    disturbed("a directory of upper onto a whiteout", rename("new/sub", "empty"), upper=PURE, errors=MOVE),
    disturbed("a directory of upper over one with whiteouts", rename("new", "stale"), upper=PURE, errors=MOVE),
    disturbed("two files exchanged", rename("file", "dir/file", RENAME_EXCHANGE), errors=MOVE),
    disturbed("two directories exchanged", rename("dir", "empty", RENAME_EXCHANGE), options=REDIRECT, errors=MOVE),
    disturbed(
        "two directories exchanged across two",
        rename("dir/sub", "empty", RENAME_EXCHANGE),
        Directory({"dir": Directory({"sub": Directory({"x": File(b"x")})}), "empty": Directory()}),
        options=REDIRECT,
        errors=MOVE,
    ),
    disturbed(
        "a file and a directory of upper exchanged",
        rename("dir/file", "new/sub", RENAME_EXCHANGE),
        upper=PURE,
        options=REDIRECT,
        errors=MOVE,
    ),
)

GROUPS = (
    Group(
        "memory-new-names",
        "Make names with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=COMING,
    ),
    Group(
        "memory-removal",
        "Remove names with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=GOING,
    ),
    Group(
        "memory-rename",
        "Rename with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=MOVING,
    ),
)
