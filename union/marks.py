# SPDX-License-Identifier: GPL-2.0-only
"""The private xattrs of overlayfs whose value is a structure, as bytes: origins, handles, digests.

From the comments of fs/overlayfs/overlayfs.h. Both byte orders that the suite runs on are little-endian.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Final

from datasets.layers import PRIVATE
from union.filecalls import FileHandle

ORIGIN: Final = f"{PRIVATE}origin"  # on an upper object: the handle of the lower one that it was copied from
UPPER: Final = f"{PRIVATE}upper"  # on a directory of the index: the handle of the upper directory
IMPURE: Final = f"{PRIVATE}impure"  # on an upper directory: it has entries with an origin
NLINK: Final = f"{PRIVATE}nlink"  # on an indexed upper object: its links in the union
PROTATTR: Final = f"{PRIVATE}protattr"  # on an upper object: file flags that upper itself does not have

MAGIC: Final = 0xFB
BIG_ENDIAN, ANY_ENDIAN, PATH_UPPER = 1, 2, 4  # flags of a handle
ALIGNED_TYPE: Final = 0xF8  # of the union's own handles: three bytes, then the structure
UNALIGNED_TYPE: Final = 0xFB  # the same without the three bytes in front, as Linux before 5.5 made them
PADDING: Final = 3

FS_VERITY_SHA256: Final = 1
_FS_IOC_ENABLE_VERITY: Final = 0x40806685
_FS_IOC_MEASURE_VERITY: Final = 0xC0046686
_DIGEST_MAX: Final = 64
_HEADER: Final = struct.Struct("=BBBBB16s")


@dataclass(frozen=True, slots=True)
class Handle:
    """What `ORIGIN` holds: a file handle `fid` of a layer's filesystem, of that filesystem's own `type`.

    `length` counts all bytes of it, header included.
    """

    version: int
    magic: int
    length: int
    flags: int
    type: int
    uuid: bytes
    fid: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Handle:
        """Of an xattr's value. Raises ValueError if it is too short."""
        if len(data) < _HEADER.size:
            raise ValueError(f"{len(data)} bytes are no handle")
        version, magic, length, flags, kind, uuid = _HEADER.unpack_from(data)
        return cls(version, magic, length, flags, kind, uuid, data[_HEADER.size :])

    @classmethod
    def of(cls, path: str, name: str = ORIGIN) -> Handle:
        """The one on the object of a layer. Raises OSError if there is none."""
        return cls.unpack(os.getxattr(path, name, follow_symlinks=False))

    @classmethod
    def shown(cls, handle: FileHandle) -> Handle:
        """Of a handle that the union gave. Raises ValueError for one of another type."""
        if handle.type != ALIGNED_TYPE:
            raise ValueError(f"a handle of type {handle.type:#x}")
        return cls.unpack(handle.data[PADDING:])

    def packed(self) -> bytes:
        """As an xattr's value, with whatever `length` says."""
        header = _HEADER.pack(self.version, self.magic, self.length, self.flags, self.type, self.uuid)
        return header + self.fid

    def entry(self) -> str:
        """The name of its entry in the index."""
        return self.packed().hex()

    def given(self, kind: int = ALIGNED_TYPE) -> FileHandle:
        """As the union gives it to a user."""
        data = self.packed()
        data = bytes(PADDING) + data if kind == ALIGNED_TYPE else data + bytes(PADDING)
        return FileHandle(kind, data + bytes(-len(data) % 4))


def digest_mark(digest: bytes = b"", *, version: int = 0, algorithm: int = FS_VERITY_SHA256, more: int = 0) -> bytes:
    """The value of `METACOPY` that asks for this digest of fs-verity; its length is `more` than it should be."""
    return struct.pack("=BBBB", version, 4 + len(digest) + more, 0, algorithm) + digest


def enable_verity(path: str) -> None:
    """FS_IOC_ENABLE_VERITY with SHA-256 and blocks of 4096 bytes: the file never changes again.

    Raises OSError: EOPNOTSUPP or ENOTTY where the kernel or the filesystem has no verity.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        # version, algorithm, block size; no salt, no signature
        fcntl.ioctl(fd, _FS_IOC_ENABLE_VERITY, struct.pack("=IIII 112x", 1, FS_VERITY_SHA256, 4096, 0))
    finally:
        os.close(fd)


def measure_verity(path: str) -> bytes:
    """FS_IOC_MEASURE_VERITY: the digest of a file with verity. Raises OSError: ENODATA if it has none."""
    fd = os.open(path, os.O_RDONLY)
    try:
        answer = bytearray(struct.pack("=HH", 0, _DIGEST_MAX) + bytes(_DIGEST_MAX))
        fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, answer)
        _algorithm, size = struct.unpack_from("=HH", answer)
        return bytes(answer[4 : 4 + size])
    finally:
        os.close(fd)
