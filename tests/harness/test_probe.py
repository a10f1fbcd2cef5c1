# SPDX-License-Identifier: GPL-2.0-only
"""`./run --OPERATION PATH`: every letter does what it says, and every reproducer line can be pasted (parity 1.7)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from command import probe
from command.main import OPERATIONS
from datasets import tree
from tests.union import PARITY
from union.errors import UsageError
from union.operations import Held, OpenFile, Operation, RemoveTree, Size
from union.scenario import Group

CHECKOUT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=f"needs root, this is uid {os.geteuid()}")
TREE = tree.Directory(
    {
        "file": tree.File(b"content", mtime=1_000_000_000),
        "dir": tree.Directory({"inner": tree.File(b"inside")}),
        "empty": tree.Directory({}),
        "link": tree.Symlink("file"),
        "dirlink": tree.Symlink("empty"),
        "nul": tree.File(b"a\0b"),
        "secret": tree.File(b"secret", mode=0o600),
        "with space": tree.File(b"x y"),
    }
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with one of each kind in it; uid 1 can reach it, unlike pytest's own."""
    before = os.umask(0)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        tree.write(TREE, Path(name))
        monkeypatch.chdir(name)
        yield Path(name)
    os.umask(before)


def mode(path: str) -> str:
    return f"{os.lstat(path).st_mode & 0o7777:04o}"


def text(path: str) -> bytes:
    return Path(path).read_bytes()


