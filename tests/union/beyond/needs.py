# SPDX-License-Identifier: GPL-2.0-only
"""What these families need of the layers' filesystems, found out by doing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from datasets.acl import ACCESS, acl
from datasets.layers import OPAQUE, WHITEOUT
from datasets.tree import NOATIME, Directory, File, write
from union import namecalls, syscalls
from union.operations import remove_tree
from union.scenario import Need

PROBE = ".probe"  # made in the root of each filesystem and removed again


def _in_both(work: Callable[[Path], None]) -> Callable[[Path, Path], str | None]:
    """A probe that does `work` with an empty file of each filesystem; an error is the reason."""

    def probe(lower: Path, upper: Path) -> str | None:
        for layer, root in (("lower", lower), ("upper", upper)):
            path = root / PROBE
            path.touch()
            try:
                work(path)
            except OSError as error:
                return f"the {layer} filesystem: {error.strerror}"
            finally:
                path.unlink()
        return None

    return probe


def _xattrs(path: Path) -> None:
    for key in ("user.probe", "trusted.probe", "security.probe"):
        os.setxattr(path, key, b"x")


def _linked_symlink(path: Path) -> None:
    one, two = path.with_name(".probe-link"), path.with_name(".probe-link2")
    one.symlink_to("nowhere")
    try:
        os.link(one, two, follow_symlinks=False)
        two.unlink()
    finally:
        one.unlink()


def _long_name(path: Path) -> None:
    long = path.with_name("n" * 255)
    long.touch()
    long.unlink()


def _flags(path: Path) -> None:
    before = namecalls.get_flags(str(path))
    namecalls.set_flags(str(path), before | NOATIME)
    namecalls.set_flags(str(path), before)


def _whiteouts_by_xattr(lower: Path, _upper: Path) -> str | None:
    """Linux 6.8 brought them: two lower layers of which the topmost hides a name of the other."""
    root = lower / PROBE
    layers = Directory({
        "top": Directory({"d": Directory({"gone": File(xattrs={WHITEOUT: b"y"})}, xattrs={OPAQUE: b"x"})}),
        "low": Directory({"d": Directory({"gone": File()})}),
        "union": Directory(),
    })  # fmt: skip
    root.mkdir()
    try:
        write(layers, root)
        syscalls.mount("overlay", root / "union", "overlay", 0, f"lowerdir={root}/top:{root}/low")
        try:
            shown = os.listdir(root / "union/d")
        finally:
            syscalls.umount(root / "union")
    except OSError as error:
        return str(error)
    finally:
        remove_tree(str(root))
    return "this kernel shows the names that they hide" if shown else None


XWHITEOUTS = Need("whiteouts kept as xattrs", _whiteouts_by_xattr)
XATTRS = Need("xattrs of the namespaces user, trusted and security", _in_both(_xattrs))
ACLS = Need(
    "POSIX ACLs",
    _in_both(lambda path: os.setxattr(path, ACCESS, acl("u::rw-,u:1:r--,g::r--,m::r--,o::---"))),
    frozenset({"squashfs", "erofs"}),  # to set one on a lower object takes a lower that could store it
)
LONG_NAMES = Need("names of 255 bytes", _in_both(_long_name), frozenset({"erofs"}))  # its mkfs fails on them
LINKED_SYMLINKS = Need("hard links of symlinks", _in_both(_linked_symlink), frozenset({"squashfs"}))
def _flags_of_both(lower: Path, upper: Path) -> str | None:
    """chattr sets the flags that it got and one more: upper must take those that lower gives its files by itself."""
    if why := _in_both(_flags)(lower, upper):
        return why
    flags = 0
    for root in (lower, upper):
        path = root / PROBE
        path.touch()
        try:
            if root == lower:
                flags = namecalls.get_flags(str(path))
            else:
                namecalls.set_flags(str(path), flags)
        except OSError as error:
            return f"upper takes no file with the flags {flags:#x} of lower's: {error.strerror}"
        finally:
            path.unlink()
    return None


FLAGS = Need("file flags as chattr(1) sets them", _flags_of_both, frozenset({"squashfs", "erofs"}))
# The kernel can ask a fuse for them, but does not keep them in its inodes.
ENFORCED_FLAGS = Need("flags that lower enforces", _flags_of_both, frozenset({"squashfs", "erofs", "fuse"}))
