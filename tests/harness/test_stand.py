# SPDX-License-Identifier: GPL-2.0-only
"""The stand of the trials: what does not hold is noticed, what a trial needs and lacks skips it, nothing is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.tree import Directory, File
from report.events import Event, Outcome, ScenarioEnded
from tests.harness.isolated import isolated, needs_mounts
from union import kernellog
from union.scenario import Group, Trial
from union.stand import Missing, Stand
from union.trial import run_trials

MOUNTS = Path("/proc/self/mountinfo")
LAYERS = "lowerdir={l},upperdir={u},workdir={w}"


def prepared(stand: Stand) -> None:
    stand.layers(l=Directory({"f": File(b"lower")}), u=Directory(), w=Directory())


def good(stand: Stand) -> None:
    prepared(stand)
    at = stand.mount(LAYERS)
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.fails(errno.ENOENT, os.stat, f"{at}/g")
    stand.refuses(errno.EINVAL, f"{LAYERS},redirect_dir=sideways", "n")


def refused(stand: Stand) -> None:
    prepared(stand)
    stand.refuses(errno.EINVAL, LAYERS)


def other_errno(stand: Stand) -> None:
    prepared(stand)
    stand.refuses(errno.EPERM, f"{LAYERS},redirect_dir=sideways")


def other_content(stand: Stand) -> None:
    prepared(stand)
    at = stand.mount(LAYERS)
    stand.same("content", Path(at, "f").read_bytes(), b"upper")


def succeeds(stand: Stand) -> None:
    prepared(stand)
    stand.fails(errno.EIO, os.stat, f"{stand.mount(LAYERS)}/f")


def raises(stand: Stand) -> None:
    prepared(stand)
    os.stat(f"{stand.mount(LAYERS)}/missing")


def lacks(_: Stand) -> None:
    raise Missing("no such kernel")


def falls_back(stand: Stand, *words: str) -> None:
    stand.warns(*words)
    prepared(stand)
    stand.filesystem("r", "ramfs")
    (stand.root / "r/u").mkdir()
    (stand.root / "r/w").mkdir()
    stand.mount("lowerdir={l},upperdir={r/u},workdir={r/w},index=on,redirect_dir=nofollow")


def warns(stand: Stand) -> None:
    falls_back(stand, "falling back to index=off", "falling back to uuid=null")


def falls_back_unexpectedly(stand: Stand) -> None:
    falls_back(stand, "falling back to uuid=null")


def does_not_warn(stand: Stand) -> None:
    prepared(stand)
    stand.mount(LAYERS)
    stand.warns("falling back to index=off")


def refused_silently(stand: Stand) -> None:
    prepared(stand)
    stand.refuses(errno.EINVAL, f"{LAYERS},redirect_dir=sideways", says="sideways is no direction")


def lacks_a_filesystem(stand: Stand) -> None:
    stand.filesystem("x", "no-such-fs")


def leaves_it_busy(stand: Stand) -> None:
    prepared(stand)
    os.open(f"{stand.mount(LAYERS)}/f", os.O_RDONLY)


CASES = {
    good: (Outcome.PASSED, ""),
    refused: (Outcome.FAILED, "mounted instead of refused"),
    other_errno: (Outcome.FAILED, "EINVAL instead of EPERM"),
    other_content: (Outcome.FAILED, "b'lower' instead of b'upper'"),
    succeeds: (Outcome.FAILED, "success instead of EIO"),
    raises: (Outcome.FAILED, 'os.stat(f"{stand.mount(LAYERS)}/missing")'),
    lacks: (Outcome.SKIPPED, "no such kernel"),
    warns: (Outcome.PASSED, ""),
    falls_back_unexpectedly: (Outcome.FAILED, "kernel log: overlayfs: ...falling back to index=off"),
    does_not_warn: (Outcome.FAILED, "kernel log: nothing about 'falling back to index=off'"),
    refused_silently: (Outcome.FAILED, "kernel log: nothing about 'sideways is no direction'"),
    lacks_a_filesystem: (Outcome.SKIPPED, "this kernel has no no-such-fs"),
    leaves_it_busy: (Outcome.ERROR, "cannot unmount"),
}


@needs_mounts
@pytest.mark.parametrize("work", CASES, ids=lambda work: work.__name__)
@isolated
def test_a_trial_ends_as_it_should(
    work: Callable[[Stand], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a guest, where all that is logged is ours.
    (tmp_path / "cmdline").write_text("mem=1G init=/x/python -- -I /x/init.pyc /x/spec\n")
    monkeypatch.setattr(kernellog, "CMDLINE", tmp_path / "cmdline")
    told: list[Event] = []
    before = MOUNTS.read_text()
    run_trials(Group("g", "A group.", trials=(Trial("t", work),)), [1], "./run --ov", lambda event: told.append(event))
    (end,) = (event for event in told if isinstance(event, ScenarioEnded))
    outcome, words = CASES[work]
    assert end.outcome is outcome, end.complaints
    assert words in "\n".join(end.complaints)
    assert MOUNTS.read_text() == before


@needs_mounts
@isolated
def test_on_a_machine_that_others_use_a_fall_back_in_the_log_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cmdline").write_text("root=/dev/vda\n")
    monkeypatch.setattr(kernellog, "CMDLINE", tmp_path / "cmdline")
    told: list[Event] = []
    group = Group("g", "A group.", trials=(Trial("t", falls_back_unexpectedly),))
    run_trials(group, [1], "./run --ov", lambda event: told.append(event))
    (end,) = (event for event in told if isinstance(event, ScenarioEnded))
    assert end.outcome is Outcome.PASSED, end.complaints
