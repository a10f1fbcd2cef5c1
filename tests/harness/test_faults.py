# SPDX-License-Identifier: GPL-2.0-only
"""Calls in which memory runs out: what is half done, lost or wrong afterwards is noticed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from datasets.tree import Directory, File
from tests.harness.isolated import isolated, needs_mounts, needs_overlay
from union.faults import FAIL_NTH, Disturbed, Met, Slab, each_allocation
from union.portrait import differences, portrait
from union.stand import Missing, Stand
from union.workspace import scratch_directory

LOWER = Directory({"a": File(b"a"), "b": File(b"b")})


class Pretended:
    """Calls have two allocations: the n-th failing is `spoil(path, n)`, which fails or not; then the call is made."""

    unit = "allocation"

    def __init__(self, spoil: Callable[[str, int], None], allocations: int = 2) -> None:
        self.spoil = spoil
        self.allocations = allocations
        self.top = ""

    def call(self, number: int, call: Callable[[], object]) -> Met:
        if number > self.allocations:
            return Met(0, call(), False)
        try:
            self.spoil(self.top, number)
        except OSError as error:
            return Met(error.errno or 0, None, True)
        return Met(0, call(), True)


def fails(_path: str, _number: int) -> None:
    raise OSError(errno.ENOMEM, "no memory")


def fails_half_done(path: str, number: int) -> None:
    os.unlink(f"{path}/a")
    fails(path, number)


def fails_after_all(path: str, number: int) -> None:
    remove_both(path)
    fails(path, number)


def fails_otherwise(_path: str, _number: int) -> None:
    raise OSError(errno.EPERM, "not so")


def leaves_more(path: str, _number: int) -> None:
    Path(path, "more").touch()


def is_not_disturbed(_path: str, _number: int) -> None:
    return


def remove_both(path: str) -> None:
    for name in ("a", "b"):
        os.unlink(f"{path}/{name}")


CASES = {
    fails: "",
    fails_after_all: "",
    fails_half_done: "b: Seen(",
    fails_otherwise: "EPERM: it may fail so",
    leaves_more: "more: Seen(",
    is_not_disturbed: "some call failed",
}


def complaints(pretended: Pretended, call: Callable[[str], object] = remove_both) -> str:
    with ExitStack() as stack:
        place = scratch_directory(stack) / "t"
        place.mkdir()
        stand = Stand(stack, place)

        def noted(path: str) -> None:
            pretended.top = path

        each_allocation(stand, pretended, Disturbed(call, LOWER, before=noted))
        return "\n".join(stand.complaints)


@needs_overlay
@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
@isolated
def test_a_disturbed_call(spoil: Callable[[str, int], None]) -> None:
    said = complaints(Pretended(spoil))
    wanted = CASES[spoil]
    assert wanted in said if wanted else not said, said


@needs_overlay
@isolated
def test_a_call_without_an_end() -> None:
    assert "needs no more than" in complaints(Pretended(fails, 10**6))


@needs_overlay
@isolated
def test_another_result() -> None:
    results = iter(range(100))
    assert "result: 1 instead of 0" in complaints(Pretended(is_not_disturbed), lambda _: next(results))


@needs_mounts
@isolated
def test_a_kernel_that_cannot_let_allocations_fail() -> None:
    if Path(FAIL_NTH).exists():
        pytest.skip("this kernel can")
    with ExitStack() as stack:
        place = scratch_directory(stack) / "t"
        place.mkdir()
        with pytest.raises(Missing, match="CONFIG_FAULT_INJECTION"):
            Slab(Stand(stack, place))


def test_a_portrait_shows_each_difference(tmp_path: Path) -> None:
    for name, content in (("one", b"1"), ("two", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(content)
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    assert portrait(one) == portrait(two)
    changes: tuple[Callable[[], object], ...] = (
        lambda: Path(two, "file").write_bytes(b"2"),
        lambda: os.chmod(f"{two}/file", 0o600),
        lambda: os.symlink("x", f"{two}/link"),
        lambda: os.mkdir(f"{two}/dir"),
        lambda: os.unlink(f"{two}/file"),
    )
    for change in changes:
        change()
        assert differences(portrait(two), portrait(one))
        shutil.rmtree(two)
        shutil.copytree(one, two)
        assert not differences(portrait(two), portrait(one))
