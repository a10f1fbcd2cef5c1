# SPDX-License-Identifier: GPL-2.0-only
"""Whole runs against what the classical suite was measured to give (parity 1.6, 1.8, 9), a row each.

Only the classical groups run, so that the counts are those of the original. Where we differ by intent the row
says why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.harness import isolated as machine
from tests.harness.isolated import isolated, needs_overlay
from union import syscalls
from union.errors import HarnessError
from union.programs import find_program

CHECKOUT = Path(__file__).resolve().parents[2]
ON, OFF = 359, 328  # scenarios of a default run with directory renames, and without


@dataclass(frozen=True, slots=True)
class Row:
    """A command line and what it must come to.

    `places` are the directories that the user names: B the base, L the lower one, on a filesystem each. `total`
    scenarios run, or none if it is 0. Those of `fails` must fail, each complaint of the run must match
    `complaint`, and `says` is what stderr must match. `differs` tells why we give something else than the
    original.
    """

    words: str
    total: int = ON
    code: int = 0
    places: str = ""
    options: str = ""
    fails: tuple[str, ...] = ()
    complaint: str = ""
    says: str = ""
    differs: str = ""
    test: str = ""  # of xfstests

    @property
    def name(self) -> str:
        """What pytest shows."""
        return " ".join([*([self.test] if self.test else []), *([self.options] if self.options else []), self.words])


def xfstests() -> Iterator[Row]:
    """The invocations of overlay/100 to overlay/117, in that order."""
    invocations = (
        "--ov --samefs --verify",
        "--ov --verify",
        "--ov --xino --verify",
        "--ov=10 --samefs --verify",
        "--ov=10 --verify",
        "--ov=10 --xino --verify",
        "--ov=10 --maxfs=1 --verify",
        "--ov=10 --maxfs=1 --xino --verify",
        "--ov=10 --maxfs=10 --verify",
        "--ov=10 --maxfs=10 --xino --verify",
        "--ovov --samefs --verify",
        "--ovov --samefs --xino --verify",
        "--ovov --verify",
        "--ovov --xino --verify",
        "--ovov=10 --samefs --verify",
        "--ovov=10 --samefs --xino --verify",
        "--ovov=10 --verify",
        "--ovov=10 --xino --verify",
    )
    for number, words in enumerate(invocations, start=100):
        total, places = 2 * ON if "=10 " in words else ON, "B" if "samefs" in words else "BL"
        yield Row(words, total, places=places, test=f"overlay{number}")


OURS_ARE_FENCED = "--xino on layers of our own is the detach run: --detach=off asks for the original's"
NOT_A_FAILURE = "what the kernel does not mount is no failure of it: exit 4 with its words, where the original fails"
BY_NAME = "a group that expects what this run does not do is a mistake of the command line"
SYMLINK_ORIGIN = (
    "user.* xattrs cannot be stored on symlinks, so that the kernel keeps a symlink's number only as long as it is "
    "cached: the model knows, where the original fails at the first hard link of a symlink"
)
FUSE_LOSSES = (
    "fuse-overlayfs forgets the owner of a symlink when it copies it up, moves a directory's mtime when it is renamed "
    "onto a removed name, and gives a copied-up directory another number once it is looked up again: the original "
    "looks at none of these"
)

PLAIN = (
    Row("--no"),
    Row("--ov"),
    Row("--ov --samefs --verify"),
    Row("--ov --squashfs"),
    Row("--ov --erofs"),
    Row("--ov --squashfs --verify"),
    Row("--ov --erofs --verify --xino --detach=off", differs=OURS_ARE_FENCED),
    Row("--ov --meta --verify"),
    Row("--ovov --meta --verify"),
    Row("--ovov --squashfs --verify"),
    Row("--no --samefs"),
    Row("--no --maxfs=2"),
    Row("--ov=0", 2 * ON),
    Row("--ov=3 --meta --verify", 2 * ON),
    Row("--ov=3 --maxfs=2 --verify", 2 * ON),
    Row("--ov=2 --squashfs", 2 * ON),
    Row("--ovov=3 --maxfs=2 --xino --verify --detach=off", 2 * ON, differs=OURS_ARE_FENCED),
    Row("--ov=3 --samefs", 2 * ON),
    Row("--ov=10", 2 * ON),
    Row("--ov --xdev", OFF),
    Row("--ov --xdev --ts=1", OFF),
    Row("--ov --xdev --verify --xino --detach=off", OFF, differs=OURS_ARE_FENCED),
    Row("--ov --ts=1"),
    Row("--no --ts=1"),
    Row("--ov=2 --ts=1 --verify", 2 * ON),
)

WITH_OPTIONS = (
    Row("--ov", OFF, options="redirect_dir=nofollow"),
    Row("--ov", options="redirect_dir=on"),
    Row("--ov", options="metacopy=on"),
    Row("--ov", options="xino=auto"),
    Row("--ov --verify", options="index=off"),
    Row("--ov", OFF, options="userxattr"),
    Row("--ov", options="nfs_export=on"),
)

NO_SYMLINK_OWNERS = ("hard-link-sym:1", "hard-link-sym:2", "hard-link-sym:10", "rename-mass-sym:1")
ANYTHING = r"^FAILED: "  # what else a FUSE overlay forgets depends on when the kernel drops its caches
FUSE = (
    Row(
        "--ov --fuse=fuse-overlayfs --xdev", OFF, 1, fails=NO_SYMLINK_OWNERS, differs=FUSE_LOSSES,
        complaint=ANYTHING,
    ),
    Row(
        "--ov --fuse=fuse-overlayfs", ON, 1, fails=(*NO_SYMLINK_OWNERS, "rename-dir:1"), differs=FUSE_LOSSES,
        complaint=ANYTHING,
    ),
)  # fmt: skip

BY_ITSELF = (
    Row("--ov dir-weird-open-dir", 10),
    Row(
        "--ov --ts=1 dir-weird-open-dir", 10,
        differs="O_DIRECTORY with O_CREAT is EINVAL with the slash too, where the original still says EISDIR",
    ),
    Row("--no rename-exdev", 0, 2, says="belongs to --xdev", differs=BY_NAME),
    Row("--ov rename-exdev", 0, 2, says="belongs to --xdev", differs=BY_NAME),
)  # fmt: skip

EXDEV = tuple(f"rename-exdev:{number}" for number in range(1, 5))
BAD = (
    Row("--ov --xdev --meta", OFF, 1, fails=EXDEV, complaint="success instead of EXDEV"),
    Row("--ov --meta", 0, 4, options="nfs_export=on", says="nfs_export=on,metacopy=on", differs=NOT_A_FAILURE),
    Row("--ov", 0, 4, options="metacopy=on,redirect_dir=off", says="metacopy=on,redirect", differs=NOT_A_FAILURE),
    Row("--ov --meta", 0, 4, options="userxattr", says="userxattr,metacopy=on", differs=NOT_A_FAILURE),
    Row("--ov", 0, 2, options="index=off,nfs_export=on", says="contradict", differs="it is found before any mount"),
    Row("--ovov --verify", OFF, options="userxattr", differs=SYMLINK_ORIGIN),
    Row(
        "--ov=2", 2 * ON, 1, options="volatile", complaint="cannot be mounted again: .*volatile",
        fails=("mkdir:6", "rename-mass-5:1"),
    ),
    Row(
        "--ov=2 --verify", 2 * ON, options="index=off",
        differs="hard links that break without an index are modelled; the original fails in rename-mass-5",
    ),
)  # fmt: skip

ROWS = (*xfstests(), *PLAIN, *WITH_OPTIONS, *FUSE, *BY_ITSELF, *BAD)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run gave: its exit code, the last line, how many scenarios it began, what failed and why."""

    code: int
    last: str
    begun: int
    failed: frozenset[str]
    complaints: tuple[str, ...]
    said: str


