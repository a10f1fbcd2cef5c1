# SPDX-License-Identifier: GPL-2.0-only
"""Trees as values, the reference dataset, and how they are written."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from datasets.layers import ESCAPED, METACOPY, OPAQUE, PRIVATE, REDIRECT, WHITEOUT, merged, relocated, shown_xattrs
from datasets.reference import C0, C1, CLASSICAL, FIRST_SET, reference, reference_set
from datasets.tree import (
    IMMUTABLE,
    NODUMP,
    Directory,
    File,
    HardLink,
    Node,
    Object,
    Special,
    Symlink,
    Whiteout,
    walk,
    write,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=lambda mask: f"umask {mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask: int = request.param
    before = os.umask(mask)
    yield mask
    os.umask(before)


def test_the_classical_dataset_has_the_known_totals() -> None:
    nodes = dict(walk(reference(CLASSICAL)))
    kinds = Counter(type(node) for path, node in nodes.items() if path != "a")
    assert kinds == {File: 120, Directory: 120, Symlink: 150}
    assert max(len(PurePosixPath(path).parts) for path in nodes) == 4
    top = nodes["a"]
    assert isinstance(top, Directory)
    assert len(top.entries) == 270


def test_a_set_is_as_the_classical_suite_has_it() -> None:
    nodes = dict(walk(Directory(reference_set("a", 107))))
    assert nodes["foo107"] == File(C0, 0o644, 1, 1)
    assert nodes["rootfile107"] == File(C0)
    assert nodes["direct_sym107"] == Symlink("../a/foo107", 1, 1)
    assert nodes["indirect_sym107"] == Symlink("direct_sym107", 1, 1)
    assert nodes["pointless107"] == Symlink("no_foo107", 1, 1)
    assert nodes["direct_dir_sym107"] == Symlink("../a/dir107")
    assert nodes["indirect_dir_sym107"] == Symlink("direct_dir_sym107")
    assert nodes["dir107/a"] == File()
    assert nodes["dir107/pop/b"] == File(C1)
    assert nodes["dir107/pop/c"] == nodes["empty107"] == Directory()
    assert len(nodes) == 13
    assert not {"no_foo107", "no_dir107"} & nodes.keys()


def test_tops_stand_side_by_side_and_link_into_themselves() -> None:
    nodes = dict(walk(reference({"unlink": 1, "rmdir": 3})))
    assert [path for path in nodes if "/" not in path] == ["unlink", "rmdir"]
    assert nodes["rmdir/direct_sym102"] == Symlink("../rmdir/foo102", 1, 1)
    assert f"unlink/foo{FIRST_SET + 1}" not in nodes


@pytest.mark.usefixtures("umask")
def test_modes_are_exact_whatever_the_umask(tmp_path: Path) -> None:
    me = os.geteuid(), os.getegid()
    modes = [0o000, 0o444, 0o644, 0o666, 0o755, 0o1777, 0o2750, 0o4711]
    write(
        Directory(
            {
                **{f"file{mode:o}": File(b"x" * bool(mode & 1), mode, *me) for mode in modes},
                **{f"dir{mode:o}": Directory({"inside": File(b"", 0o644, *me)}, mode, *me) for mode in modes},
            }
        ),
        tmp_path,
    )
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == int(path.name.lstrip("dirfle"), 8), path.name
    for path in tmp_path.glob("dir*"):
        path.chmod(0o700)
        assert (path / "inside").is_file()


def test_the_umask_is_given_back(umask: int, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(FileExistsError, match="taken"):
        write(Directory({"taken": File(b"x")}), tmp_path)
    assert os.umask(umask) == umask


@needs_root
def test_what_is_written_is_what_was_described(tmp_path: Path) -> None:
    suid: dict[str, Node] = {
        "file": File(b"x", 0o6755, 5, 6),
        "empty": File(b"", 0o4711, 5, 6),
        "dir": Directory({}, 0o3775, 5, 6),
    }
    tree = Directory({**reference({"a": 2}).entries, "suid": Directory(suid)})
    write(tree, tmp_path)
    described = dict(walk(tree))
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*")}
    assert found.keys() == described.keys()
    for name, node in described.items():
        assert isinstance(node, Object)
        seen = found[name].lstat()
        assert (seen.st_uid, seen.st_gid) == (node.uid, node.gid), name
        if isinstance(node, Symlink):
            assert os.readlink(found[name]) == node.target
        else:
            assert stat.S_IMODE(seen.st_mode) == node.mode, name
        if isinstance(node, File):
            assert found[name].read_bytes() == node.content


def test_a_file_larger_than_one_write(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    write(Directory({"big": File(content, uid=os.geteuid(), gid=os.getegid())}), tmp_path)
    assert (tmp_path / "big").read_bytes() == content


# Everything a node can have -----------------------------------------------------------------------

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # version 2, effective: cap_net_bind_service
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
EVERYTHING = Directory(
    {
        "fifo": Special(stat.S_IFIFO, 0o620, 3, 4),
        "socket": Special(stat.S_IFSOCK, 0o600),
        "char": Special(stat.S_IFCHR, 0o644, rdev=os.makedev(1, 3)),
        "block": Special(stat.S_IFBLK, 0o660, rdev=os.makedev(7, 300), xattrs={"trusted.t": b"block"}),
        "file": File(b"x", 0o755, 5, 6, {"trusted.t": b"\0\xff", "security.capability": CAPABILITY}, 10**18 + 1),
        "dir": Directory({"again": HardLink("../file"), "gone": Whiteout()}, 0o2755, 7, 8, {"trusted.t": b""}, 10**18),
        "link": Symlink("nowhere", 9, 9, {"trusted.t": b"link"}, 10**18 + 2),
        "third": HardLink("file"),
    }
)


@needs_root
def test_attributes_are_written_as_described(tmp_path: Path) -> None:
    write(EVERYTHING, tmp_path)
    for name, node in walk(EVERYTHING):
        seen = (tmp_path / name).lstat()
        if isinstance(node, Whiteout):
            assert (seen.st_mode, seen.st_rdev) == (stat.S_IFCHR, 0)
        elif isinstance(node, Object):
            assert (seen.st_uid, seen.st_gid) == (node.uid, node.gid), name
            listed = os.listxattr(tmp_path / name, follow_symlinks=False)
            xattrs = {key: os.getxattr(tmp_path / name, key, follow_symlinks=False) for key in listed}
            assert xattrs == node.xattrs
            assert node.mtime in (None, seen.st_mtime_ns), name
        if isinstance(node, Special):
            assert (seen.st_mode, seen.st_rdev) == (node.type | node.mode, node.rdev), name
    file, again, third = (os.lstat(tmp_path / name) for name in ("file", "dir/again", "third"))
    assert file.st_ino == again.st_ino == third.st_ino and file.st_nlink == 3


@needs_root
def test_flags_are_written_or_the_filesystem_is_blamed(tmp_path: Path) -> None:
    tree = Directory({"file": File(b"x", flags=IMMUTABLE | NODUMP), "dir": Directory(flags=NODUMP)})
    try:
        write(tree, tmp_path)
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.ENOTTY), error
        pytest.skip("this filesystem has no flags")
    for name, flags in (("file", IMMUTABLE | NODUMP), ("dir", NODUMP)):
        fd = os.open(tmp_path / name, os.O_RDONLY)
        seen = struct.unpack("i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, b"\0\0\0\0"))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", 0))  # or the directory could not be removed
        os.close(fd)
        assert seen & (IMMUTABLE | NODUMP) == flags


# Several layers -----------------------------------------------------------------------------------

A, B, C = (File(letter) for letter in (b"a", b"b", b"c"))
OPAQUE_Y, OPAQUE_X = {OPAQUE: b"y"}, {OPAQUE: b"x"}
MERGES: dict[str, tuple[list[Directory], dict[str, Node]]] = {
    "one layer": ([Directory({"f": A})], {"f": A}),
    "the topmost file is shown": ([Directory({"f": A}), Directory({"f": B, "g": C})], {"f": A, "g": C}),
    "directories merge": (
        [Directory({"d": Directory({"f": A}, 0o700)}), Directory(), Directory({"d": Directory({"f": B, "g": C})})],
        {"d": Directory({"f": A, "g": C}, 0o700)},
    ),
    "a whiteout hides all below": ([Directory({"f": Whiteout()}), Directory({"f": A}), Directory({"f": B})], {}),
    "a whiteout in the lowest layer": ([Directory(), Directory({"f": Whiteout()})], {}),
    "a whiteout ends a merge": (
        [Directory({"d": Directory({"f": A})}), Directory({"d": Whiteout()}), Directory({"d": Directory({"g": B})})],
        {"d": Directory({"f": A})},
    ),
    "a whiteout kept as xattr": (
        [Directory({"f": File(xattrs={WHITEOUT: b"y"})}, xattrs=OPAQUE_X), Directory({"f": A, "g": B})],
        {"g": B},
    ),
    "an opaque directory ends a merge": (
        [
            Directory({"d": Directory({"f": A})}),
            Directory({"d": Directory({"g": B}, xattrs=OPAQUE_Y)}),
            Directory({"d": Directory({"h": C})}),
        ],
        {"d": Directory({"f": A, "g": B})},
    ),
    "a file over a directory": ([Directory({"n": A}), Directory({"n": Directory({"f": B})})], {"n": A}),
    "a directory over a file over a directory": (
        [Directory({"n": Directory({"f": A})}), Directory({"n": B}), Directory({"n": Directory({"g": C})})],
        {"n": Directory({"f": A})},
    ),
    "a relative redirect": (
        [
            Directory({"new": Directory({"f": A}, xattrs={REDIRECT: b"old"}), "old": Whiteout()}),
            Directory({"old": Directory({"g": B}), "new": Directory({"h": C})}),
        ],
        {"new": Directory({"f": A, "g": B})},
    ),
    "an absolute redirect, then a relative one": (
        [
            Directory({"d": Directory({"new": Directory(xattrs={REDIRECT: b"/e/mid"})})}),
            Directory({"e": Directory({"mid": Directory({"f": A}, xattrs={REDIRECT: b"old"})})}),
            Directory({"e": Directory({"mid": Directory({"g": B}), "old": Directory({"h": C})})}),
        ],
        {
            "d": Directory({"new": Directory({"f": A, "h": C})}),
            "e": Directory({"mid": Directory({"f": A, "h": C}), "old": Directory({"h": C})}),
        },
    ),
    "a redirect to what is not there": (
        [Directory({"new": Directory({"f": A}, xattrs={REDIRECT: b"old"})}), Directory({"old": B})],
        {"new": Directory({"f": A}), "old": B},
    ),
    "metadata above its data": (
        [
            Directory({"f": File(b"\0", 0o600, xattrs={METACOPY: b"", REDIRECT: b"g"}), "g": Whiteout()}),
            Directory({"g": File(b"\0", xattrs={METACOPY: b""})}),
            Directory({"g": A}),
        ],
        {"f": File(b"a", 0o600)},
    ),
    "a hard link keeps its other name": (
        [Directory({"f": A}), Directory({"d": Directory({"g": B, "h": HardLink("g")})})],
        {"f": A, "d": Directory({"g": B, "h": HardLink("g")})},
    ),
}


@pytest.mark.parametrize("what", MERGES)
def test_layers_merge(what: str) -> None:
    lowers, shown = MERGES[what]
    assert merged(lowers) == Directory(shown)


def test_private_xattrs_are_hidden_and_escaped_ones_shown() -> None:
    xattrs = {PRIVATE + "origin": b"1", ESCAPED + "opaque": b"2", ESCAPED + "overlay.x": b"3", "user.x": b"4"}
    shown = {PRIVATE + "opaque": b"2", ESCAPED + "x": b"3", "user.x": b"4"}
    assert shown_xattrs(xattrs) == shown
    assert merged([Directory({"f": File(xattrs=xattrs)})]) == Directory({"f": File(xattrs=shown)})


def test_what_cannot_be_described_is_refused() -> None:
    with pytest.raises(ValueError, match="hard link h has lost"):
        merged([Directory({"g": Whiteout()}), Directory({"g": A, "h": HardLink("g")})])
    with pytest.raises(ValueError, match="no data below"):
        merged([Directory({"f": File(xattrs={METACOPY: b""})})])
    marked = Directory({"old": Directory()}, xattrs=OPAQUE_Y)
    with pytest.raises(ValueError, match="mark of its own"):
        merged([Directory({"n": Directory(xattrs={REDIRECT: b"/d/old"})}), Directory({"d": marked})])


def test_absolute_redirects_follow_their_top_directory() -> None:
    def tree(top: str) -> Directory:
        return Directory({"d": Directory({}, xattrs={REDIRECT: f"/{top}/old".encode()}), "f": A, "e": Directory()})

    low = Directory({"old": Directory({"g": B})})
    assert dict(walk(merged([Directory({"x": tree("x")}), Directory({"x": low})])))["x/d"] == Directory({"g": B})
    assert relocated(tree("x"), "x", "x.1") == tree("x.1")
    other = Directory({"d": Directory({}, xattrs={REDIRECT: b"/xx/old"})})
    assert relocated(other, "x", "x.1") == other


def test_zeroes_of_a_large_file_are_holes(tmp_path: Path) -> None:
    content = bytes(3 << 16) + b"data" + bytes(2 << 16) + b"end"
    write(Directory({"sparse": File(content), "full": File(b"x" * len(content))}), tmp_path)
    assert (tmp_path / "sparse").read_bytes() == content
    assert (tmp_path / "sparse").stat().st_blocks < (tmp_path / "full").stat().st_blocks
