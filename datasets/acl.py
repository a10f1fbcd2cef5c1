# SPDX-License-Identifier: GPL-2.0-only
"""POSIX ACLs as values: written as text (acl(5)), stored as the kernel's xattrs hold them. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"

XFS_NAMES: Final = frozenset({"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"})
"""How XFS lists its ACLs besides, to root alone."""

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_VERSION: Final = 2
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_TAGS: Final = {"u": (USER_OBJ, USER), "g": (GROUP_OBJ, GROUP), "m": (MASK, MASK), "o": (OTHER, OTHER)}


class Entry(NamedTuple):
    """One line of an ACL: whom it is about (`id` for USER and GROUP alone) and rwx as a number."""

    tag: int
    permissions: int
    id: int = _NO_ID


@dataclass(frozen=True, slots=True)
class Acl:
    """An ACL, its entries in the kernel's order."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, text: str) -> Acl:
        """From its short text form, in order: `u::rw-,u:1:r--,g::r--,m::rw-,o::---`."""
        return cls(tuple(_entries(text)))

    @classmethod
    def parse(cls, raw: bytes) -> Acl:
        """From the value of its xattr; raises ValueError."""
        if len(raw) < _HEADER.size or (len(raw) - _HEADER.size) % _ENTRY.size:
            raise ValueError(f"an ACL has no {len(raw)} bytes")
        return cls(tuple(Entry(*values) for values in _ENTRY.iter_unpack(raw[_HEADER.size :])))

    @property
    def raw(self) -> bytes:
        """The value of its xattr."""
        return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in self.entries)

    @property
    def valid(self) -> bool:
        """Whether the kernel takes it: entries in order, one of each that must be there, a mask if one is needed."""
        tags = [entry.tag for entry in self.entries]
        once = (USER_OBJ, GROUP_OBJ, OTHER)
        named = USER in tags or GROUP in tags
        return (
            tags == sorted(tags)
            and all(tags.count(tag) == 1 for tag in once)
            and tags.count(MASK) <= 1
            and (not named or MASK in tags)
        )

    @property
    def minimal(self) -> bool:
        """Whether it says no more than permission bits do: then the kernel keeps only those."""
        return all(entry.tag in (USER_OBJ, GROUP_OBJ, OTHER) for entry in self.entries)

    @property
    def mode(self) -> int:
        """The nine permission bits that show it; the group's are the mask if there is one."""
        of = {entry.tag: entry.permissions for entry in self.entries}
        return of[USER_OBJ] << 6 | of.get(MASK, of[GROUP_OBJ]) << 3 | of[OTHER]

    def with_mode(self, mode: int) -> Acl:
        """The ACL after chmod to `mode`."""
        masked = any(entry.tag == MASK for entry in self.entries)
        bits = {USER_OBJ: mode >> 6 & 7, MASK if masked else GROUP_OBJ: mode >> 3 & 7, OTHER: mode & 7}
        return Acl(tuple(
            entry._replace(permissions=bits.get(entry.tag, entry.permissions)) for entry in self.entries
        ))

    def inherited(self, asked: int) -> Acl:
        """The access ACL of an object made with mode `asked` in a directory whose default ACL this is."""
        return self.with_mode(self.mode & asked)

    def permits(self, owner: bool, uid: int, gid: int, group: int, access: int) -> bool:
        """Whether uid:gid may `access` (rwx as a number) an object of group `group`, as its owner if `owner`."""
        of = {entry.tag: entry.permissions for entry in self.entries}
        if owner:
            return of[USER_OBJ] & access == access
        mask = of.get(MASK, 7)
        for entry in self.entries:
            if entry.tag == USER and entry.id == uid:
                return entry.permissions & mask & access == access
        groups = [
            entry.permissions
            for entry in self.entries
            if (entry.tag == GROUP_OBJ and gid == group) or (entry.tag == GROUP and gid == entry.id)
        ]
        if groups:
            return any(permissions & access == access for permissions in groups) and mask & access == access
        return of[OTHER] & access == access


def acl(text: str) -> bytes:
    """The xattr's value of the ACL that `text` writes."""
    return Acl.of(text).raw


def _entries(text: str) -> Iterator[Entry]:
    for word in text.split(","):
        kind, who, letters = word.split(":")
        own, named = _TAGS[kind]
        permissions = sum(bit for letter, bit in zip("rwx", (4, 2, 1), strict=True) if letter in letters)
        yield Entry(named, permissions, int(who)) if who else Entry(own, permissions)
