# SPDX-License-Identifier: GPL-2.0-only
"""`-s` leaves a union standing, `-c` takes it down, and what is somebody else's stays where it is (parity 2.5)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.reference import C0, CLASSICAL, reference
from datasets.tree import walk
from tests.harness.isolated import isolated, needs_mounts, needs_overlay
from union import mountinfo, syscalls

CHECKOUT = Path(__file__).resolve().parents[2]
MNT = Path("/mnt")
TREE = reference(CLASSICAL)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for the base and the scratch directories of the runs."""
    with tempfile.TemporaryDirectory() as name:
        for inner in ("tmp", "base", "lower", "point"):
            (Path(name) / inner).mkdir()
        yield Path(name)


def run(place: Path, *words: str, **given: Path | str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNIONMOUNT_")}
    environment = {**kept, "TMPDIR": str(place / "tmp")}
    environment.update({f"UNIONMOUNT_{name}": str(value) for name, value in given.items()})
    return subprocess.run(
        [sys.executable, "./run", *words], cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def mounted() -> str:
    return mountinfo.MOUNTINFO.read_text()


def on(point: Path) -> list[str]:
    """The sources of what is mounted on the directory, the first first."""
    return [mount.source for mount in mountinfo.mounts() if mount.point == str(point)]


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


WHOLE = {path for path, _ in walk(TREE)}
LAYOUTS = (
    "--no",
    "--ov",
    "--ov=3",
    "--ov --samefs",
    "--ov --maxfs=2",
    "--ov --verify --meta",
    "--ov --xino --detach=off",
    "--ovov",
    "--ovov --verify",
    "--ov --squashfs",
    "--ov --fuse=fuse-overlayfs",
)
PROGRAMS = {"--ov --squashfs": "mksquashfs", "--ov --fuse=fuse-overlayfs": "fuse-overlayfs"}


@needs_overlay
@pytest.mark.parametrize("words", LAYOUTS)
@isolated
def test_a_union_stands_until_it_is_taken_down(words: str, place: Path) -> None:
    if not shutil.which(PROGRAMS.get(words, "true")):
        pytest.skip(f"{PROGRAMS[words]} is not installed")
    before = mounted()
    done = run(place, *words.split(), "-s")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("/mnt: lower ") and done.stdout.endswith("; ./run -c takes it down\n")
    assert names(MNT) - {"f"} == WHOLE
    assert (MNT / "a/foo100").read_bytes() == C0
    assert (MNT / "f").exists() == (words != "--no")
    (MNT / "a/new").write_text("new")
    assert mounted() != before
    down = run(place, "-c")
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
    assert mounted() == before
    assert os.listdir(place / "tmp") == []


@needs_overlay
@isolated
def test_two_that_stand_are_both_taken_down(place: Path) -> None:
    before = mounted()
    for _ in range(2):
        assert run(place, "--ov", "--set-up").returncode == 0
    assert on(MNT) == ["overlay", "overlay"]
    assert run(place, "--clean-up").returncode == 0
    assert (mounted(), os.listdir(place / "tmp")) == (before, [])


@needs_mounts
@isolated
def test_nothing_to_take_down_is_no_error(place: Path) -> None:
    before = mounted()
    for given in ({}, {"BASEDIR": place / "base"}, {"LOWERDIR": place / "nowhere"}, {"MNTPOINT": place / "nowhere"}):
        done = run(place, "-c", **given)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == (3 if given else 0)
    assert mounted() == before


@needs_overlay
@pytest.mark.parametrize("lower", [False, True], ids=["base", "base and lower"])
@isolated
def test_in_a_directory_of_the_users(lower: bool, place: Path) -> None:
    given = {"BASEDIR": place / "base", **({"LOWERDIR": place / "lower"} if lower else {})}
    before = mounted()
    assert run(place, "--ov", "-s", **given).returncode == 0
    assert names(place / "base/m") == WHOLE | {"f"}
    assert on(MNT) == []
    assert (place / ("lower" if lower else "base") / "l/a/foo100").read_bytes() == C0
    again = run(place, "--ov", "open-plain", **given)
    assert (again.returncode, again.stderr.count("\n")) == (3, 1)
    assert f"UNIONMOUNT_BASEDIR: {place}/base/m is still mounted from {place}/base; ./run -c" in again.stderr
    assert names(place / "base/m") == WHOLE | {"f"}
    assert run(place, "-c", **given).returncode == 0
    assert mounted() == before
    # The files stay, as the original leaves them; the mark lets the next run remove them.
    assert (place / ("lower" if lower else "base") / "l/a/foo100").exists()
    assert run(place, "--ov", "open-plain", **given).returncode == 0
    assert os.listdir(place / "base") == os.listdir(place / "lower") == []


@needs_overlay
@isolated
def test_on_a_mount_point_of_the_users(place: Path) -> None:
    before = mounted()
    point = place / "point"
    for given in ({"MNTPOINT": point}, {}):  # what is mounted from our own scratch is found without it
        assert run(place, "--ov", "-s", MNTPOINT=point).returncode == 0
        assert names(point) == WHOLE | {"f"} and on(MNT) == []
        assert run(place, "-c", **given).returncode == 0
        assert mounted() == before
    in_base = {"BASEDIR": place / "base"}
    assert run(place, "--ov", "-s", MNTPOINT=point, **in_base).returncode == 0
    assert names(point) == WHOLE | {"f"}
    assert run(place, "-c", **in_base).returncode == 0
    assert on(point) == ["overlay"], "without the variable it is not looked for, as in the original"
    assert run(place, "-c", MNTPOINT=point, **in_base).returncode == 0
    assert mounted() == before


# Somebody else's ----------------------------------------------------------------------------------


def an_overlay(place: Path, at: Path) -> None:
    """An overlay of somebody else's, with the source that ours have."""
    for name in ("l", "u", "w"):
        (place / "theirs" / name).mkdir(parents=True)
    syscalls.mount("theirs", place / "theirs", "tmpfs")
    for name in ("l", "u", "w"):
        (place / "theirs" / name).mkdir()
    layers = "lowerdir={0}/l,upperdir={0}/u,workdir={0}/w".format(place / "theirs")
    syscalls.mount("overlay", at, "overlay", 0, layers)


@needs_overlay
@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "bind"])
@isolated
def test_what_is_on_the_mount_point_and_not_ours_stays(kind: str, place: Path) -> None:
    if kind == "tmpfs":
        syscalls.mount("tmpfs", MNT, "tmpfs")
    elif kind == "overlay":
        an_overlay(place, MNT)
    else:
        syscalls.mount(str(place), MNT, None, syscalls.MS_BIND)
    (MNT / "precious").write_text("precious")
    before = mounted()
    assert run(place, "-c").returncode == 0
    assert mounted() == before
    assert (MNT / "precious").read_text() == "precious"
    # And if one of ours lies on it, that goes alone.
    assert run(place, "--ov", "-s").returncode == 0
    assert not (MNT / "precious").exists()
    assert run(place, "-c").returncode == 0
    assert mounted() == before
    assert (MNT / "precious").read_text() == "precious"


