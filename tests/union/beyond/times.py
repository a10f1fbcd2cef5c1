# SPDX-License-Identifier: GPL-2.0-only
"""Times given by utimensat(2), and what later operations do to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import ENOENT, EPERM

from datasets.tree import Directory, File, Special, Symlink
from tests.union.beyond.sets import own, sets
from tests.union.phrases import holds
from union.names import Name, Names
from union.operations import (
    RW,
    Operation,
    chmod,
    chown,
    lists,
    make_dir,
    make_file,
    mkdir,
    open_file,
    readlink,
    rename,
    set_times,
    setxattr,
    shows,
    symlink,
    touch,
    truncate,
    unlink,
)
from union.scenario import Group, Scenario, When

Operations = Sequence[Operation]

OLD = 1_000_000_000_123_456_789
OLDER = 999_999_999_987_654_321
ANCIENT = 1  # the first nanosecond
LATE = 4_000_000_000_000_000_001  # after 2038 and after 2106, when 32 bits of seconds end
LOWER = 1_111_111_111_000_000_000  # squashfs has whole seconds


def tree() -> Directory:
    return Directory(
        {
            "file": File(b"lower", mtime=LOWER),
            "public": File(b"lower", 0o666, mtime=LOWER),
            "dir": Directory({"in": File(b"in", mtime=LOWER)}, mtime=LOWER),
            "link": Symlink("file", mtime=LOWER),
            "dangling": Symlink("nowhere"),
            "fifo": Special(0o010000, mtime=LOWER),
        }
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """What gets times: its name, what makes it, whether it is a symlink."""

    words: str
    path: str
    make: Callable[[Name], Operations] = lambda _path: ()
    follow: bool = True


KINDS = (
    Timed("lower file", "file"),
    Timed("new file", "newfile", lambda path: (make_file(path),)),
    Timed("lower directory", "dir"),
    Timed("new directory", "newdir", lambda path: (make_dir(path),)),
    Timed("lower symlink", "link", follow=False),
    Timed("new symlink", "newlink", lambda path: (symlink("file", path),), follow=False),
    Timed("lower fifo", "fifo"),
)


def given(kind: Timed) -> Scenario:
    """One time, the other, both; none of them moves by a change of what is no content."""

    def script(n: Names) -> Operations:
        path = own(n) / kind.path
        follow = kind.follow
        change = (chmod(path, 0o700),) if follow else ()
        return (
            *kind.make(path),
            set_times(path, OLD, OLDER, follow=follow),
            set_times(path, None, LATE, follow=follow),
            set_times(path, ANCIENT, None, follow=follow),
            set_times(path, OLDER, OLD, follow=follow),
            *change,
            setxattr(path, "trusted.test", b"x", follow=follow) if kind.path != "fifo" else chown(path, 3, 4),
            rename(path, own(n) / "dir/moved") if kind.path != "dir" else chown(path, 3, 4),
            set_times(path, None, OLD, ENOENT, follow=follow) if kind.path != "dir" else lists(path, "in"),
        )

    return Scenario(kind.words, script)


def kept_from_the_lower(n: Names) -> Operations:
    """Copy-up keeps the time of the content; it moves with the content alone."""
    here = own(n)
    return (
        chmod(here / "file", 0o600),
        chown(here / "dir", 3, 4),
        lists(here / "dir", "in"),
        set_times(here / "link", OLD, None, follow=False),
        chmod(here / "fifo", 0o600),
        rename(here / "dir/in", here / "in"),
        holds(here / "in", b"in"),
        open_file(here / "public", RW, writes=b"L"),
        holds(here / "public", b"Lower"),
    )


def moved_by_changes(n: Names) -> Operations:
    """What changes the content moves a given time to now."""
    here = own(n)
    return (
        set_times(here / "file", OLD, OLD),
        open_file(here / "file", RW, writes=b"L"),
        set_times(here / "file", OLD, OLD),
        truncate(here / "file", 3),
        set_times(here / "file", OLD, OLD),
        touch(here / "file"),
        set_times(here / "dir", OLD, OLD),
        make_file(here / "dir/new"),
        set_times(here / "dir", OLD, OLD),
        unlink(here / "dir/in"),
        set_times(here / "dir", OLD, OLD),
        rename(here / "dir/new", here / "new"),
        set_times(here / "dir", OLD, OLD),
        mkdir(here / "dir/sub"),
        lists(here / "dir", "sub/"),
    )


def through_a_symlink(n: Names) -> Operations:
    """Followed, the times are those of what it leads to."""
    here = own(n)
    return (
        set_times(here / "link", OLD, OLDER),
        set_times(here / "link", OLDER, ANCIENT, follow=False),
        set_times(here / "dangling", OLD, OLD, ENOENT),
        set_times(here / "dangling", OLD, OLD, follow=False),
        readlink(here / "dangling", reads="nowhere"),
        holds(here / "link", b"lower"),
    )


def by_others(n: Names) -> Operations:
    """Who may write may set the times to now, to others only the owner may."""
    path = own(n) / "public"
    return (
        chown(path, 0, 0),
        touch(path, unprivileged=True),
        set_times(path, OLD, OLD, EPERM, unprivileged=True),
        set_times(path, None, OLD, EPERM, unprivileged=True),
        chown(path, 1, 1),
        set_times(path, OLD, OLDER, unprivileged=True),
        chmod(path, 0o444),
        set_times(path, OLDER, OLD, unprivileged=True),
        shows(path, "f 0444 1:1 x1 5"),
    )


SCENARIOS = (
    *(given(kind) for kind in KINDS),
    Scenario("what the lower objects have", kept_from_the_lower),
    Scenario("what changes do to them", moved_by_changes),
    Scenario("through symlinks", through_a_symlink),
    Scenario("by uid 1", by_others),
)

GROUPS = (
    Group(
        "times",
        "Give objects of every kind times, and see what moves them.",
        SCENARIOS,
        when=When.DIRECTORY_RENAMES,
        lowers=(sets(len(SCENARIOS), tree),),
    ),
)
