# SPDX-License-Identifier: GPL-2.0-only
"""Hard links of the lower layer, whose names part on copy-up without an index and stay together with one.

How many links a name shows that is not copied up yet depends on the layer; it is compared, but not stated.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets.tree import Directory, File, HardLink, Special, Symlink
from tests.union.beyond.needs import LINKED_SYMLINKS
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.names import Names
from union.operations import (
    RWA,
    Looks,
    Operation,
    W,
    chmod,
    chown,
    exchange,
    getxattr,
    lchown,
    link,
    lists,
    listxattr,
    make_dir,
    open_file,
    readlink,
    rename,
    set_times,
    setxattr,
    shows,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]


def tree() -> Directory:
    return Directory(
        {
            "a": File(b"lower", xattrs={"user.test": b"1"}),
            "b": HardLink("a"),
            "dir": Directory({"c": HardLink("../a"), "other": File(b"other")}),
            "fifo": Special(0o010000),
            "fifo2": HardLink("fifo"),
        }
    )


def symlinks() -> Directory:
    return Directory({"a": File(b"lower"), "link": Symlink("a"), "link2": HardLink("link"), "link3": HardLink("link")})


def parted_by_writing(n: Names) -> Operations:
    """Only the name that is written through changes; the others stay what they were."""
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        *(Looks(path=name) for name in (a, b, c)),
        open_file(b, W, writes=b"L"),
        holds(b, b"Lower"),
        shows(b, "f 0644 0:0 x1 5"),
        holds(a, b"lower"),
        holds(c, b"lower"),
        open_file(c, RWA, writes=b"+"),
        holds(c, b"lower+"),
        holds(a, b"lower"),
        truncate(a, 1),
        holds(a, b"l"),
        holds(b, b"Lower"),
        getxattr(b, "user.test", b"1"),
        lists(own(n), "a", "b", "dir/", "fifo|", "fifo2|"),
    )


def parted_by_attributes(n: Names) -> Operations:
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        chmod(a, 0o600),
        set_times(b, None, 10**18),
        setxattr(c, "user.more", b"2"),
        shows(a, "f 0600 0:0 x1 5"),
        shows(b, "f 0644 0:0 x1 5"),
        listxattr(a, "user.test"),
        listxattr(c, "user.more", "user.test"),
        chown(own(n) / "fifo2", 3, 4),
        shows(own(n) / "fifo2", "p 0644 3:4 x1"),
        Looks(path=own(n) / "fifo"),
    )


def removed_one_by_one(n: Names) -> Operations:
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        unlink(a),
        absent(a),
        holds(b, b"lower"),
        Looks(path=b),
        unlink(c),
        holds(b, b"lower"),
        lists(own(n) / "dir", "other"),
        chmod(b, 0o600),
        shows(b, "f 0600 0:0 x1 5"),
        unlink(b),
        unlink(own(n) / "fifo"),
        lists(own(n), "dir/", "fifo2|"),
    )


def linked_once_more(n: Names) -> Operations:
    """A new link joins the name it is made of, and none of the others."""
    a, b, new, second = own(n) / "a", own(n) / "b", own(n) / "new", own(n) / "dir/second"
    return (
        link(a, new),
        shows(new, "f 0644 0:0 x2 5"),
        link(new, second),
        open_file(second, W, writes=b"L"),
        holds(a, b"Lower"),
        holds(b, b"lower"),
        shows(a, "f 0644 0:0 x3 5"),
        unlink(a),
        shows(second, "f 0644 0:0 x2 5"),
        holds(new, b"Lower"),
        holds(b, b"lower"),
    )


def renamed_onto_each_other(n: Names) -> Operations:
    """Names that have parted are no names of one object: the one replaces the other."""
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        rename(a, b),
        absent(a),
        holds(b, b"lower"),
        shows(b, "f 0644 0:0 x1 5"),
        open_file(b, W, writes=b"L"),
        exchange(b, c),
        holds(c, b"Lower"),
        holds(b, b"lower"),
        make_dir(own(n) / "newdir"),
        rename(c, own(n) / "newdir/c"),
        rename(own(n) / "fifo", own(n) / "newdir/fifo"),
        lists(own(n) / "newdir", "c", "fifo|"),
        lists(own(n) / "dir", "other"),
        holds(own(n) / "newdir/c", b"Lower"),
    )


def symlinks_parted(n: Names) -> Operations:
    link1, link2, link3 = (own(n) / name for name in ("link", "link2", "link3"))
    return (
        lchown(link1, 3, 4),
        shows(link1, "l 0777 3:4 x1 1"),
        readlink(link2, reads="a"),
        link(link2, own(n) / "new"),
        shows(own(n) / "new", "l 0777 0:0 x2 1"),
        unlink(link3),
        holds(link2, b"lower"),
        rename(link1, link2),
        shows(link2, "l 0777 3:4 x1 1"),
        shows(own(n) / "new", "l 0777 0:0 x1 1"),
        lists(own(n), "a", "link2@", "new@"),
    )


PARTING = (
    Scenario("written through each name", parted_by_writing),
    Scenario("attributes of each name changed", parted_by_attributes),
    Scenario("removed one by one", removed_one_by_one),
    Scenario("linked once more", linked_once_more),
    Scenario("renamed onto each other", renamed_onto_each_other),
)


# With an index ------------------------------------------------------------------------------------


def written_together(n: Names) -> Operations:
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        *(shows(name, "f 0644 0:0 x3 5") for name in (a, b, c)),
        open_file(b, W, writes=b"L"),
        *(holds(name, b"Lower") for name in (a, b, c)),
        open_file(c, RWA, writes=b"+"),
        *(holds(name, b"Lower+") for name in (a, b, c)),
        chmod(a, 0o600),
        *(shows(name, "f 0600 0:0 x3 6") for name in (a, b, c)),
        setxattr(c, "user.more", b"2"),
        *(listxattr(name, "user.test", "user.more") for name in (a, b, c)),
        chown(own(n) / "fifo2", 3, 4),
        shows(own(n) / "fifo", "p 0644 3:4 x2"),
    )


def removed_together(n: Names) -> Operations:
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        unlink(a),
        shows(b, "f 0644 0:0 x2 5"),
        link(c, own(n) / "new"),
        shows(b, "f 0644 0:0 x3 5"),
        unlink(b),
        open_file(c, W, writes=b"L"),
        holds(own(n) / "new", b"Lower"),
        unlink(c),
        shows(own(n) / "new", "f 0644 0:0 x1 5"),
        unlink(own(n) / "new"),
        lists(own(n), "dir/", "fifo|", "fifo2|"),
    )


def renamed_together(n: Names) -> Operations:
    """Names of one object: renaming one onto the other does nothing."""
    a, b, c = own(n) / "a", own(n) / "b", own(n) / "dir/c"
    return (
        rename(a, b),
        holds(a, b"lower"),
        rename(a, own(n) / "dir/other", cycle=False),  # the index of another upper layer is not known
        shows(own(n) / "dir/other", "f 0644 0:0 x3 5"),
        open_file(b, W, writes=b"L"),
        holds(c, b"Lower"),
        exchange(b, c, cycle=False),
        holds(b, b"Lower"),
        lists(own(n) / "dir", "c", "other"),
    )


TOGETHER = (
    Scenario("written through each name", written_together),
    Scenario("removed one by one", removed_together),
    Scenario("renamed onto each other", renamed_together),
)

GROUPS = (
    Group(
        "lower-links",
        "Change hard links of the lower layer, whose names part.",
        PARTING,
        lowers=(sets(len(PARTING), tree),),
        options=(("index", "off"),),
        overlay_alone=True,
    ),
    Group(
        "lower-links-symlink",
        "Change hard links of a symlink of the lower layer, whose names part.",
        (Scenario("changed, linked, removed, renamed", symlinks_parted),),
        lowers=(sets(1, symlinks),),
        options=(("index", "off"),),
        needs=(LINKED_SYMLINKS,),
        overlay_alone=True,
    ),
    Group(
        "lower-links-index",
        "Change hard links of the lower layer, whose names stay together by the index.",
        TOGETHER,
        lowers=(sets(len(TOGETHER), tree),),
        options=(("index", "on"),),
        detaches=False,  # what is known of the others by the index alone is not in upper
        overlay_alone=True,
    ),
)