Look = Callable[[], object]
CHANGED: dict[str, tuple[Look, object]] = {
    # open: letters
    "--open-file file -r": (lambda: text("file"), b"content"),
    "--open-file file -r -R content": (lambda: text("file"), b"content"),
    "--open-file file -R content": (lambda: text("file"), b"content"),
    "--open-file file -w -W X": (lambda: text("file"), b"Xontent"),
    "--open-file file -W X": (lambda: text("file"), b"Xontent"),
    "--open-file file -r -w -W X -R Xontent": (lambda: text("file"), b"Xontent"),
    "--open-file file -w -a -W X": (lambda: text("file"), b"contentX"),
    "--open-file file -r -w -a -W X": (lambda: text("file"), b"contentX"),
    "--open-file file -r -a -W X": (lambda: text("file"), b"contentX"),
    "--open-file file -a -W X": (lambda: text("file"), b"contentX"),
    "--open-file file -a": (lambda: text("file"), b"content"),
    "--open-file file -w -t": (lambda: text("file"), b""),
    "--open-file file -r -t -R ''": (lambda: text("file"), b""),
    "--open-file new -w -c -W X -m 0640": (lambda: (text("new"), mode("new")), (b"X", "0640")),
    "--open-file new -w -c -e -m 0": (lambda: (text("new"), mode("new")), (b"", "0000")),
    "--open-file file -r -c -e -E EEXIST": (lambda: text("file"), b"content"),
    "--open-file dir -r -d": (lambda: os.listdir("dir"), ["inner"]),
    "--open-file file -r -d -E ENOTDIR": (lambda: text("file"), b"content"),
    "--open-file dir -w -E EISDIR": (lambda: os.listdir("dir"), ["inner"]),
    "--open-file absent -r -E ENOENT": (lambda: os.path.exists("absent"), False),
    "--open-file link -w -W X": (lambda: text("file"), b"Xontent"),
    "--open-file nul -r -R 'a\\0b'": (lambda: text("nul"), b"a\0b"),
    "--open-file nul -w -W '\\0\\0'": (lambda: text("nul"), b"\0\0b"),
    "--open-file 'with space' -r -R 'x y'": (lambda: text("with space"), b"x y"),
    # numbers
    **{
        f"--open-file new -w -c -m {number}": (lambda: mode("new"), "0644")
        for number in ("0644", "420", "0x1a4", "0o644")
    },
    **{f"--chmod file {number}": (lambda: mode("file"), "0640") for number in ("0640", "416", "0x1a0", "0o640")},
    **{f"--mkdir made {number}": (lambda: mode("made"), "0750") for number in ("0750", "488", "0x1e8", "0o750")},
    "--chmod file 0": (lambda: mode("file"), "0000"),
    "--chmod file 04755": (lambda: mode("file"), "4755"),
    # the others
    "--chmod link 0600": (lambda: mode("file"), "0600"),
    "--link file new": (lambda: (os.stat("new").st_nlink, text("file")), (2, b"content")),
    "--link link new": (lambda: (os.readlink("new"), os.lstat("link").st_nlink), ("file", 2)),
    "--link file dir -E EEXIST": (lambda: os.stat("file").st_nlink, 1),
    "--link dir new -E EPERM": (lambda: os.path.exists("new"), False),
    "--mkdir dir 0755 -E EEXIST": (lambda: os.listdir("dir"), ["inner"]),
    "--readlink link": (lambda: os.readlink("link"), "file"),
    "--readlink link -R file": (lambda: os.readlink("link"), "file"),
    "--readlink file -E EINVAL": (lambda: text("file"), b"content"),
    "--rename file new": (lambda: (os.path.exists("file"), text("new")), (False, b"content")),
    "--rename dir new": (lambda: os.listdir("new"), ["inner"]),
    "--rename empty dir -E ENOTEMPTY": (lambda: os.path.exists("empty"), True),
    "--rmdir empty": (lambda: os.path.exists("empty"), False),
    "--rmdir dir -E ENOTEMPTY": (lambda: os.listdir("dir"), ["inner"]),
    "--truncate file 3": (lambda: text("file"), b"con"),
    "--truncate file 9": (lambda: text("file"), b"content\0\0"),
    "--truncate dir 0 -E EISDIR": (lambda: os.listdir("dir"), ["inner"]),
    "--unlink file": (lambda: os.path.exists("file"), False),
    "--unlink link": (lambda: (os.path.lexists("link"), text("file")), (False, b"content")),
    "--unlink dir -E EISDIR": (lambda: os.listdir("dir"), ["inner"]),
    "--utimes file": (lambda: os.stat("file").st_mtime > 2_000_000, True),
    "--utimes absent -E ENOENT": (lambda: os.path.exists("absent"), False),
    # a terminal slash
    "--open-file file/ -r -E ENOTDIR": (lambda: text("file"), b"content"),
    "--open-file dir/ -r": (lambda: os.listdir("dir"), ["inner"]),
    "--chmod dir/ 0700": (lambda: mode("dir"), "0700"),
    "--chmod file/ 0700 -E ENOTDIR": (lambda: mode("file"), "0644"),
    "--link file/ new -E ENOTDIR": (lambda: os.path.exists("new"), False),
    "--mkdir made/ 0700": (lambda: mode("made"), "0700"),
    "--readlink link/ -E ENOTDIR": (lambda: os.readlink("link"), "file"),
    "--readlink dirlink/ -E EINVAL": (lambda: os.readlink("dirlink"), "empty"),
    "--rename file/ new -E ENOTDIR": (lambda: text("file"), b"content"),
    "--rename dir/ new/": (lambda: os.listdir("new"), ["inner"]),
    "--rmdir empty/": (lambda: os.path.exists("empty"), False),
    "--truncate file/ 3 -E ENOTDIR": (lambda: text("file"), b"content"),
    "--unlink file/ -E ENOTDIR": (lambda: text("file"), b"content"),
    "--utimes file/ -E ENOTDIR": (lambda: os.stat("file").st_mtime, 1.0),
    "--utimes dir/": (lambda: os.listdir("dir"), ["inner"]),
    # letters of the others
    **{f"--chmod file 0600 {letter}": (lambda: mode("file"), "0600") for letter in ("-a", "-A", "-l", "-L")},
    "--unlink -L -A file": (lambda: os.path.exists("file"), False),
    "-E ENOENT --unlink absent": (lambda: os.path.exists("absent"), False),
}


