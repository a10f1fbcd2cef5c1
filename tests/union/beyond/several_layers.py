# SPDX-License-Identifier: GPL-2.0-only
"""Three lower layers: what merges, what hides, what leads elsewhere, and what changes make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EEXIST, ENOTEMPTY

from datasets.layers import OPAQUE, REDIRECT, WHITEOUT
from datasets.reference import FIRST_SET
from datasets.tree import Directory, File, Node, Symlink, Whiteout
from tests.union.beyond.needs import XWHITEOUTS
from tests.union.beyond.sets import own
from tests.union.phrases import absent, absent_dir, holds
from union.names import Name, Names
from union.operations import (
    CREAT,
    OpenFile,
    Operation,
    W,
    chmod,
    exchange,
    lists,
    listxattr,
    make_dir,
    make_file,
    mkdir,
    open_file,
    rename,
    rmdir,
    rmtree,
    seeks,
    set_times,
    shows,
    symlink,
    unlink,
)
from union.scenario import Group, Scenario, When

Operations = Sequence[Operation]
Entries = Mapping[str, Node]

TOP, MIDDLE, BOTTOM = File(b"top"), File(b"middle"), File(b"bottom")
GONE = Whiteout()
GONE_BY_XATTR = File(xattrs={WHITEOUT: b"y"})


def opaque(entries: Entries, mark: bytes = b"y") -> Directory:
    return Directory(entries, xattrs={OPAQUE: mark})


def redirected(entries: Entries, to: str) -> Directory:
    return Directory(entries, xattrs={REDIRECT: to.encode()})


def both(name: str) -> Directory:
    """A directory with one name of its own and one that others have too."""
    return Directory({f"{name}only": File(name.encode()), "file": File(name.encode())})


@dataclass(frozen=True, slots=True)
class Shape:
    """What three layers hold, topmost first, and what the union shows as the directory `d`.

    `holds` is the content of files in it, by path. `others` are the entries that stand beside it.
    """

    words: str
    layers: tuple[Entries, Entries, Entries]
    lists: tuple[str, ...]
    holds: Mapping[str, bytes]
    others: tuple[str, ...] = field(default=())


T, M, B = both("top"), both("middle"), both("bottom")
SHAPES: tuple[Shape, ...] = (
    Shape(
        "in all layers",
        ({"d": T}, {"d": M}, {"d": B}),
        ("file", "toponly", "middleonly", "bottomonly"),
        {"file": b"top", "middleonly": b"middle", "bottomonly": b"bottom"},
    ),
    Shape(
        "in the topmost and the lowest",
        ({"d": T}, {}, {"d": B}),
        ("file", "toponly", "bottomonly"),
        {"file": b"top", "bottomonly": b"bottom"},
    ),
    Shape(
        "in the lower two",
        ({}, {"d": M}, {"d": B}),
        ("file", "middleonly", "bottomonly"),
        {"file": b"middle", "bottomonly": b"bottom"},
    ),
    Shape("in the topmost alone", ({"d": T}, {}, {}), ("file", "toponly"), {"file": b"top"}),
    Shape("in the middle alone", ({}, {"d": M}, {}), ("file", "middleonly"), {"file": b"middle"}),
    Shape(
        "merged two levels down",
        (
            {"d": Directory({"s": Directory({"u": T}), "x": TOP})},
            {"d": Directory({"s": Directory({"u": M, "y": MIDDLE})})},
            {"d": Directory({"s": Directory({"u": B}), "z": BOTTOM})},
        ),
        ("s/", "x", "z"),
        {"s/u/file": b"top", "s/u/middleonly": b"middle", "s/u/bottomonly": b"bottom", "s/y": b"middle"},
    ),
    Shape(
        "opaque in the middle",
        ({"d": T}, {"d": opaque(M.entries)}, {"d": B}),
        ("file", "toponly", "middleonly"),
        {"file": b"top", "middleonly": b"middle"},
    ),
    Shape(
        "opaque in the topmost",
        ({"d": opaque(T.entries)}, {"d": M}, {"d": B}),
        ("file", "toponly"),
        {"file": b"top"},
    ),
    Shape("opaque and empty", ({"d": opaque({})}, {"d": M}, {"d": B}), (), {}),
    Shape(
        "names hidden in the middle",
        (
            {"d": Directory({"again": TOP})},
            {"d": Directory({"gone": GONE, "again": GONE, "stays": MIDDLE, "s": GONE})},
            {"d": Directory({"gone": BOTTOM, "again": BOTTOM, "bottom": BOTTOM, "s": B})},
        ),
        ("again", "stays", "bottom"),
        {"again": b"top", "bottom": b"bottom"},
    ),
    Shape(
        "hidden in the middle, there again on top",
        ({"d": T}, {"d": GONE}, {"d": B}),
        ("file", "toponly"),
        {"file": b"top"},
    ),
    Shape("over a file over a directory", ({"d": T}, {"d": MIDDLE}, {"d": B}), ("file", "toponly"), {"file": b"top"}),
    Shape("over a symlink", ({"d": T}, {"d": Symlink("e")}, {"e": B}), ("file", "toponly"), {"file": b"top"}, ("e/",)),
    Shape(
        "types of names in it clash",
        (
            {"d": Directory({"a": TOP, "b": Directory({"in": TOP}), "c": Symlink("a")})},
            {"d": Directory({"a": M, "b": MIDDLE, "c": M})},
            {"d": Directory({"a": BOTTOM, "b": B, "c": BOTTOM})},
        ),
        ("a", "b/", "c@"),
        {"a": b"top", "b/in": b"top"},
    ),
    # What a redirect leads to must be hidden, as an overlay does when it makes one: else it has two names.
    Shape(
        "redirected in the middle",
        ({}, {"d": redirected({"n": MIDDLE}, "old"), "old": GONE}, {"old": B}),
        ("n", "file", "bottomonly"),
        {"bottomonly": b"bottom"},
    ),
    Shape(
        "redirected on top, over one of its name",
        ({"d": redirected({}, "old"), "old": opaque(T.entries)}, {"d": M, "old": M}, {"old": B}),
        ("file", "middleonly", "bottomonly"),
        {"file": b"middle", "bottomonly": b"bottom"},
        ("old/",),
    ),
    Shape(
        "redirected twice",
        (
            {"d": redirected({"n": TOP}, "mid"), "mid": GONE},
            {"mid": redirected({"m": MIDDLE}, "low"), "low": GONE},
            {"low": B},
        ),
        ("n", "m", "file", "bottomonly"),
        {"m": b"middle", "file": b"bottom"},
    ),
    Shape(
        "redirected to an opaque one",
        ({"d": redirected({}, "old"), "old": GONE}, {"old": opaque(M.entries)}, {"old": B}),
        ("file", "middleonly"),
        {"file": b"middle"},
    ),
    Shape(
        "redirected to what is hidden",
        ({"d": redirected({"n": TOP}, "old")}, {"old": GONE}, {"old": B}),
        ("n",),
        {"n": b"top"},
    ),
    Shape(
        "redirected to a file",
        ({"d": redirected({"n": TOP}, "old")}, {"old": MIDDLE}, {"old": B}),
        ("n",),
        {"n": b"top"},
        ("old",),
    ),
)


def absolute(group: str, index: int) -> Shape:
    """A redirect from the root of the layers, into another directory, which has a redirect itself."""
    here = f"/{group}/set{FIRST_SET + index}"
    return Shape(
        "redirected absolutely, then relatively",
        (
            {"d": redirected({"n": TOP}, f"{here}/far/away"), "far": Directory({"away": GONE})},
            {"far": Directory({"away": redirected({"m": MIDDLE}, "older"), "older": GONE})},
            {"far": Directory({"away": M, "older": B})},
        ),
        ("n", "m", "file", "bottomonly"),
        {"n": b"top", "m": b"middle", "bottomonly": b"bottom"},
        ("far/",),
    )


XWHITEOUT = Shape(
    "names hidden by xattr in the middle",
    (
        {"d": Directory({"again": TOP})},
        {"d": opaque({"gone": GONE_BY_XATTR, "again": GONE_BY_XATTR, "stays": MIDDLE, "empty": File()}, b"x")},
        {"d": Directory({"gone": BOTTOM, "again": BOTTOM, "bottom": BOTTOM, "empty": BOTTOM})},
    ),
    ("again", "stays", "bottom", "empty"),
    {"again": b"top", "bottom": b"bottom", "empty": b""},
)


# What is done to each -----------------------------------------------------------------------------


def seen(path: Name, shape: Shape) -> Operations:
    return (
        lists(path, *shape.lists),
        *(holds(path / name, content) for name, content in shape.holds.items()),
        absent(path / "gone"),
    )


def looked_at(shape: Shape) -> Callable[[Names], Operations]:
    def script(n: Names) -> Operations:
        here = own(n)
        return (
            lists(here, "d/", *shape.others),
            *seen(here / "d", shape),
            seeks(here / "d", *shape.lists),
            listxattr(here / "d"),
            shows(here / "d", "d 0755 0:0"),
        )

    return script


def written_to(shape: Shape) -> Callable[[Names], Operations]:
    """Every file is copied up, names come into it, its attributes change."""

    def script(n: Names) -> Operations:
        path = own(n) / "d"
        return (
            *(open_file(path / name, W, writes=b"!") for name in shape.holds),
            *(holds(path / name, b"!" + content[1:]) for name, content in shape.holds.items()),
            OpenFile(path=path / "gone", flags=W | CREAT, mode=0o644, writes=b"back"),
            make_dir(path / "new"),
            lists(path / "new"),
            lists(path, "gone", "new/", *shape.lists),
            unlink(path / "gone"),
            rmdir(path / "new"),
            chmod(path, 0o700),
            set_times(path, None, 10**18),
            lists(path, *shape.lists),
        )

    return script


def removed(shape: Shape) -> Callable[[Names], Operations]:
    """Emptied name by name and removed; made again it is empty, whatever the layers hold."""

    def script(n: Names) -> Operations:
        here, path = own(n), own(n) / "d"
        children = [path / entry.rstrip("/@") for entry in shape.lists]
        return (
            *((rmdir(path, ENOTEMPTY),) if children else ()),
            *(
                rmtree(child) if entry.endswith("/") else unlink(child)
                for child, entry in zip(children, shape.lists, strict=True)
            ),
            *(absent(child) for child in children),
            lists(path),
            rmdir(path),
            absent_dir(path),
            lists(here, *shape.others),
            mkdir(path),
            lists(path),
            make_file(path / "file"),
            lists(path, "file"),
            rmtree(path),
            symlink("nowhere", path),
            lists(here, "d@", *shape.others),
            unlink(path),
            make_file(path),
            mkdir(path, EEXIST),
            shows(path, "f 0644 0:0 x1 0"),
        )

    return script


def renamed(shape: Shape) -> Callable[[Names], Operations]:
    """Away, into another directory, exchanged, and back; what it leaves behind does not show through."""

    def script(n: Names) -> Operations:
        here, path = own(n), own(n) / "d"
        other = here / "newdir"
        return (
            rename(path, here / "moved"),
            absent_dir(path),
            *seen(here / "moved", shape),
            make_dir(other),
            rename(here / "moved", other / "inside"),
            *seen(other / "inside", shape),
            lists(here, "newdir/", *shape.others),
            make_dir(path),
            lists(path),
            exchange(path, other / "inside"),
            *seen(path, shape),
            lists(other / "inside"),
            rename(other / "inside", path, ENOTEMPTY if shape.lists else 0),
            rename(other, path, ENOTEMPTY if shape.lists else 0),
            lists(here, "d/", *(("newdir/",) if shape.lists else ()), *shape.others),
        )

    return script


# Groups -------------------------------------------------------------------------------------------


def stacked(sets: Sequence[Sequence[Entries]]) -> tuple[Directory, ...]:
    """Three layers of the groups' sets, the topmost first."""
    return tuple(
        Directory({f"set{FIRST_SET + index}": Directory(layers[which]) for index, layers in enumerate(sets)})
        for which in range(3)
    )