def command(row: Row) -> list[str]:
    """The words of the row; without a group of its own the classical ones."""
    words = row.words.split()
    groups = [word for word in words if not word.startswith("-")]
    return [*words, *([] if groups else ["parity"])]


def environment(row: Row, base: Path, lower: Path) -> dict[str, str]:
    """The environment with the row's variables and none of the caller's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNIONMOUNT_")}
    places = {"B": ("UNIONMOUNT_BASEDIR", base), "L": ("UNIONMOUNT_LOWERDIR", lower)}
    kept.update({places[letter][0]: str(places[letter][1]) for letter in row.places})
    return {**kept, **({"UNIONMOUNT_MNTOPTIONS": f"-o{row.options}"} if row.options else {})}


def start(words: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`./run`, as xfstests starts it."""
    return subprocess.run(
        [sys.executable, "./run", *words], cwd=CHECKOUT, env=variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip


def ended(done: subprocess.CompletedProcess[str]) -> Ended:
    """Read a transcript."""
    lines = done.stdout.splitlines()
    return Ended(
        code=done.returncode,
        last=lines[-1] if lines else "",
        begun=sum(line.startswith("TEST ") for line in lines),
        failed=frozenset(re.findall(r"^(?:FAILED|ERROR) ([a-z0-9-]+:\d+): ", done.stdout, re.MULTILINE)),
        complaints=tuple(line for line in lines if line.startswith(("FAILED: ", "ERROR: "))),
        said=done.stderr,
    )


def verdict(row: Row, seen: Ended) -> list[str]:
    """What is not as the row says."""
    free = bool(row.complaint) and not row.code  # it passes, or fails in that way alone
    found = [f"exit {seen.code} instead of {row.code}"] if seen.code not in ((0, 1) if free else (row.code,)) else []
    found += [f"{seen.begun} scenarios instead of {row.total}"] if seen.begun != row.total else []
    passed = f"{row.total} passed, 0 failed, 0 skipped"
    if not row.complaint and not row.says and seen.last != passed:
        found.append(f"{seen.last!r} instead of {passed!r}")
    found += [f"{selector} did not fail" for selector in row.fails if selector not in seen.failed]
    found += [line for line in seen.complaints if not (row.complaint and re.search(row.complaint, line))]
    if not row.says and seen.said:
        found.append(f"stderr is not empty: {seen.said!r}")
    if row.says and not (re.search(row.says, seen.said) and seen.said.count("\n") == 1):
        found.append(f"stderr {seen.said!r} does not say {row.says!r} in one line")
    return found


def lacking(row: Row) -> list[str]:
    """Every reason why the row cannot run here."""
    reasons = machine._no_mounts() + machine._no_filesystem("overlay")
    programs = {"squashfs": ("mksquashfs", "squashfs-tools"), "erofs": ("mkfs.erofs", "erofs-utils")}
    programs["fuse-overlayfs"] = ("fuse-overlayfs", "fuse-overlayfs")
    for word in (word for word in programs if word in row.words):
        reasons += machine._no_filesystem(word.partition("-")[0])
        device = Path("/dev/fuse" if word == "fuse-overlayfs" else "/dev/loop-control")
        reasons += [] if device.exists() else [f"no {device}"]
        try:
            find_program(*programs[word])
        except HarnessError as error:
            reasons.append(str(error))
    return reasons


def parameter(row: Row) -> ParameterSet:
    """The row as pytest takes it, skipped with all reasons where it cannot run."""
    reasons = lacking(row)
    return pytest.param(row, id=row.name, marks=pytest.mark.skipif(bool(reasons), reason="; ".join(reasons) or "-"))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that uid 1 can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("row", [parameter(row) for row in ROWS])
@isolated
def test_row(row: Row, open_directory: Path) -> None:
    base, lower = two_filesystems(open_directory)
    variables = environment(row, base, lower)
    before = mounted()
    done = start([*command(row), "--kernel=native"], variables)
    assert verdict(row, ended(done)) == [], done.stdout[-2000:]
    assert mounted() == before
    assert (os.listdir(base), os.listdir(lower)) == ([], [])
    if row.places:  # xfstests cleans up after each run
        after = start(["--clean-up"], variables)
        assert (after.returncode, after.stderr) == (0, "")


def two_filesystems(within: Path) -> tuple[Path, Path]:
    """A directory each on two of them, as xfstests makes its base and its lower directory."""
    os.umask(0o022)
    for name in ("scratch", "test"):
        (within / name).mkdir()
        syscalls.mount(name, within / name, "tmpfs", 0, "mode=0755")
        (within / name / "union").mkdir()
    return within / "scratch/union", within / "test/union"


def mounted() -> str:
    return Path("/proc/self/mountinfo").read_text()


# That a row can fail ------------------------------------------------------------------------------

GOOD = Ended(0, f"{ON} passed, 0 failed, 0 skipped", ON, frozenset(), (), "")
MOVED = "FAILED: a/b: inode 1:2 became 1:3"
DEFECTS = {
    "exit code": replace(GOOD, code=1),
    "too few scenarios": replace(GOOD, begun=ON - 1),
    "skipped ones": replace(GOOD, last=f"{ON - 1} passed, 0 failed, 1 skipped"),
    "no last line": replace(GOOD, last=""),
    "a complaint": replace(GOOD, complaints=(MOVED,)),
    "a byte on stderr": replace(GOOD, said="-"),
}


@pytest.mark.parametrize("seen", DEFECTS.values(), ids=DEFECTS.keys())
def test_a_row_that_must_pass_notices(seen: Ended) -> None:
    assert verdict(Row("--ov"), GOOD) == []
    assert len(verdict(Row("--ov"), seen)) == 1


def test_a_row_that_must_fail_notices_another_failure_and_none() -> None:
    row = Row("--ov", code=1, fails=("group:1",), complaint="became")
    bad = replace(GOOD, code=1, last="", failed=frozenset(row.fails), complaints=(MOVED,))
    assert verdict(row, bad) == []
    assert verdict(row, replace(bad, complaints=(MOVED, "FAILED: EIO"))) == ["FAILED: EIO"]
    assert verdict(row, replace(bad, failed=frozenset({"group:2"}))) == ["group:1 did not fail"]
    assert len(verdict(row, GOOD)) == 2
    assert all(row.fails for row in ROWS if row.code == 1), "a failure that is expected must be named"


def test_a_row_that_may_fail_notices_another_failure() -> None:
    row = Row("--ov", complaint="became")
    assert verdict(row, GOOD) == verdict(row, replace(GOOD, code=1, last="", complaints=(MOVED,))) == []
    assert verdict(row, replace(GOOD, code=1, last="", complaints=("ERROR: EIO",))) == ["ERROR: EIO"]
    assert verdict(row, replace(GOOD, code=3)) == ["exit 3 instead of 0"]


def test_a_row_that_must_be_refused_notices_silence_and_other_words() -> None:
    row = Row("--ov", 0, 4, says="metacopy")
    refused = Ended(4, "", 0, frozenset(), (), "run: no metacopy\n")
    assert verdict(row, refused) == []
    for said in ("", "run: no index\n", "run: no metacopy\nmore\n"):
        assert len(verdict(row, replace(refused, said=said))) == 1


@needs_overlay
@isolated
def test_a_run_that_fails_and_one_that_leaves_a_mount_are_seen(tmp_path: Path) -> None:
    base, lower = two_filesystems(tmp_path)
    failing = Row("--ov --xdev --meta rename-exdev", 4)
    seen = ended(start([*command(failing), "--kernel=native"], environment(failing, base, lower)))
    assert seen.failed == frozenset(EXDEV) and seen.begun == 4
    assert len(verdict(failing, seen)) == 2 + len(seen.complaints)
    before = mounted()
    standing = Row("--ov --set-up", places="BL")
    assert start(standing.words.split(), environment(standing, base, lower)).returncode == 0
    assert mounted() != before and os.listdir(base) and os.listdir(lower)


def test_the_callers_variables_do_not_reach_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNIONMOUNT_MNTOPTIONS", "index=on")
    assert "UNIONMOUNT_MNTOPTIONS" not in environment(Row("--ov"), tmp_path, tmp_path)
    assert environment(Row("--ov", options="a"), tmp_path, tmp_path)["UNIONMOUNT_MNTOPTIONS"] == "-oa"
