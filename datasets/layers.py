# SPDX-License-Identifier: GPL-2.0-only
"""What several lower layers show together: a pure function over their trees, no I/O.

Follows Documentation/filesystems/overlayfs.rst: the topmost object of a name is shown; directories are
merged downwards until one is opaque or something that is no directory is met; a whiteout hides the name
in all layers below; a redirect says under which name a directory goes on below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from datasets.tree import Directory, File, HardLink, Node, Whiteout, link_target, walk

PRIVATE: Final = "trusted.overlay."
OPAQUE: Final = f"{PRIVATE}opaque"
REDIRECT: Final = f"{PRIVATE}redirect"
METACOPY: Final = f"{PRIVATE}metacopy"  # on a file: its data is that of the file below
WHITEOUT: Final = f"{PRIVATE}whiteout"  # on an empty file of a directory that is marked by OPAQUE "x"
ESCAPED: Final = f"{PRIVATE}overlay."  # shown with one "overlay." less, so that overlays can be nested

Part = tuple[int, Directory]
"""A directory with the number of the layer it is in."""


def merged(lowers: Sequence[Directory]) -> Directory:
    """What a union of the layer roots `lowers`, the topmost layer first, shows before anything is changed.

    Private xattrs are gone, escaped ones are shown as the union shows them. Raises ValueError for a hard
    link whose other name the union does not show at the same place: such a tree has no description.
    """
    return _described(_Merger(lowers).directory(list(enumerate(lowers))))


def populated(upper: Directory, lowers: Sequence[Directory]) -> Directory:
    """The same of a union whose upper layer holds something already: its directories know what is `below` them.

    Raises ValueError likewise.
    """
    layers = (upper, *lowers)
    return _described(_Merger(layers, above=True).directory(list(enumerate(layers))))


def _described(root: Directory) -> Directory:
    nodes = dict(walk(root))
    for path, node in nodes.items():
        if isinstance(node, HardLink) and isinstance(
            nodes.get(link_target(path, node)), HardLink | Directory | None
        ):
            raise ValueError(f"hard link {path} has lost the object it is a name of")
    return root


def relocated(tree: Directory, name: str, to: str) -> Directory:
    """The tree of the top directory `name`, for the same layer's top directory `to`: redirects lead into that."""
    if name == to:
        return tree
    entries = {
        entry: relocated(node, name, to) if isinstance(node, Directory) else node
        for entry, node in tree.entries.items()
    }
    redirect = os.fsdecode(tree.xattrs.get(REDIRECT, b""))
    if not redirect.startswith(f"/{name}/"):
        return replace(tree, entries=entries)
    moved = os.fsencode(f"/{to}/{redirect.removeprefix(f'/{name}/')}")
    return replace(tree, entries=entries, xattrs={**tree.xattrs, REDIRECT: moved})


def shown_xattrs(xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The xattrs of a layer's object as the union shows them."""
    shown = {}
    for name, value in xattrs.items():
        if name.startswith(ESCAPED):
            shown[PRIVATE + name.removeprefix(ESCAPED)] = value
        elif not name.startswith(PRIVATE):
            shown[name] = value
    return shown


class _Merger:
    def __init__(self, lowers: Sequence[Directory], *, above: bool = False) -> None:
        """`above`: the topmost layer is an upper one."""
        self.lowers = lowers
        self.above = above

    def directory(self, parts: Sequence[Part]) -> Directory:
        """The merge of some directories, the topmost first: it has the attributes of that one."""
        entries = {}
        for name in dict.fromkeys(name for _, part in parts for name in part.entries):
            node = self._name(name, parts)
            if node is not None:
                entries[name] = node
        layer, top = parts[0]
        below = self.directory(parts[1:]) if self.above and layer == 0 and len(parts) > 1 else None
        return replace(top, entries=entries, xattrs=shown_xattrs(top.xattrs), parts=len(parts), below=below)

    def _name(self, name: str, parts: Sequence[Part]) -> Node | None:
        """What the merge of `parts` shows under `name`; None if nothing."""
        found: list[Part] = []
        hollow: File | None = None  # metadata whose data is further down
        where, below = name, list(parts)
        while below:
            layer, base = below.pop(0)
            node = self._lookup(base, where)
            if node is None:
                continue
            if isinstance(node, Directory) and hollow is None:
                found.append((layer, node))
                if node.xattrs.get(OPAQUE) == b"y":
                    break
            elif isinstance(node, File) and METACOPY in node.xattrs and not found:
                hollow = hollow or node
            elif found or is_whiteout(node):
                break
            else:
                return _shown(node, hollow)
            redirect = node.xattrs.get(REDIRECT)
            if redirect is not None:
                where, below = self._redirected(where, os.fsdecode(redirect), layer, below)
        if hollow:
            raise ValueError(f"{name} has metadata, and no data below")
        return self.directory(found) if found else None

    def _redirected(self, where: str, redirect: str, layer: int, below: list[Part]) -> tuple[str, list[Part]]:
        """The name and the places to go on with: an absolute redirect starts at the roots of the layers."""
        if redirect.startswith("/"):
            return redirect, list(enumerate(self.lowers))[layer + 1 :]
        return os.path.join(os.path.dirname(where), redirect), below

    def _lookup(self, base: Directory, where: str) -> Node | None:
        """One layer's node of the name, or of the absolute path of a redirect; None if it has none."""
        node: Node | None = base
        for name in where.strip("/").split("/"):
            if not isinstance(node, Directory):
                return None
            if node is not base and (REDIRECT in node.xattrs or node.xattrs.get(OPAQUE) == b"y"):
                raise ValueError(f"a redirect to {where} through a directory with a mark of its own")
            node = node.entries.get(name)
        return node


def is_whiteout(node: Node) -> bool:
    """Whether a layer's object hides the name in all layers below."""
    if isinstance(node, File) and not node.content:
        return WHITEOUT in node.xattrs
    return isinstance(node, Whiteout)


def _shown(node: Node, hollow: File | None) -> Node:
    """A non-directory as the union shows it, with the metadata of `hollow` if that is above its data."""
    if hollow:
        if not isinstance(node, File):
            raise ValueError("metadata of a file above what is no file")
        node = replace(hollow, content=node.content)
    if isinstance(node, HardLink | Whiteout) or not node.xattrs:
        return node
    return replace(node, xattrs=shown_xattrs(node.xattrs))
