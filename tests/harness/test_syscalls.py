# SPDX-License-Identifier: GPL-2.0-only
"""The system calls that Python lacks: results, and errors with their paths."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.harness.isolated import isolated, needs_mounts, needs_overlay, needs_xfs
from union import mountinfo, syscalls
from union.filesystems import tmpfs
from union.syscalls import DT_DIR, DT_LNK, DT_REG, FsContext


def listing(path: Path) -> list[syscalls.Dirent]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return syscalls.getdents(fd)
    finally:
        os.close(fd)


def test_getdents_gives_names_inodes_and_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    entries = {entry.name: entry for entry in listing(tmp_path)}
    assert {name: entry.type for name, entry in entries.items()} == {
        ".": DT_DIR,
        "..": DT_DIR,
        "file": DT_REG,
        "dir": DT_DIR,
        "link": DT_LNK,
    }
    assert entries["file"].ino == (tmp_path / "file").stat().st_ino
    assert entries["."].ino == tmp_path.stat().st_ino


def test_getdents_reads_to_the_end_and_takes_any_name(tmp_path: Path) -> None:
    names = {f"{n:0>200}" for n in range(1000)} | {os.fsdecode(b"not \xff utf-8")}  # more than a buffer full
    for name in names:
        (tmp_path / name).touch()
    seen = [entry.name for entry in listing(tmp_path)]
    assert set(seen) == names | {".", ".."}
    assert len(seen) == len(names) + 2


def test_getdents_of_a_file_is_an_error() -> None:
    fd = os.open(__file__, os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            syscalls.getdents(fd)
    finally:
        os.close(fd)


def test_an_error_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        syscalls.umount(tmp_path)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


@needs_mounts
@isolated
def test_a_filesystem_that_no_kernel_has() -> None:
    with pytest.raises(OSError, match="no-such-fs") as caught:
        FsContext("no-such-fs")
    assert caught.value.errno == errno.ENODEV


@needs_overlay
@isolated
def test_the_kernel_says_what_it_does_not_like() -> None:
    with FsContext("overlay") as context:
        with pytest.raises(OSError, match="no_such_option=1"):
            context.set("no_such_option", "1")
        assert any("no_such_option" in line for line in context.messages())
        assert context.messages() == []


@needs_mounts
@isolated
def test_mount_ids_are_those_of_mountinfo(tmp_path: Path) -> None:
    outside = syscalls.mount_id(tmp_path)
    with ExitStack() as stack:
        layer = tmpfs(stack, tmp_path, "a name with space", 1 << 20)
        mount = mountinfo.find(syscalls.mount_id(tmp_path))
        assert mount is not None
        assert layer.mount_id == mount.id != outside
        assert (mount.point, mount.fstype, mount.source) == (str(tmp_path), "tmpfs", "a name with space")
        assert ("size", "1024k") in mount.options
    assert syscalls.mount_id(tmp_path) == outside
    assert mountinfo.find(layer.mount_id) is None


@needs_mounts
@isolated
def test_caches_can_be_dropped() -> None:
    syscalls.drop_caches()


@needs_xfs
@isolated
def test_a_loop_device_frees_itself(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("xb") as file:
        file.truncate(300 << 20)
    device, fd = syscalls.attach_loop(image)
    backing = Path("/sys/block") / Path(device).name / "loop/backing_file"
    assert backing.read_text().strip() == str(image)
    os.close(fd)
    assert not backing.exists()


@needs_mounts
@isolated
def test_a_filesystem_that_the_kernel_lacks_is_told_from_one_it_has() -> None:
    assert syscalls.knows_filesystem("tmpfs")
    assert not syscalls.knows_filesystem("no-such-filesystem")


@needs_overlay
@isolated
def test_a_mounted_filesystem_is_picked_and_changed() -> None:
    with ExitStack() as stack:
        at = Path(stack.enter_context(TemporaryDirectory()))
        tmpfs(stack, at, "picked")
        with FsContext("tmpfs", at) as context:
            context.set("ro")
            context.reconfigure()
        with pytest.raises(OSError, match="Read-only") as caught:
            (at / "file").touch()
        assert caught.value.errno == errno.EROFS
        with FsContext("tmpfs", at) as context, pytest.raises(OSError, match="no_such_option"):
            context.set("no_such_option", "1")


@needs_mounts
@isolated
def test_root_of_a_user_namespace_is_nobody_outside() -> None:
    outside = os.stat("/proc/self/ns/user").st_ino
    syscalls.unshare_user()
    assert os.stat("/proc/self/ns/user").st_ino != outside
    assert (os.geteuid(), os.getegid()) == (0, 0)
    syscalls.mount("none", "/tmp", "tmpfs")
    with pytest.raises(PermissionError):
        os.setxattr("/tmp", "trusted.x", b"1")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has capabilities to do without")
def test_a_capability_is_missing_only_meanwhile(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0)
    with (
        syscalls.without_capabilities(syscalls.CAP_DAC_OVERRIDE, syscalls.CAP_DAC_READ_SEARCH),
        pytest.raises(PermissionError),
    ):
        secret.read_bytes()
    assert secret.read_bytes() == b"secret"
    with syscalls.without_capabilities():
        assert secret.read_bytes() == b"secret"
