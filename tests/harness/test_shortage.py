# SPDX-License-Identifier: GPL-2.0-only
"""A tmpfs that has room for so many inodes or pages: no more fit in, and what was asked for decides."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.isolated import isolated, needs_mounts, needs_xfs, stand
from union import syscalls
from union.shortage import Inodes, Pages, Protection


def make_files(root: Path) -> None:
    for name in ("a", "b"):
        (root / name).touch(exist_ok=False)


def make_links(root: Path) -> None:
    os.link(root / "old", root / "a")
    os.link(root / "old", root / "b")


def fill_pages(root: Path) -> None:
    (root / "old").write_bytes(b"x" * 8192)


def write_byte(path: str) -> None:
    Path(path).write_bytes(b"x")


@needs_mounts
@pytest.mark.parametrize(("kind", "call"), [(Inodes, make_files), (Inodes, make_links), (Pages, fill_pages)])
@isolated
def test_the_second_is_one_too_many(kind: type[Inodes], call: Callable[[Path], None]) -> None:
    with stand() as made:
        (made.root / "old").touch()
        injector = kind(made)
        for number, error, reached in ((1, errno.ENOSPC, True), (2, errno.ENOSPC, True), (3, 0, True), (4, 0, False)):
            met = injector.call(number, lambda: call(made.root))
            assert (met.error, met.reached) == (error, reached), number
            for name in ("a", "b"):
                (made.root / name).unlink(missing_ok=True)
            (made.root / "old").write_bytes(b"")


@needs_mounts
@pytest.mark.parametrize(("layer", "append_only", "immutable"), [("upper0", 0, 1), ("work0", 2, 3)])
@isolated
def test_protected_directories_hinder_as_long_as_the_call_lasts(layer: str, append_only: int, immutable: int) -> None:
    with stand() as made:
        injector = Protection(made)
        top = made.root / layer
        top.mkdir()
        names = iter(range(100))

        def hindered(call: Callable[[], object]) -> list[int]:
            errors = [injector.call(number, call).error for number in range(1, 6)]
            return [number for number, error in enumerate(errors) if error == errno.EPERM]

        assert hindered(lambda: (top / str(next(names))).mkdir()) == [immutable]
        assert hindered(lambda: next(top.iterdir()).rmdir()) == [append_only, immutable]
        assert not injector.call(5, lambda: None).reached


@needs_xfs
@isolated
def test_a_frozen_filesystem_lets_a_writer_wait_until_it_is_thawed() -> None:
    with stand() as made:
        made.filesystem("x", "xfs")
        syscalls.freeze(made.path("x"))
        writer = threading.Thread(target=write_byte, args=(made.path("x/file"),), daemon=True)
        writer.start()
        writer.join(0.2)
        waits = writer.is_alive()
        syscalls.thaw(made.path("x"))
        writer.join()
        assert waits