@needs_overlay
@isolated
def test_what_lies_on_our_union_is_not_taken_for_it(place: Path) -> None:
    before = mounted()
    assert run(place, "--ov", "-s").returncode == 0
    syscalls.mount("theirs", MNT, "tmpfs")
    (MNT / "precious").write_text("precious")
    done = run(place, "-c")
    assert (done.returncode, done.stderr) == (3, "run: /mnt: another mount lies on ours; unmount it first\n")
    assert (MNT / "precious").read_text() == "precious"
    syscalls.umount(MNT)
    assert run(place, "-c").returncode == 0
    assert mounted() == before


@needs_overlay
@isolated
def test_a_union_in_use_stays_and_says_so(place: Path) -> None:
    before = mounted()
    assert run(place, "--ov", "-s").returncode == 0
    with (MNT / "a/foo100").open():
        done = run(place, "-c")
        assert (done.returncode, done.stderr) == (3, "run: cannot unmount /mnt: Device or resource busy\n")
        assert on(MNT) == ["overlay"]
    assert run(place, "-c").returncode == 0
    assert mounted() == before


# What the original leaves -------------------------------------------------------------------------

LEFT = ("l", "0", "1", "n", "m")


def left_by_the_original(base: Path, *, upper: str = "0/u") -> None:
    """Layers in a base and a union of them, as the original mounts them (parity 2.2)."""
    for name in (*LEFT, "u", "w"):
        (base / name).mkdir()
    for name, source in (("l", "lower_layer"), ("0", "0_layer"), ("1", "1_layer")):
        syscalls.mount(source, base / name, "tmpfs")
    for name in ("l/a", "0/u", "0/w", "1/u", "1/w"):
        (base / name).mkdir()
    nested = f"lowerdir={base}/l,upperdir={base}/u,workdir={base}/w"
    syscalls.mount("nested_layer", base / "n", "overlay", 0, nested)
    work = upper.replace("u", "w")
    options = f"lowerdir={base}/0/u:{base}/n,upperdir={base}/{upper},workdir={base}/{work}"
    syscalls.mount("overlay", base / "m", "overlay", 0, options)


@needs_overlay
@isolated
def test_what_the_original_left_is_taken_down(place: Path) -> None:
    before = mounted()
    left_by_the_original(place / "base", upper="1/u")
    assert run(place, "-c").returncode == 0
    assert all(on(place / "base" / name) for name in LEFT), "without the variable it is not looked for"
    assert run(place, "-c", BASEDIR=place / "base").returncode == 0
    assert mounted() == before
    assert (place / "base/l").is_dir(), "no file is deleted"


@needs_overlay
@isolated
def test_a_filesystem_of_the_users_under_one_of_our_names_stays(place: Path) -> None:
    base = place / "base"
    (base / "0").mkdir()
    syscalls.mount("theirs", base / "0", "tmpfs")
    (base / "0/precious").write_text("precious")
    (base / "m").mkdir()
    an_overlay(place, base / "m")
    before = mounted()
    assert run(place, "-c", BASEDIR=base).returncode == 0
    assert mounted() == before
    assert (base / "0/precious").read_text() == "precious"
