# SPDX-License-Identifier: GPL-2.0-only
"""What must happen: a pure in-memory tree with the errno rules of Linux, no I/O.

The model predicts an operation's result and keeps the tree as it must look afterwards, and what an
overlay must have done to get there: which objects were copied up, where a whiteout or an opaque
directory is needed. `lower` of a directory is the lower directory it merges with; it is None for a
directory made on upper and, after detach, for all (contract D4, D9).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from datasets import tree
from union.inodes import (
    DirectoryInode,
    Handle,
    Inode,
    LinkInode,
    Place,
    descend,
    directories,
    drop_privileges,
    grow,
    grow_file,
    settle,
    sink,
)
from union.operations import Operation, Result
from union.rules import RULES
from union.rules.common import SEARCH, Refusal, check_create, copy_up, may, touch_directory, uid_of
from union.rules.inheritance import inherit

NAME_MAX = 255  # bytes
MAX_LINKS = 40  # symlinks followed in one walk before ELOOP


class Model:
    """The union as it must be."""

    def __init__(
        self,
        lower: tree.Directory,
        *,
        populated: tree.Directory | None = None,
        upper: Mapping[str, tree.File] | None = None,
        redirects: bool = True,
        indexed: bool = False,
        index_all: bool = False,
        renumbers: bool = False,
    ) -> None:
        """Start from the lower tree and the files that the root of every new upper layer holds already.

        If the upper layer has more, that is `populated`, and `lower` is what `datasets.layers.populated` says.
        `redirects` says whether directory renames are enabled, `indexed` whether hard-link groups of the
        lower survive copy-up, `index_all` whether every object that is copied up has an index entry,
        `renumbers` whether an object may become another one to its users when it is copied up (D2).
        """
        root = grow(lower)
        if populated:
            settle(root, lower, populated)
        self.root = root
        self.redirects = redirects
        self.indexed = indexed
        self.index_all = index_all
        self.renumbers = renumbers
        self._upper = dict(upper or {})
        self._below_root = root.lower
        self._lay_upper()
        self.held: dict[str, Handle] = {}

    # queries --------------------------------------------------------------------------------------

    def find(self, path: str) -> Place | None:
        """What lstat(`path`) must find; None when a directory above it is missing or is none."""
        try:
            return self.walk_to(path.rstrip("/"), 0, follow=False)
        except Refusal:
            return None

    def missing(self, path: str) -> int:
        """The errno that lstat(`path`) must fail with; 0 if there is something."""
        try:
            return 0 if self.walk_to(path.rstrip("/"), 0, follow=False).inode else errno.ENOENT
        except Refusal as refusal:
            return refusal.number

    def target(self, path: str) -> str | None:
        """The path one step further if `path` is a symlink, relative to the root; None if it leads out of it."""
        place = self.find(path)
        if place is None or not isinstance(place.inode, LinkInode):
            return None
        target = os.path.normpath(os.path.join(os.path.dirname(path), place.inode.target))
        return None if target.startswith(("/", "../")) or target == ".." else target

    def is_straight(self, path: str) -> bool:
        """Whether no symlink is followed on the way to the last name: the layers have it at the same path then."""
        directory: Inode | None = self.root
        for part in path.split("/")[:-1]:
            directory = directory.entries.get(part) if isinstance(directory, DirectoryInode) else None
        return isinstance(directory, DirectoryInode)

    def places(self, top: str = "") -> Iterator[tuple[str, Place]]:
        """Every place below `top` (itself included), parents first."""
        place = self.find(top) if top else Place([self.root], ".", self.root, False)
        if place is not None and place.inode is not None:
            yield from descend(top, place)

    def walk(self, top: str = "") -> Iterator[tuple[str, Inode]]:
        """Every object below `top` (itself included), parents first."""
        for path, place in self.places(top):
            assert place.inode is not None
            yield path, place.inode

    # events ---------------------------------------------------------------------------------------

    def copy_up_all(self, owner: tuple[int, int] | None) -> None:
        """Everything was copied up; `owner` if that changed every owner (chown -R), with what else chown does."""
        for _, place in list(self.places()):
            inode = copy_up(place)
            if owner is not None:
                inode.uid, inode.gid = owner
                if not isinstance(inode, DirectoryInode):
                    drop_privileges(inode)

    def detach(self) -> None:
        """No directory needs its lower any more."""
        for _, inode in self.walk():
            if isinstance(inode, DirectoryInode):
                inode.opaque = inode.opaque or inode.lower is not None
                inode.lower = None

    def remounted(self) -> None:
        """The union was mounted again: its root may need its lower once more, until it is listed (D11)."""
        if self.root.opaque:
            self.root.lower, self.root.opaque = self._below_root, False

    def rotated(self) -> None:
        """The upper layer has become the topmost lower one, and a new upper is on top of it."""
        if self.indexed:
            self._forget_index()
        self._below_root = sink(self.root)
        self._lay_upper()

    def _forget_index(self) -> None:
        """The index of the old upper is not known any more: names that it joined to a copied-up object lead to
        the object below again.
        """
        joined: dict[Inode, int] = {}
        for directory in directories(self.root):
            for name, inode in directory.entries.items():
                if inode.beneath is not None and (id(directory), name) in inode.lower_names:
                    directory.entries[name] = inode.beneath
                elif inode.beneath is not None:
                    joined[inode] = joined.get(inode, 0) + 1
        for inode, names in joined.items():
            inode.nlink, inode.beneath = names + 1, None  # the index holds one more

    def _lay_upper(self) -> None:
        self.root.in_upper = True
        for name, node in self._upper.items():
            self.root.entries[name] = grow_file(node)
            self.root.entries[name].in_upper = True
        for directory in directories(self.root):
            for name, inode in directory.entries.items():
                if inode.nlink > 1 and not isinstance(inode, DirectoryInode) and not inode.in_upper:
                    inode.breaks = not self.indexed
                    if self.indexed:
                        inode.lower_names.add((id(directory), name))

    def release(self) -> None:
        """The scenario is over: nothing is held any more."""
        self.held.clear()

    def apply(self, operation: Operation) -> Result:
        """Predict `operation` and, when it succeeds, change the tree accordingly."""
        try:
            return Result(0, RULES[type(operation)](self, operation))
        except Refusal as refusal:
            return Result(refusal.number)

    # walking --------------------------------------------------------------------------------------

    def walk_to(
        self, path: str, uid: int, *, follow: bool, above: list[DirectoryInode] | None = None, links: int = 0
    ) -> Place:
        """Resolve `path`. The last name is followed if `follow`; it may be absent (inode None)."""
        above = [self.root] if above is None else above
        parts = [part for part in path.split("/") if part not in ("", ".")]
        slash = path.endswith("/")
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if not may(above[-1], uid, SEARCH):
                raise Refusal(errno.EACCES)
            if len(part) > NAME_MAX // 4 and len(os.fsencode(part)) > NAME_MAX:
                raise Refusal(errno.ENAMETOOLONG)
            if part == "..":
                above = above[:-1] or above
                if last:
                    return Place(above[:-1] or above, ".", above[-1], slash)
                continue
            child = above[-1].entries.get(part)
            if last and not (follow and isinstance(child, LinkInode)):
                return Place(above, part, child, slash)
            if isinstance(child, LinkInode):
                if links >= MAX_LINKS:
                    raise Refusal(errno.ELOOP)
                place = self.walk_to(child.target, uid, follow=True, above=list(above), links=links + 1)
                if last:
                    place.slash = place.slash or slash
                    return place
                above, child = place.above, place.inode
            if child is None:
                raise Refusal(errno.ENOENT)
            if not isinstance(child, DirectoryInode):
                raise Refusal(errno.ENOTDIR)
            above = [*above, child]
        return Place(above[:-1] or above, ".", above[-1], slash)

    def existing(self, operation: Operation, *, follow: bool) -> tuple[Place, Inode]:
        """The object `operation.path` names; a terminal slash follows and asks for a directory."""
        path = str(operation.path)
        place = self.walk_to(path, uid_of(operation), follow=follow or path.endswith("/"))
        if place.inode is None:
            raise Refusal(errno.ENOENT)
        if place.slash and not isinstance(place.inode, DirectoryInode):
            raise Refusal(errno.ENOTDIR)
        return place, place.inode

    def create(self, place: Place, inode: Inode, uid: int, asked: int | None = None) -> Inode:
        """Make `inode` the object at the absent `place`, owned by `uid`; raises Refusal.

        `asked` is the mode before the umask took its bits, which a default ACL needs to know.
        """
        check_create(place, uid)
        inode.uid = inode.gid = uid
        inherit(place.parent, inode, uid, inode.mode if asked is None else asked)
        inode.in_upper = True
        place.parent.entries[place.name] = inode
        touch_directory(place)
        return inode