def acted_on(name: str, sentence: str, act: Callable[[Shape], Callable[[Names], Operations]]) -> Group:
    shapes = (*SHAPES, absolute(name, len(SHAPES)))
    return Group(
        name,
        sentence,
        tuple(Scenario(shape.words, act(shape)) for shape in shapes),
        when=When.DIRECTORY_RENAMES,
        lowers=stacked([shape.layers for shape in shapes]),
    )


ACTIONS: tuple[tuple[str, Callable[[Shape], Callable[[Names], Operations]]], ...] = (
    ("looked at", looked_at),
    ("written to", written_to),
    ("renamed", renamed),
)


def emptied(n: Names) -> Operations:
    """Emptied it can be removed: Linux 6.18 takes the files that stand for whiteouts for entries (ENOTEMPTY)."""
    return removed(XWHITEOUT)(n)


GROUPS = (
    acted_on("layers-look", "Look at directories of three lower layers.", looked_at),
    acted_on("layers-write", "Change what is in directories of three lower layers.", written_to),
    acted_on("layers-remove", "Empty, remove and make again directories of three lower layers.", removed),
    acted_on("layers-rename", "Rename and exchange directories of three lower layers.", renamed),
    Group(
        "layers-xwhiteout",
        "Use a directory of three lower layers with whiteouts kept as xattrs.",
        tuple(Scenario(words, act(XWHITEOUT)) for words, act in ACTIONS),
        when=When.DIRECTORY_RENAMES,
        lowers=stacked([XWHITEOUT.layers] * len(ACTIONS)),
        needs=(XWHITEOUTS,),
    ),
    Group(
        "layers-xwhiteout-rmdir",
        "Empty and remove a directory of three lower layers with whiteouts kept as xattrs.",
        (Scenario("removed", emptied),),
        when=When.BY_NAME,
        lowers=stacked([XWHITEOUT.layers]),
        needs=(XWHITEOUTS,),
    ),
)
