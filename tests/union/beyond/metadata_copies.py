# SPDX-License-Identifier: GPL-2.0-only
"""Copies of metadata alone (metacopy=on): made by the union, and found in a middle layer."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File, Whiteout
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.names import Names
from union.operations import (
    RW,
    RWA,
    TRUNC,
    Operation,
    W,
    chmod,
    chown,
    link,
    lists,
    listxattr,
    make_dir,
    open_file,
    rename,
    set_times,
    setxattr,
    shows,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]
TEXT = b"data of the lowest layer"
HOLLOW = bytes(len(TEXT))  # what a copy of metadata has instead: as many bytes, none of them written
SIZE = len(TEXT)


def top() -> Directory:
    """Metadata over a file, and over metadata below."""
    return Directory(
        {
            "twice": File(HOLLOW, 0o600, xattrs={METACOPY: b"", "user.test": b"top"}),
            "renamed": File(HOLLOW, 0o640, xattrs={METACOPY: b"", REDIRECT: b"original"}),
            "original": Whiteout(),
            "plain": File(b"of the top"),
        }
    )


def middle() -> Directory:
    return Directory(
        {
            "once": File(HOLLOW, 0o604, 3, 4, {METACOPY: b""}),
            "twice": File(HOLLOW, 0o700, xattrs={METACOPY: b"", "user.test": b"middle"}),
        }
    )


def bottom() -> Directory:
    data = File(TEXT)
    return Directory({"once": data, "twice": data, "original": data, "plain": data, "lower": data, "dir": Directory()})


def made(n: Names) -> Operations:
    """Metadata is copied up first and changes, data follows when it is written."""
    path = own(n) / "lower"
    return (
        chmod(path, 0o600),
        shows(path, f"f 0600 0:0 x1 {SIZE}"),
        holds(path, TEXT),
        chown(path, 3, 4),
        set_times(path, None, 10**18),
        setxattr(path, "user.test", b"1"),
        holds(path, TEXT),
        open_file(path, RWA, writes=b"+"),
        holds(path, TEXT + b"+"),
        shows(path, f"f 0600 3:4 x1 {SIZE + 1}"),
        listxattr(path, "user.test"),
    )


def found(n: Names) -> Operations:
    """Attributes of the topmost, data of the lowest."""
    here = own(n)
    return (
        shows(here / "once", f"f 0604 3:4 x1 {SIZE}"),
        shows(here / "twice", f"f 0600 0:0 x1 {SIZE}"),
        shows(here / "renamed", f"f 0640 0:0 x1 {SIZE}"),
        holds(here / "once", TEXT),
        holds(here / "twice", TEXT),
        holds(here / "renamed", TEXT),
        holds(here / "plain", b"of the top"),
        absent(here / "original"),
        listxattr(here / "twice", "user.test"),
        lists(here, "once", "twice", "renamed", "plain", "lower", "dir/"),
    )


def written(n: Names) -> Operations:
    here = own(n)
    return (
        open_file(here / "once", RW, writes=b"D"),
        holds(here / "once", b"D" + TEXT[1:]),
        open_file(here / "twice", RWA, writes=b"+"),
        holds(here / "twice", TEXT + b"+"),
        truncate(here / "renamed", 4),
        holds(here / "renamed", TEXT[:4]),
        open_file(here / "lower", W | TRUNC, writes=b"new"),
        holds(here / "lower", b"new"),
        shows(here / "once", f"f 0604 3:4 x1 {SIZE}"),
        listxattr(here / "once"),
        listxattr(here / "twice", "user.test"),
    )


def changed_then_written(n: Names) -> Operations:
    """The copy of a copy, then the data."""
    here = own(n)
    return (
        *(chmod(here / name, 0o611) for name in ("once", "twice", "renamed")),
        *(holds(here / name, TEXT) for name in ("once", "twice", "renamed")),
        *(open_file(here / name, RW, writes=b"D") for name in ("once", "twice", "renamed")),
        *(holds(here / name, b"D" + TEXT[1:]) for name in ("once", "twice", "renamed")),
        shows(here / "once", f"f 0611 3:4 x1 {SIZE}"),
        shows(here / "twice", f"f 0611 0:0 x1 {SIZE}"),
    )


def moved(n: Names) -> Operations:
    """Under another name, and another directory's, the data is still found."""
    here = own(n)
    return (
        rename(here / "once", here / "away"),
        rename(here / "twice", here / "dir/twice"),
        make_dir(here / "newdir"),
        rename(here / "renamed", here / "newdir/renamed"),
        rename(here / "lower", here / "newdir/lower"),
        link(here / "away", here / "dir/second"),
        holds(here / "away", TEXT),
        holds(here / "dir/second", TEXT),
        holds(here / "dir/twice", TEXT),
        holds(here / "newdir/renamed", TEXT),
        holds(here / "newdir/lower", TEXT),
        open_file(here / "dir/second", RWA, writes=b"+"),
        holds(here / "away", TEXT + b"+"),
        unlink(here / "away"),
        shows(here / "dir/second", f"f 0604 3:4 x1 {SIZE + 1}"),
        rename(here / "plain", here / "once"),
        holds(here / "once", b"of the top"),
        lists(here, "once", "dir/", "newdir/"),
    )


SCENARIOS = (
    Scenario("made of a lower file", made),
    Scenario("found in the layers", found),
    Scenario("written", written),
    Scenario("changed, then written", changed_then_written),
    Scenario("renamed and linked", moved),
)

GROUPS = (
    Group(
        "metacopy",
        "Use copies of metadata, made by the union and found in three lower layers.",
        SCENARIOS,
        lowers=tuple(sets(len(SCENARIOS), layer) for layer in (top, middle, bottom)),
        options=(("metacopy", "on"), ("redirect_dir", "on")),
        detaches=False,  # chown -R leaves the data where it is
        overlay_alone=True,
    ),
)
