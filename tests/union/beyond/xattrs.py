# SPDX-License-Identifier: GPL-2.0-only
"""Extended attributes of every namespace on every kind of object, the overlay's own names, capabilities."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import E2BIG, EACCES, EEXIST, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ERANGE
from itertools import product

from datasets.tree import Directory, File, Node, Special, Symlink
from tests.union.beyond.needs import XATTRS
from tests.union.beyond.sets import own, sets
from tests.union.phrases import holds
from union.names import Name, Names
from union.operations import (
    RW,
    ListXattrs,
    Looks,
    Operation,
    R,
    W,
    chmod,
    chown,
    getxattr,
    lists,
    listxattr,
    make_dir,
    make_file,
    open_file,
    removexattr,
    rename,
    set_times,
    setxattr,
    symlink,
    truncate,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]
CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE
BINARY = bytes(range(0, 256, 5))  # ext4 has little room
PRIVATE = "trusted.overlay."


def capability(permitted: int = 1 << 10) -> bytes:
    """The value of security.capability, revision 2 with the effective bit; cap_net_bind_service."""
    return struct.pack("<5I", 2 << 24 | 1, permitted, 0, 0, 0)


def several(text: bytes) -> dict[str, bytes]:
    return {f"{namespace}.lower": text for namespace in ("user", "trusted", "security")}


def tree() -> Directory:
    many = {f"user.many{number}": b"v" * (number * 9) for number in range(10)}
    return Directory(
        {
            "file": File(b"lower"),
            "public": File(b"lower", 0o666, xattrs={"user.lower": b"1"}),
            "secret": File(b"lower", 0o600, xattrs={"user.lower": b"1"}),
            "rich": File(b"rich", xattrs=several(BINARY)),
            "many": File(b"many", xattrs=many),
            "program": File(b"program", 0o755, xattrs={"security.capability": capability()}),
            "dir": Directory({"in": File(b"in"), "sub": Directory({"deep": File(b"deep")})}),
            "richdir": Directory({"in": File(b"in")}, xattrs=several(b"dir")),
            "tmp": Directory({"mine": File(b"")}, 0o1777),
            "link": Symlink("file"),
            "richlink": Symlink("dir", xattrs={"trusted.lower": b"link"}),
            "fifo": Special(0o010000, xattrs={"trusted.lower": b"fifo"}),
        }
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """What has xattrs: its name, what makes it, the names it has already, and whether it may have user ones."""

    words: str
    path: str
    has: tuple[str, ...] = ()
    make: Callable[[Name], Operations] = lambda _path: ()
    plain: bool = True


ALL = ("user.lower", "trusted.lower", "security.lower")
KINDS = (
    Kind("lower file", "file"),
    Kind("lower file that has some", "rich", ALL),
    Kind("new file", "newfile", (), lambda path: (make_file(path),)),
    Kind("lower directory", "dir"),
    Kind("lower directory that has some", "richdir", ALL),
    Kind("new directory", "newdir", (), lambda path: (make_dir(path),)),
    Kind("lower symlink", "richlink", ("trusted.lower",), plain=False),
    Kind("new symlink", "newlink", (), lambda path: (symlink("file", path),), plain=False),
    Kind("lower fifo", "fifo", ("trusted.lower",), plain=False),
)


def lifetime(kind: Kind, namespace: str) -> Scenario:
    """Set, replaced, removed; what stands in the way of each."""
    key = f"{namespace}.test"

    def script(n: Names) -> Operations:
        path, moved = own(n) / kind.path, own(n) / "moved"
        if namespace == "user" and not kind.plain:
            return (
                *kind.make(path),
                setxattr(path, key, b"1", EPERM, follow=False),
                getxattr(path, key, fails=ENODATA, follow=False),
                removexattr(path, key, EPERM, follow=False),
                listxattr(path, *kind.has, follow=False),
            )
        directory = "dir" in kind.path  # a directory can be renamed only where directory renames are on
        away = path if directory else moved
        return (
            *kind.make(path),
            listxattr(path, *kind.has, follow=False),
            getxattr(path, key, fails=ENODATA, follow=False),
            removexattr(path, key, ENODATA, follow=False),
            setxattr(path, key, b"1", ENODATA, how=REPLACE, follow=False),
            setxattr(path, key, BINARY, how=CREATE, follow=False),
            getxattr(path, key, BINARY, follow=False),
            setxattr(path, key, b"2", EEXIST, how=CREATE, follow=False),
            setxattr(path, key, b"", how=REPLACE, follow=False),
            getxattr(path, key, b"", follow=False),
            setxattr(path, key, b"33", follow=False),
            listxattr(path, key, *kind.has, follow=False),
            set_times(path, None, 10**18) if directory else rename(path, moved),
            getxattr(away, key, b"33", follow=False),
            removexattr(away, key, follow=False),
            removexattr(away, key, ENODATA, follow=False),
            listxattr(away, *kind.has, follow=False),
        )

    return Scenario(f"{namespace} on {kind.words}", script)


def lower_ones_changed(n: Names) -> Operations:
    """The first change of a lower object is one of an xattr that it has."""
    file, directory, link = own(n) / "rich", own(n) / "richdir", own(n) / "richlink"
    return (
        setxattr(file, "user.lower", b"x", EEXIST, how=CREATE),
        removexattr(file, "trusted.lower"),
        listxattr(file, "user.lower", "security.lower"),
        setxattr(directory, "security.lower", b"changed", how=REPLACE),
        removexattr(directory, "user.lower"),
        listxattr(directory, "trusted.lower", "security.lower"),
        removexattr(link, "trusted.lower", follow=False),
        listxattr(link, follow=False),
        setxattr(own(n) / "fifo", "trusted.lower", b"other"),
        getxattr(own(n) / "fifo", "trusted.lower", b"other"),
    )


def carried_over(n: Names) -> Operations:
    """Copied up for other reasons, an object keeps what it has."""
    here = own(n)
    return (
        open_file(here / "rich", RW, writes=b"R"),
        listxattr(here / "rich", *ALL),
        getxattr(here / "rich", "user.lower", BINARY),
        chmod(here / "many", 0o600),
        listxattr(here / "many", *(f"user.many{number}" for number in range(10))),
        getxattr(here / "many", "user.many9", b"v" * (9 * 9)),
        make_file(here / "richdir/new"),
        listxattr(here / "richdir", *ALL),
        listxattr(here / "richdir/new"),
        chown(here / "fifo", 0, 0),
        getxattr(here / "fifo", "trusted.lower", b"fifo"),
        set_times(here / "richlink", None, 10**18, follow=False),
        getxattr(here / "richlink", "trusted.lower", b"link", follow=False),
    )


def through_symlinks(n: Names) -> Operations:
    here = own(n)
    return (
        setxattr(here / "link", "user.test", b"1"),
        getxattr(here / "file", "user.test", b"1"),
        getxattr(here / "link", "user.test", fails=ENODATA, follow=False),
        setxattr(here / "richlink", "user.test", b"2"),
        listxattr(here / "dir", "user.test"),
        listxattr(here / "richlink", "trusted.lower", follow=False),
        removexattr(here / "link", "user.test"),
        listxattr(here / "file"),
    )


def refused(n: Names) -> Operations:
    path = own(n) / "file"
    return (
        setxattr(path, "user.test", b"x" * (64 * 1024 + 1), E2BIG),
        setxattr(path, "user." + "n" * 251, b"x", ERANGE),
        setxattr(path, "user." + "n" * 250, b"x"),
        removexattr(path, "user." + "n" * 250),
        setxattr(path, "strange.test", b"x", EOPNOTSUPP),
        getxattr(path, "strange.test", fails=EOPNOTSUPP),
        listxattr(path),
    )


def by_others(n: Names) -> Operations:
    """What uid 1 may of each namespace."""
    public, secret, tmp = own(n) / "public", own(n) / "secret", own(n) / "tmp"
    return (
        setxattr(public, "trusted.test", b"1"),
        setxattr(public, "security.test", b"2"),
        setxattr(public, "user.test", b"3", unprivileged=True),
        getxattr(public, "user.test", b"3", unprivileged=True),
        getxattr(public, "security.test", b"2", unprivileged=True),
        getxattr(public, "trusted.test", fails=ENODATA, unprivileged=True),
        listxattr(public, "user.lower", "user.test", "security.test", unprivileged=True),
        setxattr(public, "trusted.test", b"4", EPERM, unprivileged=True),
        setxattr(public, "security.test", b"4", EPERM, unprivileged=True),
        removexattr(public, "trusted.test", EPERM, unprivileged=True),
        removexattr(public, "user.test", unprivileged=True),
        getxattr(secret, "user.lower", fails=EACCES, unprivileged=True),
        setxattr(secret, "user.lower", b"5", EACCES, unprivileged=True),
        removexattr(secret, "user.lower", EACCES, unprivileged=True),
        listxattr(secret, "user.lower", unprivileged=True),
        setxattr(tmp, "user.test", b"6", EPERM, unprivileged=True),
        chmod(tmp, 0o777),
        setxattr(tmp, "user.test", b"6", unprivileged=True),
        listxattr(tmp, "user.test"),
    )


# The overlay's own names --------------------------------------------------------------------------


def private_tree() -> Directory:
    hidden = {
        PRIVATE + "strange": b"hidden",
        PRIVATE + "overlay.opaque": b"y",
        PRIVATE + "overlay.overlay.deep": b"deeper",
    }
    private: dict[str, Node] = {
        "hidden": File(b"hidden", xattrs=hidden),
        "hiddendir": Directory({"in": File(b"in")}, xattrs=hidden),
    }
    return Directory({**tree().entries, **private})


def own_names_of_the_lower(n: Names) -> Operations:
    """Private ones of a layer are hidden; escaped ones are shown with one `overlay.` less, copied up or not."""
    file, directory = own(n) / "hidden", own(n) / "hiddendir"
    shown = (PRIVATE + "opaque", PRIVATE + "overlay.deep")
    return (
        listxattr(file, *shown),
        getxattr(file, PRIVATE + "strange", fails=ENODATA),
        getxattr(file, PRIVATE + "opaque", b"y"),
        getxattr(file, PRIVATE + "overlay.deep", b"deeper"),
        ListXattrs(path=file, reads="", unprivileged=True),
        chmod(file, 0o600),
        listxattr(file, *shown),
        setxattr(directory, PRIVATE + "overlay.deep", b"deepest"),
        listxattr(directory, *shown),
        lists(directory, "in"),
        removexattr(directory, PRIVATE + "opaque"),
        listxattr(directory, PRIVATE + "overlay.deep"),
        removexattr(directory, PRIVATE + "strange", ENODATA),
    )


def own_names_set(n: Names) -> Operations:
    """Set through the union they are like any other: they mean nothing to this overlay."""
    directory, file, new = own(n) / "dir", own(n) / "file", own(n) / "new"
    return (
        setxattr(directory, PRIVATE + "opaque", b"y"),
        setxattr(directory, PRIVATE + "redirect", b"richdir"),
        setxattr(directory / "sub", PRIVATE + "opaque", b"x"),
        lists(directory, "in", "sub/"),
        holds(directory / "sub/deep", b"deep"),
        setxattr(file, PRIVATE + "metacopy", b""),
        setxattr(file, PRIVATE + "origin", b"nonsense"),
        holds(file, b"lower"),
        make_file(new),
        setxattr(new, PRIVATE + "whiteout", b"y"),
        setxattr(new, "user.overlay.whiteout", b"y"),
        open_file(new, R, reads=b""),
        listxattr(new, PRIVATE + "whiteout", "user.overlay.whiteout"),
        setxattr(new, PRIVATE + "overlay.twice", b"1", ENODATA, how=REPLACE),
        setxattr(new, PRIVATE + "overlay.twice", b"1", how=CREATE),
        setxattr(new, PRIVATE + "overlay.twice", b"1", EEXIST, how=CREATE),
        setxattr(new, PRIVATE + "opaque", b"1", EPERM, unprivileged=True),
        getxattr(new, PRIVATE + "overlay.twice", fails=ENODATA, unprivileged=True),
        removexattr(new, PRIVATE + "whiteout"),
        listxattr(new, PRIVATE + "overlay.twice", "user.overlay.whiteout"),
    )


def own_names_too_long(n: Names) -> Operations:
    """Stored they are eight bytes longer, for which there must be room."""
    path = own(n) / "file"
    longest = PRIVATE + "n" * (255 - len(PRIVATE) - len("overlay."))
    return (
        setxattr(path, longest + "n", b"1", EOPNOTSUPP),
        getxattr(path, longest + "n", fails=EOPNOTSUPP),
        setxattr(path, longest, b"1"),
        getxattr(path, longest, b"1"),
        listxattr(path, longest),
        removexattr(path, longest),
    )


# Capabilities -------------------------------------------------------------------------------------

CAPABILITY = "security.capability"


def capability_lost(words: str, change: Callable[[Name], Operation]) -> Scenario:
    def script(n: Names) -> Operations:
        lower, path = own(n) / "program", own(n) / "file"
        return (
            setxattr(path, CAPABILITY, capability()),
            getxattr(path, CAPABILITY, capability()),
            change(path),
            getxattr(path, CAPABILITY, fails=ENODATA),
            listxattr(path),
            change(lower),
            getxattr(lower, CAPABILITY, fails=ENODATA),
            listxattr(lower),
        )

    return Scenario(f"lost to {words}", script)


def capability_kept(n: Names) -> Operations:
    """Whether the lower program still has it depends on how it was migrated; that it stays so does not."""
    lower, path = own(n) / "program", own(n) / "file"
    return (
        ListXattrs(path=lower),
        chmod(lower, 0o700),
        ListXattrs(path=lower),
        set_times(lower, None, 10**18),
        rename(lower, own(n) / "dir/program"),
        ListXattrs(path=own(n) / "dir/program"),
        Looks(path=own(n) / "dir/program"),
        setxattr(path, CAPABILITY, capability(permitted=1 << 12)),
        chmod(path, 0o755),
        set_times(path, None, 10**18),
        rename(path, own(n) / "dir/file"),
        setxattr(own(n) / "dir/file", CAPABILITY, capability(permitted=1)),
        listxattr(own(n) / "dir/file", CAPABILITY),
        getxattr(own(n) / "dir/file", CAPABILITY, capability(permitted=1)),
        removexattr(own(n) / "dir/file", CAPABILITY),
    )


def capability_refused(n: Names) -> Operations:
    path = own(n) / "file"
    return (
        setxattr(path, CAPABILITY, capability()[:-1], EINVAL),
        setxattr(path, CAPABILITY, b"\0" * 20, EINVAL),
        chown(path, 1, 1),
        setxattr(path, CAPABILITY, capability(), EPERM, unprivileged=True),
        listxattr(path),
    )


OWN_NAMES = (
    Scenario("of the lower layer", own_names_of_the_lower),
    Scenario("set through the union", own_names_set),
    Scenario("longest name", own_names_too_long),
)


def group(name: str, sentence: str, *scenarios: Scenario) -> Group:
    return Group(name, sentence, scenarios, needs=(XATTRS,), lowers=(sets(len(scenarios), tree),))


GROUPS = (
    group(
        "xattr",
        "Set, replace, list and remove xattrs of every namespace on every kind of object.",
        *(lifetime(kind, namespace) for kind, namespace in product(KINDS, ("user", "trusted", "security"))),
    ),
    group(
        "xattr-lower",
        "Change, keep and refuse xattrs.",
        Scenario("changed on lower objects", lower_ones_changed),
        Scenario("kept by copy-up", carried_over),
        Scenario("through symlinks", through_symlinks),
        Scenario("too large, too long, of no namespace", refused),
        Scenario("by uid 1", by_others),
    ),
    Group(
        "xattr-own",
        "Use xattrs with the overlay's own names through the union.",
        OWN_NAMES,
        lowers=(sets(len(OWN_NAMES), private_tree),),
        needs=(XATTRS,),
        overlay_alone=True,
    ),
    group(
        "capability",
        "Give files capabilities and see what takes them.",
        capability_lost("writing", lambda path: open_file(path, W, writes=b"W")),
        capability_lost("truncating", lambda path: truncate(path, 1)),
        capability_lost("a new owner", lambda path: chown(path, 3, 4)),
        capability_lost("the same owner", lambda path: chown(path, -1, -1)),
        Scenario("kept by what changes no content", capability_kept),
        Scenario("refused", capability_refused),
    ),
)
