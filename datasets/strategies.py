# SPDX-License-Identifier: GPL-2.0-only
"""Trees for hypothesis to draw: few names, so that those of several layers meet; every type, odd sizes and owners."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping
from functools import cache
from typing import Final

from hypothesis import strategies as st

from datasets.acl import ACCESS, acl
from datasets.layers import METACOPY, OPAQUE, REDIRECT, merged, populated
from datasets.tree import Directory, File, HardLink, Node, Special, Symlink, Whiteout, walk

NAMES: Final = ("a", "b", "c")
LONG: Final = "n" * 100
"""Of no directory: a path of 256 bytes is too long for a redirect, and moving it gives EXDEV then."""
ODD_NAMES: Final = ("a b", "\udcff", "-", LONG)
CONTENTS: Final = (b"", b"lower", b"x" * 4096, b"y" * 70_000, bytes(200_000) + b"end")
MODES: Final = (0o644, 0o600, 0o755, 0o444, 0o4755, 0o2711)
# None that is sticky and writable by all: machines differ in what they protect there (proc_sys_fs(5)).
DIRECTORY_MODES: Final = (0o755, 0o700, 0o777, 0o1755, 0o2775)
OWNERS: Final = ((0, 0), (1, 1), (3, 4))
XATTRS: Final[tuple[Mapping[str, bytes], ...]] = ({}, {"user.a": b"1"}, {"user.a": b"", "trusted.b": b"x" * 300})
_ACL: Final = acl("u::rw-,u:1:r--,g::r--,m::r--,o::r--")

# Values ready made, the simplest first: to draw one takes one choice, where its parts would take six.
LEAVES: Final[tuple[Node, ...]] = (
    *(File(content) for content in CONTENTS),
    *(File(b"lower", mode) for mode in MODES),
    *(File(b"lower", 0o644, uid, gid) for uid, gid in OWNERS[1:]),
    *(File(b"lower", xattrs=xattrs) for xattrs in XATTRS[1:]),
    File(CONTENTS[2], 0o4755, 3, 4, XATTRS[2]),
    File(b"lower", xattrs={**XATTRS[1], ACCESS: _ACL}),
    # Never absolute: the union's users would leave it, for a file system that is nobody's to write to.
    *(Symlink(target) for target in ("a", "b", "../a", "a/b", ".", "t" * 100)),
    Symlink("c", 3, 4),
    *(Special(kind, 0o644) for kind in (stat.S_IFIFO, stat.S_IFSOCK)),
    *(Special(kind, 0o644, 3, 4, 0x105) for kind in (stat.S_IFCHR, stat.S_IFBLK)),
)
SHAPES: Final = (
    (0o755, (0, 0), XATTRS[0]),
    *((mode, (0, 0), XATTRS[0]) for mode in DIRECTORY_MODES[1:]),
    *((0o755, owner, XATTRS[0]) for owner in OWNERS[1:]),
    *((0o755, (0, 0), xattrs) for xattrs in XATTRS[1:]),
    (0o2775, OWNERS[2], XATTRS[2]),
)
"""Mode, owner and xattrs of directories."""

names = st.sampled_from((*NAMES, *NAMES, *NAMES, *ODD_NAMES))
leaves: st.SearchStrategy[Node] = st.sampled_from(LEAVES)
_shapes = st.sampled_from(SHAPES)


@st.composite
def directories(draw: st.DrawFn, children: st.SearchStrategy[Node], least: int = 0) -> Directory:
    """A directory of `least` to four `children`.

    Not by `builds`: hypothesis would print one that fails as calls in calls, which takes it minutes if they are deep.
    """
    chosen = draw(st.lists(names, unique=True, min_size=least, max_size=4))
    entries = {name: draw(leaves if name == LONG else children) for name in chosen}
    mode, owner, xattrs = draw(_shapes)
    return Directory(entries, mode, *owner, xattrs)


def _deep(depth: int) -> st.SearchStrategy[Node]:
    return leaves if depth == 0 else st.one_of(leaves, _level(depth))


@cache
def _level(depth: int) -> st.SearchStrategy[Directory]:
    return directories(st.deferred(lambda: _deep(depth - 1)))


@st.composite
def trees(draw: st.DrawFn, depth: int = 4, links: bool = True) -> Directory:
    """A tree of up to `depth` levels below its top; with `links` some of its objects have further names."""
    tree = draw(directories(_deep(depth - 1), least=draw(st.sampled_from((1, 2, 0)))))
    return _linked(draw, tree) if links and draw(st.booleans()) else tree


def _linked(draw: st.DrawFn, tree: Directory) -> Directory:
    """The tree with further names of one object, in its top directory, which come last."""
    objects = [path for path, node in walk(tree) if not isinstance(node, Directory | HardLink)]
    free = [name for name in NAMES if name not in tree.entries]
    if not objects or not free:
        return tree
    target = draw(st.sampled_from(objects))
    entries = {**tree.entries, free[0]: HardLink(posixpath.normpath(target))}
    return Directory(entries, tree.mode, tree.uid, tree.gid, tree.xattrs)


def _above(draw: st.DrawFn, tree: Directory, below: Node | None, top: bool = True) -> Directory:
    """A layer above what shows `below` in this place: names of it may be whited out, directories be opaque.

    No layer has a whiteout of nothing: an overlay makes none, and one that is in a layer all the same is listed.
    """
    opaque = not top and draw(st.integers(0, 4)) == 4
    under: Mapping[str, Node] = below.entries if isinstance(below, Directory) and not opaque else {}
    entries: dict[str, Node] = {}
    for name, node in tree.entries.items():
        if isinstance(node, Directory):
            entries[name] = _above(draw, node, under.get(name), False)
        else:
            entries[name] = Whiteout() if name in under and draw(st.booleans()) else node
    return Directory(entries, tree.mode, tree.uid, tree.gid, {**tree.xattrs, **({OPAQUE: b"y"} if opaque else {})})


@st.composite
def stacks(draw: st.DrawFn, most: int = 3, depth: int = 4) -> tuple[Directory, ...]:
    """One to `most` lower layers, the topmost first, of which what they show together can be told."""
    count = draw(st.integers(1, most))
    # A layer above could take the object away from a further name: such a tree has no description.
    layers: tuple[Directory, ...] = (draw(trees(depth=depth, links=count == 1)),)
    for _ in range(count - 1):
        layers = (_above(draw, draw(trees(depth=depth, links=False)), merged(layers)), *layers)
    return layers


@st.composite
def uppers(draw: st.DrawFn, lowers: tuple[Directory, ...], *, redirects: bool, metacopies: bool) -> Directory:
    """What an upper layer above `lowers` may have from the start, as an overlay with these features leaves it."""
    below = merged(lowers)
    tree = _above(draw, draw(trees(links=False)), below)
    return _marked(draw, tree, below, redirects, metacopies)


def _marked(draw: st.DrawFn, tree: Directory, below: Directory, redirects: bool, metacopies: bool) -> Directory:
    """The tree with some of what is below it moved in its directory, or copied up without its data."""
    entries = dict(tree.entries)
    free = [name for name in NAMES if name not in below.entries and name not in tree.entries]
    for name, node in below.entries.items():
        above = tree.entries.get(name)
        if isinstance(node, Directory) and isinstance(above, Directory) and OPAQUE not in above.xattrs:
            entries[name] = _marked(draw, above, node, redirects, metacopies)
        elif above is not None:
            continue
        elif isinstance(node, Directory) and redirects and free and draw(st.booleans()):
            xattrs = {**node.xattrs, REDIRECT: os.fsencode(name)}
            entries |= {name: Whiteout(), free.pop(): Directory({}, node.mode, node.uid, node.gid, xattrs)}
        elif isinstance(node, File) and metacopies and draw(st.booleans()):
            # As a copy-up without data leaves it: with all of its size, and nothing in it.
            hollow = {**node.xattrs, METACOPY: b""}
            entries[name] = File(bytes(len(node.content)), 0o640 if ACCESS not in hollow else node.mode, 3, 4, hollow)
    return Directory(entries, tree.mode, tree.uid, tree.gid, tree.xattrs)


OPTIONS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (),
    (("redirect_dir", "off"),),
    (("redirect_dir", "on"), ("metacopy", "on")),
    (("index", "on"),),
    (("index", "on"), ("metacopy", "on"), ("redirect_dir", "on")),
    (("userxattr", ""),),
    (("volatile", ""),),
)
"""Mixes of the options that detaching must get along with (D18)."""


@st.composite
def populated_stacks(
    draw: st.DrawFn, options: tuple[tuple[str, str], ...]
) -> tuple[tuple[Directory, ...], Directory | None]:
    """Lower layers and what the upper layer has above them, for a union with these options."""
    on = dict(options)
    if "userxattr" in on:  # the marks have other names then, those of several layers too
        return draw(stacks(most=1)), None
    lowers = draw(stacks())
    if any(isinstance(node, HardLink) for _, node in walk(merged(lowers))):
        return lowers, None  # of a link whose other name is covered there is no description
    upper = draw(uppers(lowers, redirects="redirect_dir" not in on, metacopies=on.get("metacopy") == "on"))
    populated(upper, lowers)
    return lowers, upper
