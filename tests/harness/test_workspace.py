# SPDX-License-Identifier: GPL-2.0-only
"""Directories of the user's: what is not ours stays untouched, what a killed run left goes, all is given back."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.isolated import isolated, needs_mounts, needs_overlay
from union import syscalls
from union.errors import SetupError
from union.workspace import MARK, claim

VARIABLE = "UNIONMOUNT_BASEDIR"
OURS = ["l", "m", "n", "u", "w", "0", "17"]
NOT_OURS = ["a", "lower", "l2", "0x", ".ovl-detach.old", "lost+found", "union", "-1"]


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    with ExitStack() as stack:
        claim(stack, directory, VARIABLE)
        yield


def content(directory: Path) -> dict[str, str]:
    """All below it: paths, with the text of files and the targets of symlinks."""
    found = {}
    for path in sorted(directory.rglob("*")):
        kind = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text()
        found[str(path.relative_to(directory))] = kind
    return found


def fill(directory: Path, names: list[str]) -> None:
    """A directory with something in it, a file and a symlink that leads out, in turn."""
    (directory.parent / "outside").mkdir(exist_ok=True)
    (directory.parent / "outside/precious").write_text("precious")
    for index, name in enumerate(names):
        if index % 3 == 0:
            (directory / name / "deep").mkdir(parents=True)
            (directory / name / "deep/file").write_text("text")
        elif index % 3 == 1:
            (directory / name).write_text("text")
        else:
            (directory / name).symlink_to("../outside")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


# Not ours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("kind", ["directory", "file", "symlink"])
def test_what_has_one_of_our_names_is_refused_and_stays(name: str, kind: str, base: Path) -> None:
    padding = {"directory": [], "file": ["a"], "symlink": ["a", "b"]}[kind]
    fill(base, [*padding, name])
    before = content(base.parent)
    with pytest.raises(SetupError, match=rf"{VARIABLE}: .*/base/{name} is not ours"), claimed(base):
        raise AssertionError("it was taken")
    assert content(base.parent) == before


def test_what_has_another_name_is_no_hindrance_and_stays(base: Path) -> None:
    fill(base, NOT_OURS)
    before = content(base.parent)
    with claimed(base):
        fill(base, OURS)
        assert content(base.parent) != before
    assert content(base.parent) == before


@pytest.mark.parametrize("what", ["absent", "a file", "a dangling symlink"])
def test_what_is_no_directory_is_refused_by_the_name_of_its_variable(what: str, base: Path) -> None:
    path = base / "place"
    if what == "a file":
        path.touch()
    elif what == "a dangling symlink":
        path.symlink_to("nowhere")
    before = content(base)
    with pytest.raises(SetupError, match=f"{VARIABLE}: .* is not a directory"), claimed(path):
        pass
    assert content(base) == before


@needs_mounts
@isolated
def test_a_directory_that_cannot_be_written_is_refused(base: Path) -> None:
    syscalls.mount("none", base, "tmpfs", syscalls.MS_RDONLY)
    with pytest.raises(SetupError, match=f"{VARIABLE}: .*Read-only file system"), claimed(base):
        pass


# Ours ---------------------------------------------------------------------------------------------


def test_everything_is_given_back_when_it_ends(base: Path) -> None:
    with claimed(base):
        assert os.listdir(base) == [MARK]
        fill(base, OURS)
    assert os.listdir(base) == []
    assert (base.parent / "outside/precious").read_text() == "precious"


def test_everything_is_given_back_when_it_fails(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(base):
        fill(base, OURS)
        raise KeyboardInterrupt
    assert os.listdir(base) == []


KILLED = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
from tests.harness.test_workspace import OURS, claim, fill
base = Path(sys.argv[1])
claim(ExitStack(), base, "UNIONMOUNT_BASEDIR")
fill(base, OURS)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_and_nothing_else(base: Path) -> None:
    fill(base, NOT_OURS)
    before = content(base.parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)
    assert done.returncode == -9
    left = content(base.parent)
    assert {f"base/{name}" for name in [*OURS, MARK]} <= left.keys() - before.keys()
    with claimed(base):
        assert sorted(os.listdir(base)) == sorted([*NOT_OURS, MARK])
    assert content(base.parent) == before


def test_without_its_mark_the_same_is_not_ours(base: Path) -> None:
    fill(base, OURS)
    with pytest.raises(SetupError, match="is not ours"), claimed(base):
        pass
    (base / MARK).touch()
    with claimed(base):
        assert os.listdir(base) == [MARK]


# Two at once --------------------------------------------------------------------------------------


def test_a_second_run_at_once_is_refused_and_disturbs_nothing(base: Path) -> None:
    with claimed(base):
        fill(base, OURS)
        before = content(base)
        for _ in range(2):
            with pytest.raises(SetupError, match=f"{VARIABLE}: another run works in .*/base"), claimed(base):
                pass
            assert content(base) == before
    with claimed(base):
        assert os.listdir(base) == [MARK]


def test_a_mark_that_its_owner_just_gave_back_is_no_lock(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = fcntl.flock

    def late(fd: int, how: int) -> None:
        (base / MARK).unlink()
        locked(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(SetupError, match="another run works in"), claimed(base):
        pass
    monkeypatch.undo()
    with claimed(base):
        assert os.listdir(base) == [MARK]


# What is still mounted ----------------------------------------------------------------------------


@needs_mounts
@isolated
def test_what_is_mounted_on_one_of_our_names_is_not_emptied(base: Path) -> None:
    (base / MARK).touch()
    (base / "l/inner").mkdir(parents=True)
    for point in (base / "l", base / "l/inner"):
        syscalls.mount("layer", point, "tmpfs")
        (point / "inner").mkdir(exist_ok=True)
        (point / "file").write_text("text")
        before = content(base)
        with pytest.raises(SetupError, match=r"still mounted from .*/base; \./run -c"), claimed(base):
            pass
        assert content(base) == before
    for point in (base / "l/inner", base / "l"):
        syscalls.umount(point)
    with claimed(base):
        assert os.listdir(base) == [MARK]


@needs_overlay
@isolated
def test_the_layers_of_a_union_that_stands_elsewhere_are_not_emptied(base: Path) -> None:
    syscalls.mount("base", base, "tmpfs")
    union = base.parent / "union"
    union.mkdir()
    for name in ("l", "0/u", "0/w", "other"):
        (base / name).mkdir(parents=True)
    (base / MARK).touch()
    (base / "l/file").write_text("text")
    layers = f"lowerdir={base}/other:{base}/l,upperdir={base}/0/u,workdir={base}/0/w"
    syscalls.mount("overlay", union, "overlay", 0, layers)
    with pytest.raises(SetupError, match=r"/union is still mounted from .*/base"), claimed(base):
        pass
    assert (union / "file").read_text() == "text"
    syscalls.umount(union)
    with claimed(base):
        assert sorted(os.listdir(base)) == [MARK, "other"]


@needs_mounts
@isolated
def test_what_is_mounted_on_another_name_is_no_hindrance(base: Path) -> None:
    (base / MARK).touch()
    for name in ("l", "other"):
        (base / name).mkdir()
    syscalls.mount("mine", base / "other", "tmpfs")
    (base / "other/file").write_text("text")
    with claimed(base):
        assert sorted(os.listdir(base)) == [MARK, "other"]
    assert (base / "other/file").read_text() == "text"
