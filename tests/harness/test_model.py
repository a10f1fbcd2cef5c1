# SPDX-License-Identifier: GPL-2.0-only
"""The model: agrees with every scenario, and with a plain filesystem where one can be asked."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datasets import tree
from datasets.layers import merged
from datasets.reference import C0, reference
from tests.union import GROUPS
from union.inodes import DirectoryInode, Place, needs_opaque, needs_whiteout
from union.model import Model
from union.names import Name, Names
from union.operations import (
    CREAT,
    DIRECTORY,
    EXCL,
    RW,
    RWA,
    TRUNC,
    WA,
    ChangeMode,
    Held,
    MakeDirectory,
    Operation,
    R,
    SetXattr,
    W,
    link,
    mkdir,
    open_file,
    readlink,
    rename,
    rmdir,
    rmtree,
    size,
    touch,
    truncate,
    unlink,
)
from union.scenario import Group, When

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that uid 1 can reach, unlike pytest's own."""
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def model_of(group: Group) -> Model:
    redirects = group.when is not When.NO_DIRECTORY_RENAMES
    return Model(shown(group), redirects=redirects, indexed=("index", "on") in group.options)


def shown(group: Group) -> tree.Directory:
    """What the union of the group's layers shows at first."""
    return merged([tree.Directory({group.name: top}) for top in group.trees(group.name)])


@pytest.mark.parametrize("group", [g for g in GROUPS if g.scenarios], ids=lambda group: group.name)
def test_scenarios_and_model_agree(group: Group) -> None:
    model = model_of(group)
    for number in range(1, len(group.scenarios) + 1):
        for operation in group.operations(number):
            wanted, predicted = operation.expected(), model.apply(operation)
            assert wanted.errno == predicted.errno, operation
            assert wanted.value in (None, predicted.value), operation
        model.release()


def is_like_others(group: Group) -> bool:
    """Whether a plain filesystem does the same, and can be removed afterwards: not what nobody can change."""
    if group.trials or group.overlay_alone or not group.detaches:
        return False
    return group.when is not When.NO_DIRECTORY_RENAMES


@pytest.mark.parametrize("group", [g for g in GROUPS if is_like_others(g)], ids=lambda g: g.name)
@needs_root
def test_scenarios_on_a_plain_filesystem(group: Group, open_directory: Path) -> None:
    unmet = [why for need in group.needs if (why := need.probe(open_directory, open_directory))]
    if unmet:
        pytest.skip("; ".join(unmet))
    tree.write(shown(group), open_directory)
    for number in range(1, len(group.scenarios) + 1):
        held = Held()
        try:
            for operation in group.operations(number):
                wanted, given = operation.expected(), operation.perform(str(open_directory), held)
                assert wanted.errno == given.errno, operation
                assert wanted.value in (None, given.value), operation
        finally:
            held.release()


SMALL = tree.Directory(
    {
        "file": tree.File(b"content"),
        "link": tree.Symlink("dir/inner"),
        "dirlink": tree.Symlink("dir"),
        "loop": tree.Symlink("loop"),
        "dangling": tree.Symlink("absent"),
        "dir": tree.Directory({"inner": tree.File(b"inside"), "sub": tree.Directory({})}),
        "empty": tree.Directory({}),
    }
)
PATHS = [
    "file", "link", "dirlink", "loop", "dangling", "absent", "dir", "empty", "dir/inner", "dir/sub", "dir/new",
    "file/x", "dirlink/inner", "dirlink/new", "dir/../file", "empty/moved", "absent/x",
]  # fmt: skip
FLAGS = [0, CREAT, CREAT | EXCL, TRUNC, CREAT | TRUNC, DIRECTORY, DIRECTORY | CREAT, CREAT | EXCL | TRUNC]


def random_operation(draw: random.Random) -> Operation:
    """Any operation on any of a few names that collide, with a terminal slash now and then."""

    def path() -> Name:
        return Name(draw.choice(PATHS) + ("/" if draw.random() < 0.15 else ""))

    def opened() -> Operation:
        access = draw.choice([R, W, RW, WA, RWA])
        writes = b"new" if access != R and draw.random() < 0.7 else None
        return open_file(path(), access | draw.choice(FLAGS), writes=writes)

    kinds: list[Callable[[], Operation]] = [
        opened, opened, lambda: mkdir(path()), lambda: rmdir(path()), lambda: unlink(path()),
        lambda: rename(path(), path()), lambda: rename(path(), path()), lambda: link(path(), path()),
        lambda: readlink(path()), lambda: truncate(path(), draw.randrange(12)), lambda: touch(path()),
    ]  # fmt: skip
    return draw.choice(kinds)()


