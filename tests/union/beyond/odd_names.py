# SPDX-License-Identifier: GPL-2.0-only
"""Names and symlink targets that are unusual: long, not UTF-8, with blanks and marks, like whiteouts elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EEXIST, ENAMETOOLONG, ENOENT, ENOTEMPTY

from datasets.reference import FIRST_SET
from datasets.tree import Directory, File, Node, Symlink
from tests.union.beyond.needs import LONG_NAMES
from tests.union.beyond.sets import own
from tests.union.phrases import absent, absent_dir, holds
from union.names import Names
from union.operations import (
    CREAT,
    OpenFile,
    Operation,
    W,
    getxattr,
    lchown,
    link,
    lists,
    make_dir,
    make_file,
    open_file,
    readlink,
    rename,
    rmdir,
    setxattr,
    shows,
    symlink,
    unlink,
)
from union.scenario import Group, Scenario, When

Operations = Sequence[Operation]

LONG: tuple[tuple[str, str], ...] = (
    ("255 bytes", "n" * 255),
    ("255 bytes of 2 each, and one", "ä" * 127 + "x"),
    ("255 bytes that are no UTF-8", os.fsdecode(b"\xff\xfe" * 127 + b"\x80")),
)
NAMES: tuple[tuple[str, str], ...] = (
    ("half a UTF-8 letter", os.fsdecode(b"half\xc3")),
    ("control characters", "tab\tbell\x07delete\x7f"),
    ("newlines", "two\nlines\n"),
    ("blanks", " leading, inner and trailing "),
    ("one blank", " "),
    ("quotes", "'single' \"double\" `back`"),
    ("percents and backslashes", "%s %n %% \\ \\n \\\\"),
    ("marks of mount options", "a,b:c=d;e"),
    ("marks of shells", "$HOME *? [x] {y} ~ | & > < ! #"),
    ("like an option", "--force"),
    ("dots", ".hidden.twice."),
    ("aufs whiteout", ".wh.file"),
    ("aufs opaque mark", ".wh..opq"),
    ("like overlay's work files", "#42"),
    ("like a private xattr", "trusted.overlay.opaque"),
)


def tree(name: str) -> Directory:
    return Directory(
        {
            "files": Directory({name: File(b"odd"), "file": File(b"usual")}),
            "dirs": Directory({name: Directory({name: File(b"deep")}), "dir": Directory()}),
            "links": Directory({name: Symlink(name), "file": Symlink("../files/file")}),
        }
    )


def used(words: str, name: str) -> Scenario:
    """Read, copied up, renamed, removed and made again; as a file, a directory and a symlink."""

    def script(n: Names) -> Operations:
        files, dirs, links = own(n) / "files", own(n) / "dirs", own(n) / "links"
        return (
            lists(files, name, "file"),
            holds(files / name, b"odd"),
            open_file(files / name, W, writes=b"O"),
            rename(files / name, files / "new"),
            lists(files, "new", "file"),
            rename(files / "file", files / name),
            holds(files / name, b"usual"),
            unlink(files / name),
            lists(files, "new"),
            OpenFile(path=files / name, flags=W | CREAT, mode=0o644, writes=b"again"),
            link(files / name, files / "linked"),
            lists(files, "new", name, "linked"),
            readlink(links / name, reads=name),
            lchown(links / name, 3, 4),
            unlink(links / name),
            symlink(name, links / name),
            lists(links, "file@", f"{name}@"),
            make_dir(dirs / "dir" / name),
            lists(dirs / name, name),
            make_file(dirs / name / "new"),
            make_dir(dirs / name, 0o755, EEXIST),
            rmdir(dirs / name, ENOTEMPTY),
            setxattr(dirs / name, "trusted.test", b"1"),
            holds(dirs / name / name, b"deep"),
            unlink(dirs / name / name),
            unlink(dirs / name / "new"),
            rmdir(dirs / name),
            absent_dir(dirs / name),
            lists(dirs, "dir/"),
            make_dir(dirs / name),
            lists(dirs / name),
        )

    return Scenario(words, script)


def moved(words: str, name: str) -> Scenario:
    """A lower directory renamed from the name, to it, and in it: the redirects hold the name."""

    def script(n: Names) -> Operations:
        dirs, files = own(n) / "dirs", own(n) / "files"
        # A redirect has 256 bytes at most: too few for a long name in another directory. For the same reason
        # what came from another directory goes back before it becomes a lower one under that name.
        other = dirs if (words, name) in LONG else dirs / "dir"
        return (
            rename(dirs / name, dirs / "plain"),
            lists(dirs / "plain", name),
            rename(dirs / "plain", other / name),
            holds(other / name / name, b"deep"),
            rename(other / name, other / "plain"),
            rename(files, other / name, cycle=False),
            lists(other / name, name, "file"),
            holds(other / name / name, b"odd"),
            rename(other / name, files),
            rename(other / "plain", dirs / name),
            holds(dirs / name / name, b"deep"),
            lists(dirs, "dir/", f"{name}/"),
        )

    return Scenario(words, script)


def too_long(n: Names) -> Operations:
    files, name = own(n) / "files", "n" * 260
    return (
        make_file(files / name, 0o644, ENAMETOOLONG),
        make_dir(files / name, 0o755, ENAMETOOLONG),
        rename(files / "file", files / name, ENAMETOOLONG),
        link(files / "file", files / name, ENAMETOOLONG),
        symlink("x", files / ("ä" * 130), ENAMETOOLONG),
        unlink(files / name, ENAMETOOLONG),
        holds(files / "file", b"usual"),
    )


def differing_in_case(n: Names) -> Operations:
    files = own(n) / "files"
    return (
        absent(files / "FILE"),
        make_file(files / "FILE"),
        unlink(files / "file"),
        lists(files, "FILE", "name"),
        rename(files / "name", files / "NAME"),
        lists(files, "FILE", "NAME"),
        absent(files / "name"),
    )


TARGETS: tuple[tuple[str, str], ...] = (
    ("absolute", "/nowhere/at/all"),
    ("the root", "/"),
    ("itself", "."),
    ("out of the union", "../" * 20 + "nowhere"),
    ("trailing slashes", "../../nowhere///"),
    ("1023 bytes", "x/" * 511 + "x"),
    ("no UTF-8", os.fsdecode(b"\xff\xc3\x28")),
    ("newlines and quotes", "a\n'b'\n\"c\""),
    ("a scheme", "proc:[4026531840]"),
    ("a number of blanks", "   "),
)


def pointed(words: str, target: str) -> Scenario:
    """The target is kept to the letter, in the lower layer, copied up, moved and new."""

    def script(n: Names) -> Operations:
        lower, new = own(n) / "link", own(n) / "newlink"
        size = len(os.fsencode(target))
        return (
            readlink(lower, reads=target),
            lchown(lower, 3, 4),
            readlink(lower, reads=target),
            shows(lower, f"l 0777 3:4 x1 {size}"),
            rename(lower, own(n) / "dir/moved"),
            readlink(own(n) / "dir/moved", reads=target),
            symlink(target, new),
            symlink(target, lower),
            link(new, own(n) / "dir/second"),
            unlink(new),
            readlink(own(n) / "dir/second", reads=target),
            readlink(lower, reads=target),
            lists(own(n), "dir/", "link@"),
            symlink("", new, ENOENT),
            setxattr(lower, "trusted.test", b"1", follow=False),
            getxattr(lower, "trusted.test", b"1", follow=False),
        )

    return Scenario(words, script)


def numbered(trees: Sequence[Directory]) -> Directory:
    """A set for each scenario."""
    entries: dict[str, Node] = {f"set{FIRST_SET + index}": one for index, one in enumerate(trees)}
    return Directory(entries)


ODD = numbered([*(tree(name) for _, name in NAMES), tree("name"), tree("name")])
LINKS = numbered([Directory({"link": Symlink(target), "dir": Directory()}) for _, target in TARGETS])

GROUPS = (
    Group(
        "odd-names",
        "Use unusual names for files, directories and symlinks.",
        (
            *(used(*name) for name in NAMES),
            Scenario("more than 255 bytes", too_long),
            Scenario("names that differ in case", differing_in_case),
        ),
        lowers=(ODD,),
    ),
    Group(
        "odd-names-redirect",
        "Rename lower directories from and to unusual names.",
        tuple(moved(*name) for name in NAMES),
        when=When.DIRECTORY_RENAMES,
        lowers=(ODD,),
    ),
    Group(
        "long-names",
        "Use the longest names for files, directories and symlinks.",
        tuple(used(*name) for name in LONG),
        lowers=(numbered([tree(name) for _, name in LONG]),),
        needs=(LONG_NAMES,),
    ),
    Group(
        "long-names-redirect",
        "Rename lower directories from and to the longest names.",
        tuple(moved(*name) for name in LONG),
        when=When.DIRECTORY_RENAMES,
        lowers=(numbered([tree(name) for _, name in LONG]),),
        needs=(LONG_NAMES,),
    ),
    Group(
        "odd-targets",
        "Keep unusual targets of symlinks.",
        tuple(pointed(*target) for target in TARGETS),
        lowers=(LINKS,),
    ),
)
