# SPDX-License-Identifier: GPL-2.0-only
"""Trees for hypothesis to draw: few names, so that those of several layers meet; every type, odd sizes and owners."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Mapping
from typing import Final

from hypothesis import strategies as st

from datasets.acl import ACCESS, acl
from datasets.layers import OPAQUE, merged
from datasets.tree import Directory, File, HardLink, Node, Special, Symlink, Whiteout, walk

NAMES: Final = ("a", "b", "c")
ODD_NAMES: Final = ("a b", "\udcff", "-", "n" * 255)
CONTENTS: Final = (b"", b"lower", b"x" * 4096, b"y" * 70_000, bytes(200_000) + b"end")
MODES: Final = (0o644, 0o600, 0o755, 0o444, 0o4755, 0o2711)
# None that is sticky and writable by all: machines differ in what they protect there (proc_sys_fs(5)).
DIRECTORY_MODES: Final = (0o755, 0o700, 0o777, 0o1755, 0o2775)
OWNERS: Final = ((0, 0), (1, 1), (3, 4))
XATTRS: Final[tuple[Mapping[str, bytes], ...]] = ({}, {"user.a": b"1"}, {"user.a": b"", "trusted.b": b"x" * 300})
_ACL: Final = acl("u::rw-,u:1:r--,g::r--,m::r--,o::r--")

owners = st.sampled_from(OWNERS)
names = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(ODD_NAMES))
# Never absolute: the union's users would leave it, for a file system that is nobody's to write to.
targets = st.one_of(names, names.map(lambda name: f"../{name}"), st.just("t" * 100))


@st.composite
def files(draw: st.DrawFn) -> File:
    """A file of any size, mode and owner."""
    uid, gid = draw(owners)
    xattrs: Mapping[str, bytes] = draw(st.sampled_from(XATTRS))
    mode = draw(st.sampled_from(MODES))
    if mode == 0o644 and draw(st.booleans()):
        xattrs = {**xattrs, ACCESS: _ACL}
    return File(draw(st.sampled_from(CONTENTS)), mode, uid, gid, xattrs)


@st.composite
def symlinks(draw: st.DrawFn) -> Symlink:
    """A symlink, dangling as a rule."""
    uid, gid = draw(owners)
    return Symlink(draw(targets), uid, gid)


@st.composite
def specials(draw: st.DrawFn) -> Special:
    """A fifo, a socket or a device."""
    uid, gid = draw(owners)
    kind = draw(st.sampled_from((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)))
    return Special(kind, 0o644, uid, gid, 0 if kind in (stat.S_IFIFO, stat.S_IFSOCK) else 0x105)


def _directory(entries: dict[str, Node], mode: int, owner: tuple[int, int], xattrs: Mapping[str, bytes]) -> Directory:
    return Directory(entries, mode, *owner, xattrs)


def directories(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Directory]:
    """A directory of up to four `children`."""
    return st.builds(
        _directory,
        st.dictionaries(names, children, max_size=4),
        st.sampled_from(DIRECTORY_MODES),
        owners,
        st.sampled_from(XATTRS),
    )


_leaves: st.SearchStrategy[Node] = st.one_of(files(), files(), symlinks(), specials())


def _deep(depth: int) -> st.SearchStrategy[Node]:
    return _leaves if depth == 0 else st.one_of(_leaves, directories(st.deferred(lambda: _deep(depth - 1))))


@st.composite
def trees(draw: st.DrawFn, depth: int = 4, links: bool = True) -> Directory:
    """A tree of up to `depth` levels below its top; with `links` some of its objects have further names."""
    tree = draw(directories(_deep(depth - 1)))
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
    under: Mapping[str, Node] = below.entries if isinstance(below, Directory) else {}
    entries: dict[str, Node] = {}
    for name, node in tree.entries.items():
        if isinstance(node, Directory):
            entries[name] = _above(draw, node, under.get(name), False)
        else:
            entries[name] = Whiteout() if name in under and draw(st.booleans()) else node
    hides = any(isinstance(node, Whiteout) for node in entries.values())
    opaque = not (top or hides) and draw(st.integers(0, 4)) == 4
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