@needs_root
@pytest.mark.parametrize("line", CHANGED)
def test_what_is_expected_is_silent_and_done(line: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    look, wanted = CHANGED[line]
    assert probe.run(shlex.split(line)) == 0
    assert capfd.readouterr() == ("", "")
    assert look() == wanted


WRONG = {
    "--open-file absent -r": "absent: ENOENT instead of success",
    "--open-file file -r -E ENOENT": "file: success instead of ENOENT",
    "--open-file file -r -R other": "file: success with b'content' instead of success with b'other'",
    "--open-file file -r -R ''": "file: success with b'content' instead of success with b''",
    "--open-file dir -r -E ENOTDIR": "dir: success instead of ENOTDIR",
    "--open-file file -r -d": "file: ENOTDIR instead of success",
    "--open-file file -w -c -e": "file: EEXIST instead of success",
    "--chmod absent 0644": "absent: ENOENT instead of success",
    "--chmod file 0644 -E EPERM": "file: success instead of EPERM",
    "--link file new -E EEXIST": "file: success instead of EEXIST",
    "--link file link": "file: EEXIST instead of success",
    "--mkdir dir 0755": "dir: EEXIST instead of success",
    "--mkdir new 0755 -E EEXIST": "new: success instead of EEXIST",
    "--readlink file": "file: EINVAL instead of success",
    "--readlink link -R other": "link: success with 'file' instead of success with 'other'",
    "--rename empty dir": "empty: ENOTEMPTY instead of success",
    "--rename file new -E EXDEV": "file: success instead of EXDEV",
    "--rmdir dir": "dir: ENOTEMPTY instead of success",
    "--rmdir empty -E EXDEV": "empty: success instead of EXDEV",
    "--truncate dir 0": "dir: EISDIR instead of success",
    "--truncate file 0 -E EISDIR": "file: success instead of EISDIR",
    "--unlink dir": "dir: EISDIR instead of success",
    "--unlink file -E EIO": "file: success instead of EIO",
    "--unlink file/": "file/: ENOTDIR instead of success",
    "--utimes absent": "absent: ENOENT instead of success",
    "--utimes absent -E EIO": "absent: ENOENT instead of EIO",
}


@needs_root
@pytest.mark.parametrize(("line", "said"), WRONG.items(), ids=list(WRONG))
def test_anything_else_is_one_line_and_exit_1(
    line: str, said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert probe.run(shlex.split(line)) == 1
    assert capfd.readouterr() == ("", f"{said}\n")


def test_each_operation_is_shown_both_ways() -> None:
    assert {f"--{name}" for name in probe.MAKERS} == OPERATIONS
    for lines in (CHANGED, WRONG):
        assert {word for line in lines for word in shlex.split(line) if word in OPERATIONS} == OPERATIONS


UNPRIVILEGED = {
    "--open-file secret -r -B -E EACCES": 0,
    "--open-file secret -r -B": 1,
    "--open-file secret -r -R secret": 0,
    "--open-file file -r -B -R content": 0,
    "--truncate file 0 -B -E EACCES": 0,
    "--mkdir dir/new 0755 -B -E EACCES": 0,
    "--chmod file 0600 -B -E EPERM": 0,
}


@needs_root
@pytest.mark.parametrize(("line", "code"), UNPRIVILEGED.items(), ids=list(UNPRIVILEGED))
def test_b_acts_as_uid_1(line: str, code: int, here: Path) -> None:
    assert probe.run(shlex.split(line)) == code
    assert (os.geteuid(), os.getegid()) == (0, 0)
    assert text("file") == b"content"


@needs_root
@pytest.mark.parametrize("letter", ["-v", "--verbose"])
def test_v_shows_what_it_gave(letter: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert probe.run(["--open-file", "file", "-r", "-R", "content", letter]) == 0
    assert capfd.readouterr() == (f"--open-file file -r -R content {letter}\n   -> success with b'content'\n", "")
    assert probe.run(["--rmdir", "dir", letter]) == 1
    said = capfd.readouterr()
    assert "-> ENOTEMPTY" in said.out and said.err.count("\n") == 1


MISTAKES = {
    "--open-file file": "one of -r, -w and -a is needed",
    "--open-file file -c": "one of -r, -w and -a is needed",
    "--open-file -r": "path",
    "--open-file '' -r": "the path is empty",
    "--open-file file other -r": "other",
    "--open-file file -r -x": "-x",
    "--open-file file -r -L": "-L",
    "--open-file file -r -E ENOTHING": "'ENOTHING' is no errno name",
    "--open-file file -r -E errorcode": "'errorcode' is no errno name",
    "--open-file file -r -E 2": "'2' is no errno name",
    "--open-file file -w -c -m rwx": "'rwx' is no number",
    "--chmod file": "mode",
    "--chmod file 0899": "is no number",
    "--chmod file u+x": "is no number",
    "--mkdir dir": "mode",
    "--link file": "to",
    "--rename file": "to",
    "--rename file new more": "more",
    "--truncate file": "size",
    "--truncate file much": "'much' is no size",
    "--truncate file -1": "-1",
    "--unlink file -R content": "-R",
    "--unlink": "path",
    "--rmdir empty --unlink file": "--unlink",
}


@needs_root
@pytest.mark.parametrize(("line", "why"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_told_and_touches_nothing(line: str, why: str, here: Path) -> None:
    before = {path: os.lstat(path).st_mtime_ns for path in sorted(here.rglob("*"))}
    with pytest.raises(UsageError, match=why):
        probe.run(shlex.split(line))
    assert {path: os.lstat(path).st_mtime_ns for path in sorted(here.rglob("*"))} == before


@needs_root
@pytest.mark.parametrize(
    ("line", "code", "lines"),
    [("--unlink file", 0, 0), ("--unlink dir", 1, 1), ("--unlink", 2, 1), ("--open-file 'with space' -R 'x y'", 0, 0)],
)
def test_from_a_shell(line: str, code: int, lines: int, here: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "run"), *shlex.split(line)]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", lines)


# Reproducer lines ---------------------------------------------------------------------------------

REPLAYED = [group for group in PARITY if group.name != "rename-exdev"]  # which takes an overlay


def replay(operation: Operation, root: str) -> int:
    """The operation by its reproducer line, or itself if it is none that can be asked for; an exit code."""
    if isinstance(operation, (RemoveTree, Size)):
        return int(operation.perform(root, Held()).errno != operation.fails)
    program, *words = shlex.split(operation.reproducer(root))
    assert program == "./run"
    return probe.run(words)


@needs_root
@pytest.mark.parametrize("group", REPLAYED, ids=lambda group: group.name)
def test_the_scenarios_can_be_replayed_line_by_line(group: Group, here: Path) -> None:
    (content,) = group.trees(group.name)
    tree.write(tree.Directory({group.name: content}), here)
    for number in range(1, len(group.scenarios) + 1):
        for operation in group.operations(number):
            assert replay(operation, str(here)) == 0, operation.reproducer(str(here))


@needs_root
def test_a_replayed_line_that_expects_something_else_fails(here: Path) -> None:
    (group,) = (group for group in PARITY if group.name == "open-plain")
    (content,) = group.trees(group.name)
    tree.write(tree.Directory({group.name: content}), here)
    (first, *_) = group.operations(1)
    assert isinstance(first, OpenFile)
    assert replay(first, str(here)) == 0
    assert replay(replace(first, reads=b"other"), str(here)) == 1
    assert replay(replace(first, fails=2), str(here)) == 1
    os.unlink(first.path)
    assert replay(first, str(here)) == 1
