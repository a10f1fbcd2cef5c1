# SPDX-License-Identifier: GPL-2.0-only
"""Trees as values, the reference dataset, and how they are written."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from datasets.reference import C0, C1, CLASSICAL, FIRST_SET, reference, reference_set
from datasets.tree import Directory, File, Node, Symlink, walk, write

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
    write(Directory({
        **{f"file{mode:o}": File(b"x" * bool(mode & 1), mode, *me) for mode in modes},
        **{f"dir{mode:o}": Directory({"inside": File(b"", 0o644, *me)}, mode, *me) for mode in modes},
    }), tmp_path)
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
