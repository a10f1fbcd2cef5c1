# SPDX-License-Identifier: GPL-2.0-only
"""Where model and kernel meet: what must be there against what was seen, name by name.

Every check answers with complaints, one line each; no complaint means the name is as it must be.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from union.inodes import (
    CAPABILITY,
    DirectoryInode,
    FileInode,
    Inode,
    LinkInode,
    Place,
    SpecialInode,
    Times,
    needs_opaque,
    needs_whiteout,
)
from union.model import Model
from union.namecalls import KEPT_FLAGS
from union.operations import ANYTHING, Link, Operation, Result, TwoNames
from union.syscalls import Dirent
from union.witness import OVERLAY_XATTRS, Observation, UpperState, Witness

CLOCK_REALTIME_COARSE = 5  # clock_gettime(2); the time module lacks it
_LINKS = re.compile(r" x([1-9]\d*) ")  # in the words of a Looks
WHITEOUT_TYPES = {0, 2}  # d_type of a whiteout that leaks into a listing: unknown or character device


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """What st_dev may be (parity 4.2, 4.3; D3): one device for all, or pseudo devices for non-directories.

    `directory` is the union's own device, `real` are those of the layers' filesystems. With `free` the device
    of a non-directory may be any: numbers of a nested overlay do not fit into the mapping. `shifts` says that
    a rotation changes which filesystem is which in the mapping of inode numbers.
    """

    same: bool
    directory: int
    real: frozenset[int]
    free: bool = False
    shifts: bool = False

    def complaints(self, path: str, is_directory: bool, device: int) -> Iterator[str]:
        if is_directory or self.same:
            if device != self.directory:
                yield f"{path}: st_dev {device:#x} instead of the union's {self.directory:#x}"
        elif self.free:
            return
        elif device == self.directory:
            yield f"{path}: st_dev is that of a directory although the layers' inode numbers are not mapped"
        elif device in self.real:
            yield f"{path}: st_dev {device:#x} is that of a layer's filesystem"


class Look(IntEnum):
    """How closely the whole tree is looked at, each including the ones before; system calls cost in a guest."""

    GLANCE = 0  # lstat of every object
    LISTED = 1  # every directory is listed
    CONTENT = 2  # content, symlink targets, xattrs
    WHOLE = 3  # the upper layer


@dataclass(slots=True)
class Seen:
    """What an object looked like when it was last looked at; None is what it need not be any more."""

    device: int | None
    number: int | None
    version: int
    mtime: int
    in_upper: bool


class Judge:
    """Compares the model with what the witness sees, and remembers what must not change."""

    def __init__(
        self,
        model: Model,
        witness: Witness,
        devices: DeviceRule,
        *,
        renumbers: bool = False,
        layered: bool = True,
        origins: bool = True,
        unique: bool = True,
    ) -> None:
        """What is true of the union: `renumbers` says that st_ino may change on copy-up, as with xino=nofollow
        (D2), `layered` that its upper layer can be looked at, `origins` that a copied-up object is known by
        its lower one after a remount too (which takes a lower filesystem with file handles), `unique` that no
        two objects have the same number.
        """
        self.unique = unique
        self.restless = False  # others copy objects up meanwhile, of which the model does not know
        self._rotated = False
        self._began = 0
        self.layered = layered
        self.origins = origins
        self.model = model
        self.witness = witness
        self.devices = devices
        self.renumbers = renumbers
        self._seen: dict[Inode, Seen] = {}
        self._stated: dict[Inode, Times] = {}  # the given times that were compared already

    def begin(self) -> None:
        """An operation comes next: times that it sets to now are not earlier than this one of the coarse clock,
        which is the least that filesystems take theirs from.
        """
        self._began = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)

    def remounted(self, devices: DeviceRule, upperdir: str, *, rotated: bool = False) -> None:
        """The union was mounted again: `devices` hold now, and if it was `rotated` on another upper layer.

        An object whose layer became a lower one has another number by right (parity 4.5).
        """
        self.devices = devices
        self.witness.upperdir = upperdir
        self._rotated = self._rotated or rotated
        for inode, seen in self._seen.items():
            seen.device = devices.directory if devices.same else None
            lost = (rotated and devices.shifts) or (seen.in_upper and (rotated or not self._has_origin(inode)))
            if lost or devices.free or (isinstance(inode, DirectoryInode) and (rotated or not devices.same)):
                seen.number = None
            if rotated:
                seen.in_upper = False
        if rotated:
            self._seen.pop(self.model.root, None)  # the root of the new upper layer

    def _has_origin(self, inode: Inode) -> bool:
        """Whether a copied-up object is known by its lower one; symlinks and the like hold no user xattrs."""
        keeps = self.witness.namespace == "trusted" or isinstance(inode, FileInode)
        return isinstance(inode, DirectoryInode) or (self.origins and keeps)

    def number(self, inode: Inode) -> int | None:
        """The st_ino last seen of the object, None if it was never seen or may have changed since."""
        seen = self._seen.get(inode)
        kept = self._has_origin(inode) or not inode.in_upper
        return seen.number if seen and kept and not self._renumbered(inode, seen) else None

    def _renumbered(self, inode: Inode, seen: Seen) -> bool:
        return self.renumbers and (inode.in_upper or self.restless) and not seen.in_upper

    def names(self, paths: Iterable[str]) -> list[str]:
        """Check each name, and what each symlink among them leads to."""
        done: set[str] = set()
        found: list[str] = []
        for path in paths:
            step: str | None = path.rstrip("/")
            while step is not None and step not in done:
                done.add(step)
                found += self.name(step)
                step = self.model.target(step)
        return found

    def name(self, path: str) -> list[str]:
        """Check one name in the union and in the upper layer."""
        place = self.model.find(path)
        if place is None or place.inode is None:
            return self._absent(path, place, self.witness.observe(path))
        return self._present(path, place, Look.WHOLE)

    def tree(self, top: str = "", *, look: Look = Look.WHOLE, skip: Collection[str] = ()) -> list[str]:
        """Check every object below `top`, and that no two share a number; `look` says how closely.

        Nothing below the names of `skip` is looked at.
        """
        found: list[str] = []
        for path, place in self.model.places(top):
            if path.split("/", 1)[0] in skip:
                continue
            found += self._present(path, place, look)
            if look >= Look.LISTED and isinstance(place.inode, DirectoryInode):
                found += self._listing(path, place)
        return [*found, *(self._unique(top) if self.unique else ())]

    def listing(self, path: str) -> list[str]:
        """Check a directory's entries: names, d_type, and d_ino against st_ino where devices are one (D3)."""
        for _, place in islice(self.model.places(path), 1):
            return self._listing(path, place)
        return []

    def _listing(self, path: str, place: Place) -> list[str]:
        directory = place.inode
        if not isinstance(directory, DirectoryInode):
            return []
        try:
            entries = self.witness.listing(path)
        except OSError as error:
            return [f"{path or '/'}: listing fails with {errno.errorcode.get(error.errno or 0, error.errno)}"]
        unseen: dict[str, Inode] = {**directory.entries, ".": directory, "..": place.parent}
        found = []
        numbered = self.devices.same
        if not path:
            entries = [entry for entry in entries if entry.name != ".."]  # leads out of the union
            del unseen[".."]
        for entry in entries:
            inode = unseen.pop(entry.name, None)
            if inode is None:
                found.append(self._unwanted(path, place, entry))
            elif entry.type != inode.TYPE >> 12:  # DT_* are the S_IFMT bits (readdir(3))
                found.append(f"{path}/{entry.name}: d_type {entry.type} instead of {inode.TYPE >> 12}")
            elif numbered and not self._loose(place, entry) and entry.ino != (number := self.number(inode)) and number:
                found.append(f"{path}/{entry.name}: d_ino {entry.ino} but st_ino {number}")
        return [*found, *(f"{path or '/'}: {name} is not listed" for name in unseen)]

    def _loose(self, place: Place, entry: Dirent) -> bool:
        """Whether it is an entry of a directory that is not in upper for which kernels give a lower's own number.

        Below the root, in a merge of lower directories and after a rotation `..` has another one. Seen with 6.12 to
        7.2; D3 promises more, but only of what was migrated. Likewise with xino=nofollow a name in lower of an
        object that was copied up by another name.
        """
        directory = place.inode
        if not isinstance(directory, DirectoryInode) or directory.in_upper:
            return False
        if entry.name != "..":
            inode = directory.entries.get(entry.name)
            return self.renumbers and inode is not None and inode.in_upper
        merged = directory.lower is not None and directory.lower.parts > 1
        return merged or self._rotated or place.parent is self.model.root

    def _unwanted(self, path: str, place: Place, entry: Dirent) -> str:
        assert isinstance(place.inode, DirectoryInode)
        if entry.name in place.inode.entries or entry.name in (".", ".."):
            return f"{path or '/'}: {entry.name} is listed twice"
        kind = "a whiteout" if entry.type in WHITEOUT_TYPES else "a removed name"
        return f"{path or '/'}: lists {entry.name}, {kind}"

    # one name -------------------------------------------------------------------------------------

    def _present(self, path: str, place: Place, look: Look) -> list[str]:
        assert place.inode is not None
        seen = self.witness.observe(path, glance=look < Look.CONTENT)
        if seen.error:
            return [f"{path}: {errno.errorcode.get(seen.error, seen.error)} although it must exist"]
        found = list(self._status(path, place.inode, seen))
        if look >= Look.CONTENT:
            found += self._content(path, place.inode, seen)
        if not found:
            found += self._history(path, place.inode, seen)
            if look is Look.WHOLE and self.layered and self.model.is_straight(path):
                found += self._upper(path, place, self.witness.upper(path))
        return found

    def agrees(self, operation: Operation, predicted: Result, given: Result) -> bool:
        """Whether the operation gave what the model predicts.

        Where everything is indexed some kernels count the index entry of a copied-up object as a link of it once they
        read its inode anew, which may be at any time.
        """
        if given.errno != predicted.errno:
            return False
        if predicted.value in (ANYTHING, given.value):
            return True
        place = self.model.find(operation.path) if self.model.index_all else None
        if place is None or place.inode is None or not place.inode.in_upper or not isinstance(given.value, str):
            return False
        return _LINKS.sub(lambda found: f" x{int(found[1]) - 1} ", given.value) == predicted.value

    def crosses_border(self, operation: Operation) -> bool:
        """Whether it moves a directory whose lower part is still in use: with xino=nofollow a kernel may refuse
        that with EXDEV, as any rename that it cannot do (D19).
        """
        if not (self.renumbers and isinstance(operation, TwoNames) and not isinstance(operation, Link)):
            return False
        places = [self.model.find(path) for path in operation.names()]
        inodes = [place.inode for place in places if place is not None]
        return any(isinstance(inode, DirectoryInode) and inode.lower is not None for inode in inodes)

    def _absent(self, path: str, place: Place | None, seen: Observation) -> list[str]:
        if not seen.error:
            return [f"{path}: exists although it must not"]
        if seen.error not in (errno.ENOENT, errno.ENOTDIR) and seen.error != self.model.missing(path):
            return [f"{path}: {errno.errorcode.get(seen.error, seen.error)} although it is only absent"]
        if place is None or not self.layered:
            return []
        upper = self.witness.upper(path)
        if upper.mode and not upper.whiteout:
            return [f"{path}: absent in the union, yet the upper layer holds it"]
        if needs_whiteout(place) and not upper.whiteout and not self._turned_opaque(path):
            return [f"{path}: no whiteout in the upper layer although a lower layer has the name"]
        return []

    def _status(self, path: str, inode: Inode, seen: Observation) -> Iterator[str]:
        status = seen.status
        assert status is not None
        if stat.S_IFMT(status.st_mode) != inode.TYPE:
            yield f"{path}: type {stat.S_IFMT(status.st_mode):o} instead of {inode.TYPE:o}"
            return
        if stat.S_IMODE(status.st_mode) != inode.mode:
            yield f"{path}: mode {stat.S_IMODE(status.st_mode):04o} instead of {inode.mode:04o}"
        if (status.st_uid, status.st_gid) != (inode.uid, inode.gid):
            yield f"{path}: owner {status.st_uid}:{status.st_gid} instead of {inode.uid}:{inode.gid}"
        # Where everything is indexed the kernel counts the index entry too, once the object was not cached.
        indexed = self.model.index_all and inode.in_upper and status.st_nlink == inode.nlink + 1
        if not isinstance(inode, DirectoryInode) and status.st_nlink != inode.nlink and not indexed:
            yield f"{path}: {status.st_nlink} links instead of {inode.nlink}"
        if isinstance(inode, FileInode) and status.st_size != len(inode.content):
            yield f"{path}: size {status.st_size} instead of {len(inode.content)}"
        if isinstance(inode, SpecialInode) and status.st_rdev != inode.rdev:
            yield f"{path}: device number {status.st_rdev:#x} instead of {inode.rdev:#x}"
        yield from self.devices.complaints(path, isinstance(inode, DirectoryInode), status.st_dev)

    def _content(self, path: str, inode: Inode, seen: Observation) -> Iterator[str]:
        if isinstance(inode, FileInode) and seen.content != inode.content:
            yield f"{path}: content {difference(seen.content or b'', inode.content)}"
        if isinstance(inode, LinkInode) and seen.target != inode.target:
            yield f"{path}: leads to {seen.target} instead of {inode.target}"
        if seen.xattrs or inode.xattrs:
            yield from self._xattrs(path, inode.xattrs, seen.xattrs)
        if inode.flags & KEPT_FLAGS:
            flags = self.witness.flags(path)
            if flags != inode.flags & KEPT_FLAGS:
                yield f"{path}: flags {flags:#x} instead of {inode.flags & KEPT_FLAGS:#x}"

    def _xattrs(self, path: str, wanted: Mapping[str, bytes], seen: Mapping[str, bytes]) -> Iterator[str]:
        for key, value in wanted.items():
            if key not in seen:
                yield f"{path}: xattr {key} is missing"
            elif seen[key] != value:
                yield f"{path}: xattr {key} is 0x{seen[key].hex()} instead of 0x{value.hex()}"
        for key in seen.keys() - wanted.keys():
            if key.startswith(OVERLAY_XATTRS):
                yield f"{path}: private xattr {key} is visible"
            elif key == CAPABILITY or not key.startswith("security."):  # security modules set theirs unasked
                yield f"{path}: xattr {key} although none was set"

    def _history(self, path: str, inode: Inode, seen: Observation) -> Iterator[str]:
        """What must be as it was when last seen: inode number and, if nothing changed it, mtime."""
        status = seen.status
        assert status is not None
        now = Seen(status.st_dev, status.st_ino, inode.version, status.st_mtime_ns, inode.in_upper)
        was = self._seen.setdefault(inode, now)
        # Directories of mixed-device unions have no lasting number (kernel doc, inode properties).
        lasting = self.devices.same or not isinstance(inode, DirectoryInode)
        # Without an origin a copied-up object has its lower one's number only as long as it stays cached.
        lasting = lasting and (self._has_origin(inode) or not inode.in_upper)
        moved = was.device not in (None, now.device) or was.number not in (None, now.number)
        if moved and lasting and not self._renumbered(inode, was):
            yield f"{path}: inode {_text(was)} became {_text(now)}"
        # Two copy-ups at a time into one directory may each put back the time that the other has set.
        timed = not (self.restless and isinstance(inode, DirectoryInode))
        if timed and was.version == now.version and was.mtime != now.mtime:
            yield f"{path}: mtime moved from {was.mtime} to {now.mtime} although nothing changed it"
        stated = inode.times()
        if stated and stated is not self._stated.get(inode):
            self._stated[inode] = stated
            yield from self._times(path, stated, status)
        elif timed and was.version != now.version and now.mtime < was.mtime:
            yield f"{path}: mtime went back from {was.mtime} to {now.mtime}"
        touched = isinstance(inode, FileInode) and inode.touched and was.version != now.version
        if touched and min(now.mtime, status.st_atime_ns) < self._began:
            yield f"{path}: times {status.st_atime_ns}, {now.mtime} were not both set to now, {self._began}"
        self._seen[inode] = now

    def _times(self, path: str, stated: Times, status: os.stat_result) -> Iterator[str]:
        """Times given explicitly; to be looked at before anything is read, which moves the time of access."""
        if stated.mtime not in (None, status.st_mtime_ns):
            yield f"{path}: mtime {status.st_mtime_ns} instead of {stated.mtime}"
        if stated.atime not in (None, status.st_atime_ns):
            yield f"{path}: atime {status.st_atime_ns} instead of {stated.atime}"

    def _upper(self, path: str, place: Place, upper: UpperState) -> Iterator[str]:
        inode = place.inode
        assert inode is not None
        if upper.whiteout:
            yield f"{path}: exists in the union, yet the upper layer holds a whiteout"
        elif place.in_upper and not upper.mode:
            yield f"{path}: not copied up"
        elif not (place.in_upper or self.restless) and upper.mode and not stat.S_ISDIR(upper.mode):
            yield f"{path}: copied up although nothing asked for it"
        elif needs_opaque(place) and not upper.opaque and not self._turned_opaque(path):
            yield f"{path}: not opaque although it covers an unrelated lower directory"

    def _turned_opaque(self, path: str) -> bool:
        """Whether the directory of this name hides its lowers by itself: it may, once all is covered in it (D4)."""
        return self.renumbers and self.witness.upper(os.path.dirname(path)).opaque

    def _unique(self, top: str) -> Iterator[str]:
        owners: dict[tuple[int, int], str] = {}
        counted: set[Inode] = set()
        for path, inode in self.model.walk(top):
            seen = self._seen.get(inode)
            if seen is None or seen.device is None or seen.number is None or inode in counted:
                continue
            counted.add(inode)
            other = owners.setdefault((seen.device, seen.number), path)
            if other != path:
                yield f"{path}: shares inode {seen.device:#x}:{seen.number} with {other}"


def _text(seen: Seen) -> str:
    device = "any" if seen.device is None else f"{seen.device:#x}"
    return f"{device}:{'any' if seen.number is None else seen.number}"


LONGEST_CONTENT = 200  # bytes of a file that a complaint shows


def difference(seen: bytes, wanted: bytes) -> str:
    """How two contents differ, with all of them if they are short."""
    if max(len(seen), len(wanted)) <= LONGEST_CONTENT:
        return f"{seen!r} instead of {wanted!r}"
    at = next((at for at, (a, b) in enumerate(zip(seen, wanted, strict=False)) if a != b), min(len(seen), len(wanted)))
    parts = f"{seen[at : at + 16]!r} instead of {wanted[at : at + 16]!r}"
    return f"of {len(seen)} bytes instead of {len(wanted)}, from byte {at} on {parts}"
