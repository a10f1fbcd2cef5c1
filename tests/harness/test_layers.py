# SPDX-License-Identifier: GPL-2.0-only
"""Layers: what is built, that the lower is read-only, and that nothing stays behind."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from datasets.reference import reference
from datasets.tree import walk
from tests.harness.isolated import isolated, needs_mounts, needs_overlay, needs_xfs
from union import filesystems, layers, mountinfo, programs, syscalls, workspace
from union.configuration import Configuration, LowerFs
from union.errors import SetupError, Unsupported
from union.layers import build_layers
from union.workspace import enter_private_namespace, scratch_directory

TREE = reference({"one": 2, "two": 1})
LONG_AGO = time.time() - 3600


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scratch directories of these tests go where no other test makes any."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def check_build(lower_fs: LowerFs, own_tmp: Path) -> None:
    mounts = mountinfo.MOUNTINFO.read_text()
    with ExitStack() as stack:
        made = build_layers(stack, [TREE], Configuration(lower_fs=lower_fs))
        names = {str(path.relative_to(made.lower.root)) for path in made.lower.root.rglob("*")}
        assert names == {path for path, _ in walk(TREE)}
        assert (made.upperdir / "f").read_bytes() == b"pure"
        assert os.listdir(made.upperdir) == ["f"]
        assert os.listdir(made.workdir) == []
        assert (made.upperdir, made.workdir) == (made.upper.root / "0/u", made.upper.root / "0/w")
        with pytest.raises(OSError, match="Read-only file system"):
            (made.lower.root / "new").touch()
        sources = {layer: mountinfo.find(layer.mount_id) for layer in (made.lower, made.upper)}
        assert [(mount and mount.source) for mount in sources.values()] == [made.lower.source, "upper_layer"]
        assert dict(sources[made.lower].options).get("ro") == "", "the superblock must be read-only"  # type: ignore[union-attr]
        assert own_tmp in made.scratch.parents
    assert os.listdir(own_tmp) == []
    assert mountinfo.MOUNTINFO.read_text() == mounts


@needs_overlay
@isolated
def test_layers_on_tmpfs(own_tmp: Path) -> None:
    check_build("tmpfs", own_tmp)


@needs_xfs
@isolated
def test_layers_on_xfs(own_tmp: Path) -> None:
    check_build("xfs", own_tmp)


@needs_xfs
@isolated
def test_a_lower_xfs_gives_its_loop_device_back() -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [TREE], Configuration(lower_fs="xfs"))
        backing = Path("/sys/block") / Path(made.lower.source).name / "loop/backing_file"
        assert backing.exists()
    # Another process may have taken the device since, but not with our image.
    assert not backing.exists() or not backing.read_text().startswith(str(made.scratch))


@needs_mounts
@isolated
def test_a_failure_half_way_is_undone(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = mountinfo.MOUNTINFO.read_text()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layers, "write", full)
    with pytest.raises(SetupError, match="No space left"), ExitStack() as stack:
        build_layers(stack, [TREE], Configuration(lower_fs="tmpfs"))
    assert mountinfo.MOUNTINFO.read_text() == mounts
    assert os.listdir(own_tmp) == []


@needs_mounts
@isolated
def test_a_busy_layer_is_an_error_and_goes_away_all_the_same(own_tmp: Path) -> None:
    mounts = mountinfo.MOUNTINFO.read_text()
    with pytest.raises(SetupError, match=r"cannot unmount .*: Device or resource busy"), ExitStack() as stack:
        held = (build_layers(stack, [TREE], Configuration(lower_fs="tmpfs")).lower.root / "one/foo100").open()
    held.close()
    assert (mountinfo.MOUNTINFO.read_text(), os.listdir(own_tmp)) == (mounts, [])


@needs_mounts
@isolated
def test_a_busy_layer_does_not_hide_what_went_wrong_first(own_tmp: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
        held = (build_layers(stack, [TREE], Configuration(lower_fs="tmpfs")).lower.root / "one/foo100").open()
        raise KeyboardInterrupt
    held.close()
    assert os.listdir(own_tmp) == []


@needs_mounts
@isolated
def test_missing_parts_are_named(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"mount point .*nowhere"), ExitStack() as stack:
        build_layers(stack, [TREE], Configuration(lower_fs="tmpfs"), own_tmp / "nowhere")
    monkeypatch.setenv("PATH", str(own_tmp))
    monkeypatch.setattr(programs, "_SYSTEM_PATH", str(own_tmp))
    with pytest.raises(SetupError, match=r"mkfs\.xfs is not installed .*xfsprogs"), ExitStack() as stack:
        build_layers(stack, [TREE], Configuration(lower_fs="xfs"))
    (own_tmp / "mkfs.xfs").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (own_tmp / "mkfs.xfs").chmod(0o755)
    with pytest.raises(SetupError, match=r"mkfs\.xfs .*: no room"), ExitStack() as stack:
        build_layers(stack, [TREE], Configuration(lower_fs="xfs"))


@needs_mounts
@isolated
def test_a_kernel_without_the_filesystem_is_named(own_tmp: Path) -> None:
    with pytest.raises(SetupError, match=r"has no no-such-fs"), ExitStack() as stack:
        filesystems.mount(stack, "none", own_tmp, "no-such-fs", "")


@needs_mounts
@isolated
def test_scratch_of_dead_runs_is_removed_and_nothing_else(own_tmp: Path) -> None:
    dead, living, full = (own_tmp / f"{workspace.SCRATCH_PREFIX}{n}" for n in "dlf")
    young, never_locked = (own_tmp / f".{workspace.SCRATCH_PREFIX}{n}" for n in "yn")
    for path in (dead, living, full, young, never_locked):
        path.mkdir()
    (full / "something").touch()
    os.utime(never_locked, (LONG_AGO, LONG_AGO))
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with ExitStack() as stack:
        scratch = scratch_directory(stack)
        workspace._reap()
        assert set(own_tmp.iterdir()) == {living, young, full, scratch}


@needs_mounts
@isolated
def test_another_run_may_remove_dead_ones_while_this_one_ends(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = os.close

    def close(fd: int) -> None:
        """At whatever moment it closes something, the other one looks."""
        closed(fd)
        with monkeypatch.context() as undone:
            undone.setattr(os, "close", closed)
            workspace._reap()

    with ExitStack() as stack, monkeypatch.context() as watched:
        watched.setattr(os, "close", close)
        scratch_directory(stack)
    assert not list(own_tmp.iterdir())


@needs_mounts
@isolated
def test_a_namespace_needs_the_privilege() -> None:
    os.setgid(65534)
    os.setuid(65534)
    with pytest.raises(Unsupported, match="needs root"):
        enter_private_namespace()


@needs_mounts
@isolated
def test_mounts_stay_in_the_namespace(own_tmp: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        enter_private_namespace()
        with ExitStack() as stack:
            filesystems.tmpfs(stack, own_tmp, "inner")
            os.write(writer, b"x")
            os.close(writer)
            os._exit(0)
    assert os.read(reader, 1) == b"x"
    before = syscalls.mount_id(own_tmp)
    os.waitpid(child, 0)
    assert syscalls.mount_id(own_tmp) == before == syscalls.mount_id(own_tmp.parent)
