# SPDX-License-Identifier: GPL-2.0-only
"""File flags of chattr(1): immutable, append-only and noatime, in the lower layer and given later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EPERM

from datasets.tree import APPEND_ONLY, IMMUTABLE, NOATIME, Directory, File, Node
from tests.union.beyond.needs import ENFORCED_FLAGS, FLAGS
from tests.union.beyond.sets import own, sets
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import (
    RW,
    RWA,
    TRUNC,
    WA,
    Make,
    Operation,
    W,
    chattr,
    chmod,
    chown,
    link,
    lists,
    lsattr,
    make_dir,
    make_file,
    open_file,
    removexattr,
    rename,
    rmdir,
    set_times,
    setxattr,
    shows,
    touch,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]


def tree() -> Directory:
    return Directory(
        {
            "file": File(b"lower"),
            "noatime": File(b"lower", flags=NOATIME),
            "dir": Directory({"in": File(b"in"), "sub": Directory({"deep": File(b"deep")})}),
        }
    )


def fixed() -> Directory:
    """With lower objects that nobody can change, so that they cannot be migrated."""
    entries: dict[str, Node] = {
        **tree().entries,
        "immutable": File(b"lower", flags=IMMUTABLE),
        "append": File(b"lower", flags=APPEND_ONLY),
        "both": File(b"lower", flags=IMMUTABLE | APPEND_ONLY | NOATIME),
        "imdir": Directory({"in": File(b"in"), "sub": Directory()}, flags=IMMUTABLE),
        "apdir": Directory({"in": File(b"in"), "sub": Directory()}, flags=APPEND_ONLY),
    }
    return Directory(entries)


def immutable_file(path: Name, beside: Name, content: bytes) -> Operations:
    """Nothing can be done to it, by root neither, until the flag is taken away."""
    size = len(content)
    return (
        lsattr(path, IMMUTABLE),
        shows(path, f"f 0644 0:0 x1 {size} immutable", flags=True),
        holds(path, content),
        open_file(path, W, fails=EPERM),
        open_file(path, RWA, fails=EPERM),
        truncate(path, 0, EPERM),
        chmod(path, 0o600, EPERM),
        chown(path, 3, 4, EPERM),
        touch(path, EPERM),
        set_times(path, None, 10**18, EPERM),
        setxattr(path, "user.test", b"1", EPERM),
        removexattr(path, "user.test", EPERM),
        link(path, beside, EPERM),
        rename(path, beside, EPERM),
        unlink(path, EPERM),
        chattr(path, 0, EPERM, unprivileged=True),
        holds(path, content),
        absent(beside),
        chattr(path, 0),
        open_file(path, RW, writes=b"L"),
    )


def append_only_file(path: Name, beside: Name, content: bytes) -> Operations:
    """It grows, and that is all."""
    size = len(content)
    return (
        lsattr(path, APPEND_ONLY),
        shows(path, f"f 0644 0:0 x1 {size} append", flags=True),
        open_file(path, W, fails=EPERM),
        open_file(path, WA | TRUNC, fails=EPERM),
        truncate(path, 0, EPERM),
        touch(path),
        open_file(path, RWA, writes=b"+"),
        holds(path, content + b"+"),
        chmod(path, 0o600, EPERM),
        set_times(path, None, 10**18, EPERM),
        link(path, beside, EPERM),
        rename(path, beside, EPERM),
        unlink(path, EPERM),
        lsattr(path, APPEND_ONLY),
        chattr(path, APPEND_ONLY | NOATIME),
        chattr(path, NOATIME),
        lsattr(path, NOATIME),
        chmod(path, 0o600),
        rename(path, beside),
        shows(beside, f"f 0600 0:0 x1 {size + 1}", flags=True),
    )


def immutable_directory(path: Name, outside: Name) -> Operations:
    """Its names are fixed, what they name is not."""
    return (
        lsattr(path, IMMUTABLE),
        shows(path, "d 0755 0:0 immutable", flags=True),
        make_file(path / "new", 0o644, EPERM),
        make_dir(path / "new", 0o755, EPERM),
        unlink(path / "in", EPERM),
        rmdir(path / "sub", EPERM),
        rename(path / "in", outside, EPERM),
        rename(path / "in", path / "other", EPERM),
        open_file(path / "in", RW, writes=b"IN"),
        make_file(path / "sub/new"),
        holds(path / "in", b"IN"),
        lists(path, "in", "sub/"),
        chattr(path, 0),
        rename(path / "in", path / "other"),
        lists(path, "other", "sub/"),
        shows(path, "d 0755 0:0", flags=True),
    )


def append_only_directory(path: Name, outside: Name) -> Operations:
    """Names can be added, and none removed."""
    return (
        lsattr(path, APPEND_ONLY),
        make_file(path / "new"),
        unlink(path / "new", EPERM),
        unlink(path / "in", EPERM),
        rmdir(path / "sub", EPERM),
        rename(path / "in", outside, EPERM),
        lists(path, "in", "new", "sub/"),
        chattr(path, 0),
        unlink(path / "new"),
        rename(path / "in", outside),
        lists(path, "sub/"),
    )


def given_then(
    kind: Callable[[Name], Operations], flags: int, then: Callable[..., Operations], *more: bytes
) -> Callable[[Names], Operations]:
    """A scenario that gives an object the flags, tries what they forbid, and takes them away."""

    def script(n: Names) -> Operations:
        path = own(n) / ("file" if more else "dir")
        outside = own(n) / "outside"
        return (*kind(path), chattr(path, flags), *then(path, outside, *more))

    return script


def nothing(_path: Name) -> Operations:
    return ()


def taken_away(n: Names) -> Operations:
    path = own(n) / "file"
    return (
        chattr(path, IMMUTABLE | APPEND_ONLY | NOATIME),
        lsattr(path, IMMUTABLE | APPEND_ONLY | NOATIME),
        shows(path, "f 0644 0:0 x1 5 immutable append", flags=True),
        chattr(path, APPEND_ONLY),
        shows(path, "f 0644 0:0 x1 5 append", flags=True),
        chattr(path, 0),
        lsattr(path, 0),
        open_file(path, RW, writes=b"L"),
        unlink(path),
        make_file(path),
        lsattr(path, 0),
    )


def lower_noatime(n: Names) -> Operations:
    """Copy-up takes the flag along."""
    path = own(n) / "noatime"
    return (
        lsattr(path, NOATIME),
        open_file(path, RW, writes=b"L"),
        lsattr(path, NOATIME),
        chattr(path, 0),
        lsattr(path, 0),
    )


def by_others(n: Names) -> Operations:
    """Of an object of their own uid 1 may set noatime, not what only root may take back."""
    path = own(n) / "file"
    return (
        chattr(path, NOATIME, EPERM, unprivileged=True),
        chown(path, 1, 1),
        chattr(path, NOATIME, unprivileged=True),
        chattr(path, NOATIME | IMMUTABLE, EPERM, unprivileged=True),
        chattr(path, APPEND_ONLY, EPERM, unprivileged=True),
        lsattr(path, NOATIME),
    )


def lower_immutable(n: Names) -> Operations:
    path = own(n) / "immutable"
    return (
        *immutable_file(path, own(n) / "outside", b"lower"),
        unlink(path),
        absent(path),
    )


def lower_both(n: Names) -> Operations:
    path = own(n) / "both"
    return (
        lsattr(path, IMMUTABLE | APPEND_ONLY | NOATIME),
        open_file(path, RWA, fails=EPERM),
        unlink(path, EPERM),
        chattr(path, APPEND_ONLY | NOATIME),
        open_file(path, RWA, writes=b"+"),
        chattr(path, NOATIME),
        holds(path, b"lower+"),
        unlink(path),
    )


def lower_append_only(n: Names) -> Operations:
    return append_only_file(own(n) / "append", own(n) / "outside", b"lower")


def lower_immutable_directory(n: Names) -> Operations:
    return immutable_directory(own(n) / "imdir", own(n) / "outside")


def lower_append_only_directory(n: Names) -> Operations:
    return append_only_directory(own(n) / "apdir", own(n) / "outside")


def around_fixed_ones(n: Names) -> Operations:
    """A directory that holds an immutable file can be changed, and not be emptied."""
    here = own(n) / "imdir"
    return (
        Make(path=own(n) / "new", type=0o100000),
        chattr(here, 0),
        chattr(here / "in", IMMUTABLE),
        unlink(here / "in", EPERM),
        rename(here / "in", own(n) / "outside", EPERM),
        make_file(here / "more"),
        lists(here, "in", "more", "sub/"),
        chattr(here / "in", 0),
        unlink(here / "in"),
        lists(here, "more", "sub/"),
    )


CHANGEABLE = (
    Scenario("lower file made immutable", given_then(nothing, IMMUTABLE, immutable_file, b"lower")),
    Scenario("lower file made append-only", given_then(nothing, APPEND_ONLY, append_only_file, b"lower")),
    Scenario("lower directory made immutable", given_then(nothing, IMMUTABLE, immutable_directory)),
    Scenario("lower directory made append-only", given_then(nothing, APPEND_ONLY, append_only_directory)),
    Scenario("flags set and taken away", taken_away),
    Scenario("lower file with noatime", lower_noatime),
    Scenario("by uid 1", by_others),
)

FIXED = (
    Scenario("immutable file", lower_immutable),
    Scenario("append-only file", lower_append_only),
    Scenario("immutable directory", lower_immutable_directory),
    Scenario("append-only directory", lower_append_only_directory),
    Scenario("file with all flags", lower_both),
    Scenario("names around them", around_fixed_ones),
)

GROUPS = (
    Group(
        "chattr",
        "Give objects flags, do what these forbid, and take them away.",
        CHANGEABLE,
        needs=(FLAGS,),
        lowers=(sets(len(CHANGEABLE), tree),),
    ),
    Group(
        "chattr-lower",
        "Do what the flags of lower objects forbid, and take them away.",
        FIXED,
        needs=(ENFORCED_FLAGS,),
        lowers=(sets(len(FIXED), fixed),),
        detaches=False,
    ),
)