def tree_of(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = "directory" if path.is_dir() else (path.read_bytes(), path.stat().st_nlink)
    return found


def tree_in(model: Model) -> dict[str, object]:
    found: dict[str, object] = {}
    for path, inode in model.walk():
        if path:
            target, content = getattr(inode, "target", None), getattr(inode, "content", None)
            kind = target if target is not None else (content, inode.nlink)
            found[path] = "directory" if isinstance(inode, DirectoryInode) else kind
    return dict(sorted(found.items()))


@pytest.mark.parametrize("seed", range(60))
def test_random_operations_as_on_a_plain_filesystem(seed: int, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files made with mode 0 can be opened by root alone")
    draw = random.Random(seed)
    os.umask(0o022)
    tree.write(SMALL, tmp_path)
    model = Model(SMALL)
    for _ in range(60):
        operation = random_operation(draw)
        predicted, given = model.apply(operation), operation.perform(str(tmp_path), Held())
        assert predicted.errno == given.errno, (operation, predicted, given)
    assert tree_in(model) == tree_of(tmp_path)


def names() -> Names:
    return Names("top", 100)


def applied(*operations: Operation, redirects: bool = True) -> Model:
    model = Model(reference({"top": 2}), redirects=redirects)
    for operation in operations:
        assert model.apply(operation).errno == operation.fails, operation
    return model


def found(model: Model, path: str) -> Place:
    place = model.find(path)
    assert place is not None
    return place


def test_reading_copies_nothing_up_and_writing_copies_the_parents_too() -> None:
    s = names()
    model = applied(open_file(s.dir / "pop/b", R))
    assert not found(model, s.dir / "pop/b").inode.in_upper  # type: ignore[union-attr]
    model = applied(open_file(s.dir / "pop/b", W))
    assert all(found(model, path).inode.in_upper for path in (s.dir, s.dir / "pop", s.dir / "pop/b"))  # type: ignore[union-attr]


def test_a_whiteout_is_needed_for_a_lower_name_alone() -> None:
    s = names()
    model = applied(unlink(s.reg), open_file(s.none, W | CREAT), unlink(s.none))
    assert needs_whiteout(found(model, s.reg))
    assert not needs_whiteout(found(model, s.none))
    model.detach()
    assert not needs_whiteout(found(model, s.reg))


def test_a_directory_over_a_removed_one_must_be_opaque() -> None:
    s = names()
    model = applied(rmtree(s.dir), mkdir(s.dir), mkdir(s.nodir))
    assert needs_opaque(found(model, s.dir))
    assert not needs_opaque(found(model, s.nodir))
    assert not needs_opaque(found(model, s.empty))


def test_directory_renames_need_redirects_until_detached() -> None:
    s = names()
    model = applied(rename(s.dir, s.nodir, errno.EXDEV), mkdir(s.dir + "-new"), redirects=False)
    assert model.apply(rename(s.dir + "-new", s.nodir)).errno == 0
    model.detach()
    assert model.apply(rename(s.dir, s.dir / "../moved")).errno == 0


def test_hard_links_share_an_object() -> None:
    s = names()
    model = applied(link(s.reg, s.none), open_file(s.none, W, writes=b"Q"), size(s.reg, len(C0)))
    place = found(model, s.reg)
    assert place.inode is found(model, s.none).inode
    assert place.inode is not None and place.inode.nlink == 2


def test_unprivileged_actor_is_refused_by_mode_bits() -> None:
    s = names()
    model = applied(truncate(s.rootfile, 1, errno.EACCES, unprivileged=True))
    refused = MakeDirectory(path=s.nodir, unprivileged=True)
    assert model.apply(refused).errno == errno.EACCES


def test_a_failed_operation_changes_nothing() -> None:
    s = names()
    model = Model(reference({"top": 1}))
    before = [(path, inode.version, inode.nlink, inode.in_upper) for path, inode in model.walk()]
    refused = (rmdir(s.dir), unlink(s.dir), mkdir(s.reg), rename(s.dir, s.reg), link(s.reg, s.dir), rmtree(s.none))
    for operation in refused:
        assert model.apply(operation).errno
    assert before == [(path, inode.version, inode.nlink, inode.in_upper) for path, inode in model.walk()]


@pytest.mark.parametrize("first", [True, False])
def test_an_xattr_gives_an_indexed_object_no_second_name_in_upper(first: bool) -> None:
    model = Model(tree.Directory({"a": tree.File(), "b": tree.HardLink("a")}), indexed=True)
    if first:
        model.apply(ChangeMode(path=Name("a"), mode=0o600))
    assert model.apply(SetXattr(path=Name("b"), key="trusted.b", value=b"")).errno == 0
    places = [model.find(name) for name in ("a", "b")]
    assert [place.in_upper for place in places if place] == [first, not first]
