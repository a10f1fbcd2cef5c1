# SPDX-License-Identifier: GPL-2.0-only
"""Processes that hold something: each result is told apart; and the tables are those of the document."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from command import options as options_module
from command.options import parse
from command.tables import TABLES
from datasets.tree import write
from union import holders
from union.errors import SetupError
from union.holders import FAR, ROWS, SILENT, TREE, WORKS, WRONG, Holder, Row, Silent
from union.outliving import RELEASES, REMOUNTS, SAME, difference
from union.portrait import Seen

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/outliving.md"


@pytest.fixture
def top(tmp_path: Path) -> str:
    write(TREE, tmp_path)
    return str(tmp_path)


def refuse(held: object) -> None:
    raise FileNotFoundError(2, "made up")


def silent(held: object) -> None:
    raise Silent


def hang(held: object) -> None:
    select.select([os.pipe()[0]], [], [])


def row(what: str, use: str) -> Row:
    return next(row for row in ROWS if (row.what, row.use) == (what, use))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.what}, {row.use}")
def test_all_works_in_a_plain_directory(row: Row, top: str) -> None:
    if row.what == "running program" and os.uname().machine != "x86_64":
        pytest.skip("a program of another machine")
    assert Holder(row, top).result() == WORKS


@pytest.mark.parametrize(
    ("what", "use", "harm", "result"),
    [
        ("file, read-only", "read", lambda top: os.truncate(f"{top}/file", 9), WRONG),
        ("file, read and write", "read", lambda top: os.truncate(f"{top}/file", FAR + 9), WRONG),
        ("O_PATH", "open through /proc, read", lambda top: os.truncate(f"{top}/file", 9), WRONG),
        ("directory", "list", lambda top: os.rename(f"{top}/dir/in", f"{top}/in"), WRONG),
        ("directory", "openat, read", lambda top: os.unlink(f"{top}/dir/in"), "ENOENT"),
        ("directory", "stat of a missing name", lambda top: os.mkdir(f"{top}/dir/none"), WRONG),
        ("directory", "mkdirat", lambda top: os.mkdir(f"{top}/dir/made"), "EEXIST"),
        ("working directory", "getcwd", lambda top: os.rename(f"{top}/dir", f"{top}/moved"), WRONG),
        ("working directory", "open a file, read", lambda top: os.unlink(f"{top}/dir/in"), "ENOENT"),
        ("shared mapping", "a page that was read", lambda top: os.truncate(f"{top}/file", 0), "SIGBUS"),
        ("private mapping", "another page", lambda top: os.truncate(f"{top}/file", 9), "SIGBUS"),
        ("inotify watch of a file", "its time changes", lambda top: os.unlink(f"{top}/file"), "ENOENT"),
    ],
)
def test_what_does_not_work_is_told(
    what: str, use: str, harm: Callable[[str], None], result: str, top: str
) -> None:
    holder = Holder(row(what, use), top)
    harm(top)
    assert holder.result() == result


def test_no_event_an_errno_and_a_signal_are_results(top: str) -> None:
    for work, result in (
        (silent, SILENT),
        (refuse, "ENOENT"),
        (lambda held: os.kill(os.getpid(), signal.SIGUSR1), "SIGUSR1"),
    ):
        assert Holder(Row("made", "up", str, work), top).result() == result


def test_what_cannot_be_opened_fails_or_hangs_is_an_error_of_ours(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"made, up: .*none"):
        Holder(Row("made", "up", lambda top: os.open(f"{top}/none", os.O_RDONLY), str), top)
    with pytest.raises(SetupError, match="the process failed"):
        Holder(Row("made", "up", str, lambda held: held.none), top).result()
    monkeypatch.setattr(holders, "_PATIENCE", 0.2)
    with pytest.raises(SetupError, match="made, up: hangs"):
        Holder(Row("made", "up", str, hang), top).result()


def test_unions_that_differ_are_told_apart() -> None:
    tree = {"": Seen(0, 1), "a": Seen(0, 2)}
    wanted = (tree, {"": 1, "a": 2})
    assert difference(({**tree, "a": Seen(5)}, {}), wanted) == "EIO for some names"
    assert difference(({"": Seen(0, 1)}, {"": 1}), wanted) == "other names"
    assert difference(({**tree, "a": Seen(0, 3)}, wanted[1]), wanted) == "other objects"
    assert difference((tree, {"": 1, "a": 3}), wanted) == "other inode numbers"


def test_the_document_has_all_rows_in_order() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]
    first = ("opened", "mounted again over", "the lower layer")
    headers = [number for number, line in enumerate(cells) if line[0] in first]
    opened, again, released = (
        cells[start + 1 : end] for start, end in zip(headers, [*headers[1:], None], strict=True)
    )
    assert [line[:2] for line in opened] == [[one.what, one.use] for one in ROWS]
    assert [line[0] for line in again] == list(REMOUNTS)
    assert [line[0] for line in released] == list(RELEASES)
    for one, line in zip(ROWS, opened, strict=True):
        assert (line[3], line[6]) == (WORKS, WORKS), "what is opened once it is copied up must work"
        assert (WORKS in (line[4], line[7])) != one.needs_lower
    assert {SAME} == {line[1] for line in again[:3]}


def test_a_table_is_a_run_of_its_own() -> None:
    options = parse(["--table=outliving", "--kernel=7.2"])
    assert (options.action, options.table) == ("table", "outliving")
    assert set(TABLES) == set(options_module.TABLES)
