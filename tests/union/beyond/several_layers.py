# SPDX-License-Identifier: GPL-2.0-only
"""Three lower layers: what merges, what hides, what leads elsewhere, and what changes make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EEXIST, EISDIR, ENOTDIR, ENOTEMPTY

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
    getxattr,
    lists,
    listxattr,
    make_dir,
    make_file,
    mkdir,
    open_file,
    readlink,
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


# Names that are no directories --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clash:
    """What three layers hold as `n`, topmost first, and what the union shows for it."""

    words: str
    layers: tuple[Node | None, Node | None, Node | None]
    mark: str
    looks: str


CLASHES: tuple[Clash, ...] = (
    Clash("file in all layers", (TOP, MIDDLE, BOTTOM), "", "f 0644 0:0 x1 3"),
    Clash("file in the lower two", (None, MIDDLE, BOTTOM), "", "f 0644 0:0 x1 6"),
    Clash("file over directories", (TOP, M, B), "", "f 0644 0:0 x1 3"),
    Clash("file over a whiteout over a directory", (TOP, GONE, B), "", "f 0644 0:0 x1 3"),
    Clash("file between directories", (None, MIDDLE, B), "", "f 0644 0:0 x1 6"),
    Clash("symlink over a directory", (Symlink("gone"), M, B), "@", "l 0777 0:0 x1 4"),
    Clash("symlink over a file over a directory", (None, Symlink("gone"), BOTTOM), "@", "l 0777 0:0 x1 4"),
)

HIDDEN: tuple[tuple[str, tuple[Node | None, Node | None, Node | None]], ...] = (
    ("directory hidden in the middle", (None, GONE, B)),
    ("file hidden on top", (GONE, MIDDLE, BOTTOM)),
    ("hidden in all layers", (GONE, GONE, GONE)),
    ("hidden where nothing is", (None, GONE, None)),
)


def clashed(clash: Clash) -> Callable[[Names], Operations]:
    """Looked at, copied up, moved away, removed: what the layers below hold never shows."""

    def script(n: Names) -> Operations:
        here, path = own(n), own(n) / "n"
        follow = clash.mark != "@"
        return (
            lists(here, "n" + clash.mark, "other"),
            shows(path, clash.looks),
            set_times(path, None, 10**18, follow=follow),
            shows(path, clash.looks),
            make_dir(path, 0o755, EEXIST),
            rmdir(path, ENOTDIR),
            rename(path, here / "away"),
            absent(path),
            lists(here, "away" + clash.mark, "other"),
            make_dir(path),
            lists(path),
            rename(here / "away", path, EISDIR),
            rmdir(path),
            rename(here / "away", path),
            shows(path, clash.looks),
            unlink(path),
            absent(path),
            lists(here, "other"),
            rename(here / "other", path),
            holds(path, b"other"),
            lists(here, "n"),
        )

    return script


def hidden(n: Names) -> Operations:
    """Nothing is there, and what is made there has nothing below."""
    here, path = own(n), own(n) / "n"
    return (
        lists(here, "other"),
        absent(path),
        mkdir(path),
        lists(path),
        rmdir(path),
        rename(here / "other", path),
        holds(path, b"other"),
        rename(path, here / "other"),
        make_dir(path),
        make_file(path / "file"),
        lists(path, "file"),
        rmtree(path),
        symlink("other", path),
        readlink(path, reads="other"),
        lists(here, "n@", "other"),
    )


def attributes(n: Names) -> Operations:
    """Mode, times and xattrs are those of the topmost object, and stay so when it is copied up."""
    path = own(n) / "d"
    return (
        shows(path, "d 0750 0:0"),
        listxattr(path, "user.top", "user.common"),
        getxattr(path, "user.common", b"top"),
        shows(path / "f", "f 0640 0:0 x1 3"),
        listxattr(path / "f", "user.top"),
        make_file(path / "new"),
        listxattr(path, "user.top", "user.common"),
        shows(path, "d 0750 0:0"),
        set_times(path / "f", None, 10**18),
        listxattr(path / "f", "user.top"),
        rename(path / "f", path / "g"),
        absent(path / "f"),
        lists(path, "g", "h", "new"),
    )


def attributed(words: str, mode: int) -> Entries:
    xattrs = {f"user.{words}": b"1", "user.common": words.encode()}
    files: dict[str, Node] = {"f": File(words.encode(), mode & 0o666, xattrs={f"user.{words}": b"1"})}
    if words == "bottom":
        files["h"] = File(b"h")
    return {"d": Directory(files, mode, xattrs=xattrs, mtime=10**9 * (10**9 + mode))}


ATTRIBUTES: tuple[Entries, ...] = (attributed("top", 0o750), attributed("middle", 0o777), attributed("bottom", 0o705))


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


def named(*nodes: Node | None) -> list[Entries]:
    """Layers that hold the nodes as `n`, the lowest one another file too."""
    layers: list[dict[str, Node]] = [{} if node is None else {"n": node} for node in nodes]
    layers[-1]["other"] = File(b"other")
    return list(layers)


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
    Group(
        "layers-clash",
        "Use names that are no directories, or nothing, in three lower layers.",
        (
            *(Scenario(clash.words, clashed(clash)) for clash in CLASHES),
            *(Scenario(words, hidden) for words, _ in HIDDEN),
            Scenario("attributes of the topmost", attributes),
        ),
        lowers=stacked([
            *(named(*clash.layers) for clash in CLASHES), *(named(*nodes) for _, nodes in HIDDEN), ATTRIBUTES,
        ]),
    ),
)  # fmt: skip
