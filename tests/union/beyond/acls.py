# SPDX-License-Identifier: GPL-2.0-only
"""POSIX ACLs: what they allow, what chmod makes of them, who inherits them, that copy-up keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM
from itertools import product

from datasets.acl import ACCESS, DEFAULT, acl
from datasets.tree import Directory, File, Special, Symlink
from tests.union.beyond.needs import ACLS
from tests.union.beyond.sets import own, sets
from tests.union.phrases import holds
from union.names import Name, Names
from union.operations import (
    RW,
    Make,
    Operation,
    R,
    RemoveXattr,
    W,
    chmod,
    chown,
    getxattr,
    lists,
    listxattr,
    make_dir,
    make_file,
    mknod,
    open_file,
    removexattr,
    rename,
    rmtree,
    set_times,
    setxattr,
    shows,
    symlink,
    touch,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]
FIFO = 0o010000

# uid 1 reads, nobody else but root and the owner does.
FOR_ONE = acl("u::rw-,u:1:r--,g::---,m::r--,o::---")
# uid 1 reads and writes, but the mask takes the writing.
MASKED = acl("u::rw-,u:1:rw-,g::r--,m::r--,o::r--")
# All read but uid 1.
NOT_ONE = acl("u::rw-,u:1:---,g::r--,m::r--,o::r--")
# The group of uid 1 writes.
GROUP_ONE = acl("u::rw-,g::r--,g:1:rw-,m::rw-,o::---")
MINIMAL = acl("u::rw-,g::r-x,o::--x")
INHERITED = acl("u::rwx,u:1:rwx,g::r-x,m::rwx,o::---")
PLAIN_DEFAULT = acl("u::rwx,g::rwx,o::r-x")  # has no more than bits; it takes the place of the umask all the same


def tree() -> Directory:
    with_acl = {ACCESS: FOR_ONE}
    inheriting = Directory(
        {"old": File(b"old"), "olddir": Directory({"in": File(b"in")})}, 0o777, xattrs={DEFAULT: INHERITED}
    )
    return Directory(
        {
            "file": File(b"lower"),
            "private": File(b"lower", 0o640, xattrs=with_acl),
            "dir": Directory({"in": File(b"in", 0o640, xattrs=with_acl)}),
            "inheriting": inheriting,
            "both": Directory({}, 0o770, xattrs={ACCESS: INHERITED, DEFAULT: INHERITED}),
            "link": Symlink("file"),
            "fifo": Special(FIFO, 0o640, xattrs=with_acl),
        }
    )


KINDS: tuple[tuple[str, str, Callable[[Name], Operations], str], ...] = (
    ("lower file", "file", lambda _path: (), "f {} 0:0 x1 5"),
    ("lower file that has one", "private", lambda _path: (), "f {} 0:0 x1 5"),
    ("new file", "newfile", lambda path: (make_file(path),), "f {} 0:0 x1 0"),
    ("lower directory", "dir", lambda _path: (), "d {} 0:0"),
    ("new directory", "newdir", lambda path: (make_dir(path),), "d {} 0:0"),
    ("lower fifo that has one", "fifo", lambda _path: (), "p {} 0:0 x1"),
)


def lifetime(words: str, stem: str, make: Callable[[Name], Operations], looks: str) -> Scenario:
    """Set, changed by chmod, replaced by one that bits can say, set again and removed."""

    def script(n: Names) -> Operations:
        path = own(n) / stem
        return (
            *make(path),
            setxattr(path, ACCESS, MASKED),
            shows(path, looks.format("0644")),
            getxattr(path, ACCESS, MASKED),
            chmod(path, 0o711),
            getxattr(path, ACCESS, acl("u::rwx,u:1:rw-,g::r--,m::--x,o::--x")),
            shows(path, looks.format("0711")),
            chmod(path, 0o660),
            getxattr(path, ACCESS, acl("u::rw-,u:1:rw-,g::r--,m::rw-,o::---")),
            setxattr(path, ACCESS, MINIMAL),
            shows(path, looks.format("0651")),
            getxattr(path, ACCESS, fails=ENODATA),
            listxattr(path),
            setxattr(path, ACCESS, GROUP_ONE),
            listxattr(path, ACCESS),
            removexattr(path, ACCESS),
            shows(path, looks.format("0660")),
            getxattr(path, ACCESS, fails=ENODATA),
        )

    return Scenario(words, script)


def allowed(n: Names) -> Operations:
    """What ACLs let uid 1 do, of lower files and of copied-up ones."""
    lower, path = own(n) / "private", own(n) / "file"
    return (
        holds(lower, b"lower", unprivileged=True),
        open_file(lower, W, fails=EACCES, unprivileged=True),
        setxattr(path, ACCESS, MASKED),
        holds(path, b"lower", unprivileged=True),
        open_file(path, RW, fails=EACCES, unprivileged=True),
        chmod(path, 0o664),
        open_file(path, RW, writes=b"L", unprivileged=True),
        truncate(path, 4, unprivileged=True),
        set_times(path, None, 10**18),
        touch(path, unprivileged=True),
        setxattr(path, ACCESS, NOT_ONE),
        open_file(path, R, fails=EACCES, unprivileged=True),
        touch(path, EACCES, unprivileged=True),
        setxattr(path, ACCESS, GROUP_ONE),
        open_file(path, RW, writes=b"M", unprivileged=True),
        chown(path, 1, 0),
        setxattr(path, ACCESS, acl("u::---,u:1:rw-,g::rw-,m::rw-,o::rw-")),
        open_file(path, R, fails=EACCES, unprivileged=True),
        setxattr(path, ACCESS, FOR_ONE, unprivileged=True),
        chown(path, 0, 0),
        holds(path, b"Mowe", unprivileged=True),
        setxattr(path, ACCESS, MASKED, EPERM, unprivileged=True),
        RemoveXattr(path=path, key=ACCESS, fails=EPERM, unprivileged=True),
        getxattr(path, ACCESS, FOR_ONE, unprivileged=True),
    )


def allowed_in_directories(n: Names) -> Operations:
    here = own(n) / "dir"
    return (
        Make(path=here / "new", type=0o100000, fails=EACCES, unprivileged=True),
        setxattr(here, ACCESS, INHERITED),
        Make(path=here / "new", type=0o100000, unprivileged=True),
        lists(here, "in", "new", unprivileged=True),
        setxattr(here, ACCESS, acl("u::rwx,u:1:r--,g::r-x,m::rwx,o::r-x")),
        lists(here, "in", "new", unprivileged=True),
        open_file(here / "new", R, fails=EACCES, unprivileged=True),
        setxattr(here, ACCESS, acl("u::rwx,u:1:--x,g::r-x,m::rwx,o::r-x")),
        holds(here / "in", b"in", unprivileged=True),
        chmod(here, 0o700),
        open_file(here / "in", R, fails=EACCES, unprivileged=True),
    )


def carried_over(n: Names) -> Operations:
    """Copied up for other reasons, an object keeps its ACLs."""
    here = own(n)
    return (
        open_file(here / "private", RW, writes=b"L"),
        getxattr(here / "private", ACCESS, FOR_ONE),
        set_times(here / "dir/in", None, 10**18),
        getxattr(here / "dir/in", ACCESS, FOR_ONE),
        chown(here / "fifo", 3, 4),
        getxattr(here / "fifo", ACCESS, FOR_ONE),
        chown(here / "both", 3, 4),
        listxattr(here / "both", ACCESS, DEFAULT),
        getxattr(here / "both", DEFAULT, INHERITED),
        rename(here / "inheriting/old", here / "moved"),
        listxattr(here / "inheriting", DEFAULT),
        listxattr(here / "moved"),
    )


# Inherited ----------------------------------------------------------------------------------------

PARENTS: tuple[tuple[str, Callable[[Name], Operations]], ...] = (
    ("lower directory", lambda _path: ()),
    ("new directory", lambda path: (make_dir(path, 0o777, umask=0), setxattr(path, DEFAULT, INHERITED))),
)
NAMES = ("on a fresh name", "in the place of what was removed")


def inherited(words: str, make: Callable[[Name], Operations], place: str) -> Scenario:
    """The umask does not count; the mode asked for does."""

    def script(n: Names) -> Operations:
        here = own(n) / ("inheriting" if words.startswith("lower") else "new")
        fresh = place == NAMES[0]
        file, directory = here / ("fresh" if fresh else "old"), here / ("freshdir" if fresh else "olddir")
        made = () if words.startswith("lower") else (make_file(here / "old"), make_dir(here / "olddir"))
        return (
            *make(here),
            *made,
            *(() if fresh else (unlink(file), rmtree(directory))),
            make_file(file, 0o666, umask=0o077),
            shows(file, "f 0660 0:0 x1 0"),
            listxattr(file, ACCESS),
            getxattr(file, ACCESS, acl("u::rw-,u:1:rwx,g::r-x,m::rw-,o::---")),
            make_dir(directory, 0o751, umask=0o077),
            shows(directory, "d 0750 0:0"),
            listxattr(directory, ACCESS, DEFAULT),
            getxattr(directory, ACCESS, acl("u::rwx,u:1:rwx,g::r-x,m::r-x,o::---")),
            getxattr(directory, DEFAULT, INHERITED),
            make_file(directory / "below", 0o640, unprivileged=False),
            getxattr(directory / "below", ACCESS, acl("u::rw-,u:1:rwx,g::r-x,m::r--,o::---")),
            mknod(here / "fifo", FIFO, 0o600, umask=0),
            getxattr(here / "fifo", ACCESS, acl("u::rw-,u:1:rwx,g::r-x,m::---,o::---")),
            symlink("x", here / "link"),
            listxattr(here / "link", follow=False),
            Make(path=here / "theirs", type=0o100000, mode=0o644, unprivileged=True),
            shows(here / "theirs", "f 0640 1:1 x1 0"),
        )

    return Scenario(f"{words}, {place}", script)


def defaults_changed(n: Names) -> Operations:
    """A default ACL that is no more than bits is kept, and takes the place of the umask; removed, that is back."""
    here = own(n) / "dir"
    return (
        setxattr(here, DEFAULT, PLAIN_DEFAULT),
        shows(here, "d 0755 0:0"),
        getxattr(here, DEFAULT, PLAIN_DEFAULT),
        make_file(here / "one", 0o666, umask=0o077),
        shows(here / "one", "f 0664 0:0 x1 0"),
        listxattr(here / "one"),
        make_dir(here / "two", 0o777, umask=0o077),
        listxattr(here / "two", DEFAULT),
        removexattr(here, DEFAULT),
        make_file(here / "three", 0o666, umask=0o077),
        shows(here / "three", "f 0600 0:0 x1 0"),
        setxattr(here / "in", DEFAULT, INHERITED, EACCES),
        setxattr(here, DEFAULT, INHERITED, EPERM, unprivileged=True),
        listxattr(here),
    )


def refused(n: Names) -> Operations:
    link, path = own(n) / "link", own(n) / "file"
    return (
        setxattr(link, ACCESS, FOR_ONE, EOPNOTSUPP, follow=False),
        getxattr(link, ACCESS, fails=EOPNOTSUPP, follow=False),
        removexattr(link, ACCESS, EOPNOTSUPP, follow=False),
        setxattr(path, ACCESS, acl("u::rw-,u:1:rw-,g::r--,o::r--"), EINVAL),  # named users need a mask
        setxattr(path, ACCESS, acl("u::rw-,o::r--"), EINVAL),
        setxattr(path, ACCESS, acl("o::rw-,g::r--,u::r--"), EINVAL),
        setxattr(path, ACCESS, acl("u::rw-,g::r--,o::r--")[:-1], EINVAL),
        setxattr(link, ACCESS, FOR_ONE),
        getxattr(path, ACCESS, FOR_ONE),
        listxattr(link, follow=False),
    )


def setgid_bit(n: Names) -> Operations:
    """Who is not in the group of a file loses its setgid bit when giving it an ACL."""
    path = own(n) / "file"
    return (
        chown(path, 1, 7),
        chmod(path, 0o2755),
        setxattr(path, ACCESS, GROUP_ONE, unprivileged=True),
        shows(path, "f 0660 1:7 x1 5"),
        chmod(path, 0o2775),
        chown(path, 1, 1),
        chmod(path, 0o2775),
        setxattr(path, ACCESS, MASKED, unprivileged=True),
        shows(path, "f 2644 1:1 x1 5"),
    )


def group(name: str, sentence: str, *scenarios: Scenario) -> Group:
    return Group(name, sentence, scenarios, needs=(ACLS,), lowers=(sets(len(scenarios), tree),))


GROUPS = (
    group(
        "acl",
        "Give objects access ACLs, change them, and do what they allow.",
        *(lifetime(*kind) for kind in KINDS),
        Scenario("what uid 1 may do to files", allowed),
        Scenario("what uid 1 may do in directories", allowed_in_directories),
        Scenario("kept by copy-up", carried_over),
        Scenario("not on symlinks, not malformed", refused),
        Scenario("and the setgid bit", setgid_bit),
    ),
    group(
        "acl-default",
        "Make objects in directories with a default ACL.",
        *(inherited(*parent, place) for parent, place in product(PARENTS, NAMES)),
        Scenario("default ACL given and taken away", defaults_changed),
    ),
)
