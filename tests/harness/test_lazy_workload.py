# SPDX-License-Identifier: GPL-2.0-only
"""The workload and the audit are content with a tree that is as it must be, and with no other."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.harness.small_image import files
from union.lazy import image
from union.lazy.audit import Audit, audit
from union.lazy.workload import Changes, Failed, Step, Worker, Wrong, judge, owner

STEPS = 600
PATIENCE = 20.0  # seconds


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in which workers may work."""
    found = files(tmp_path / "tree", 60)
    monkeypatch.chdir(found)
    return found


def steps(worker: Worker, kind: str) -> Iterator[Step]:
    return (step for step in worker.steps() if step.kind == kind)


def whole(tree: Path, content: dict[str, image.Entry], changes: Changes) -> Audit:
    fd = os.open(tree, os.O_PATH)
    try:
        return audit([(".", fd)], content, changes, PATIENCE)
    finally:
        os.close(fd)


def test_two_workers_find_all_as_it_must_be(tree: Path) -> None:
    content = image.read(tree)
    workers = [Worker(content, number, 2, seed=3) for number in range(2)]
    changes = Changes()
    kinds = Counter[str]()
    for pair in islice(zip(*(worker.steps() for worker in workers), strict=True), STEPS):
        for step in pair:
            assert judge(step) == ("ok", ""), step.words
            kinds[step.kind] += 1
    for worker in workers:
        changes.add(worker.changes)
    assert set(kinds) == {
        *("read", "stat", "list", "lookup", "create", "append", "rename", "unlink", "mkdir", "rmdir", "readlink"),
    }
    assert changes.files and changes.gone and not changes.unsure
    found = whole(tree, content, changes)
    assert (found.errors, found.wrong) == (0, 0), found.told
    # Without what they have changed it is not.
    assert whole(tree, content, Changes()).wrong


@pytest.mark.parametrize("number", [0, 1])
def test_the_same_seed_does_the_same(tree: Path, number: int) -> None:
    content = image.read(tree)
    told = [[step.words for step in islice(Worker(content, number, 2, seed).steps(), 50)] for seed in (1, 1, 2)]
    assert told[0] == told[1] != told[2]


def _invert(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes(byte ^ 0xFF for byte in data) or b"!")


SPOILED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "other data": ("read", _invert),
    "no data": ("read", lambda path: os.truncate(path, 0)),
    "no such name, read": ("read", Path.unlink),
    "no such name, listed": ("list", Path.unlink),
    "another mode": ("stat", lambda path: path.chmod(0o600)),
    "another size": ("stat", lambda path: path.write_bytes(b"more than there was" * 2000)),
}


@pytest.mark.parametrize("how", SPOILED)
def test_wrong_data_is_found(tree: Path, how: str) -> None:
    kind, spoil = SPOILED[how]
    content = image.read(tree)
    for path, entry in content.items():
        if entry.is_file:
            spoil(tree / path)
    worker = Worker(content, 0, 2, seed=1)
    verdicts = Counter(judge(step)[0] for step in islice(steps(worker, kind), 30))
    assert verdicts["wrong"] and not verdicts["error"], verdicts
    assert whole(tree, content, Changes()).wrong


def test_an_empty_listing_is_wrong(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = image.read(tree)
    worker = Worker(content, 0, 2, seed=1)
    monkeypatch.setattr(os, "listdir", lambda _: [])
    verdicts = [judge(step) for step in islice(steps(worker, "list"), 10)]
    assert all(verdict == "wrong" and "are missing" in detail for verdict, detail in verdicts), verdicts
    assert whole(tree, content, Changes()).wrong


def _raising(error: Exception) -> Step:
    def call() -> None:
        raise error

    return Step("read", "read", call)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (OSError(errno.ENOTCONN, ""), ("error", "ENOTCONN")),
        (OSError(errno.EIO, ""), ("error", "EIO")),
        (OSError(errno.ESTALE, ""), ("error", "ESTALE")),
        (OSError(errno.ENOENT, ""), ("wrong", "ENOENT")),
        (OSError(errno.EEXIST, ""), ("wrong", "EEXIST")),
        (Failed("status 1"), ("error", "status 1")),
        (Wrong("other data"), ("wrong", "other data")),
    ],
)
def test_an_errno_that_says_something_about_the_tree_is_wrong_data(
    error: Exception, verdict: tuple[str, str]
) -> None:
    assert judge(_raising(error)) == verdict


def test_nobody_knows_what_a_failed_change_has_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = image.read(tree)
    worker = Worker(content, 0, 1, seed=1)
    step = next(steps(worker, "rename"))

    def refuse(_old: str, _new: str) -> None:
        raise OSError(errno.ENOTCONN, "")

    monkeypatch.setattr(os, "rename", refuse)
    assert judge(step) == ("error", "ENOTCONN")
    assert len(worker.changes.unsure) == 2
    assert (whole(tree, content, worker.changes).errors, whole(tree, content, worker.changes).wrong) == (0, 0)


def test_an_audit_tells_errors_from_wrong_data(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = image.read(tree)

    def dead(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTCONN, "")

    monkeypatch.setattr(os, "stat", dead)
    found = whole(tree, content, Changes())
    assert (found.right, found.errors, found.wrong) == (0, len(content), 0)


def test_of_workers_that_still_work_only_what_is_shared_is_looked_at(tree: Path) -> None:
    content = image.read(tree)
    workers = [Worker(content, number, 2, seed=3) for number in range(2)]
    for pair in islice(zip(*(worker.steps() for worker in workers), strict=True), 100):
        assert [judge(step)[0] for step in pair] == ["ok", "ok"]
    fd = os.open(tree, os.O_PATH)
    try:
        found = audit([(".", fd)], content, None, PATIENCE)
        assert found.right and not (found.errors or found.wrong), found.told
        shared = next(path for path, entry in content.items() if entry.is_file and owner(path, 2) is None)
        (tree / shared).unlink()
        assert audit([(".", fd)], content, None, PATIENCE).wrong
    finally:
        os.close(fd)


def test_an_audit_that_hangs_is_told(tree: Path) -> None:
    content = image.read(tree)
    path = next(path for path, entry in content.items() if entry.is_file)
    (tree / path).unlink()
    os.mkfifo(tree / path)  # whose opening waits for a writer
    changes = Changes(files={path: content[path].what})
    fd = os.open(tree, os.O_PATH)
    try:
        assert audit([(".", fd)], content, changes, 0.5).hung
    finally:
        os.close(fd)


def test_programs_and_libraries_belong_to_nobody() -> None:
    assert all(owner(f"usr/lib/python3/{number}", 3) is None for number in range(100))
    assert {owner(f"usr/share/{number}", 3) for number in range(100)} == {None, 0, 1, 2}
