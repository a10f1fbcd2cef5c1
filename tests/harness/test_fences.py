# SPDX-License-Identifier: GPL-2.0-only
"""All fences: each bites on an unmigrated union, and one that does not is an error."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.harness.isolated import isolated, needs_fuse, needs_xfs
from union import fences
from union.configuration import FENCES, Configuration, fence_for
from union.errors import SetupError
from union.fence import CannotFence, Listening
from union.fences import table as fencetable
from union.fences.fuse import Silence, Stopped
from union.fences.table import OPERATIONS
from union.layers import build_layers

COMBINATIONS = fencetable.combinations()


def test_the_table_of_fences_is_that_of_their_classes() -> None:
    assert set(fences.kinds()) == set(FENCES)


def test_a_lower_gets_the_first_fence_that_is_for_it() -> None:
    lowers = ("xfs", "squashfs", "fuse", "tmpfs")
    assert [fence_for(lower) for lower in lowers] == ["shutdown", "swapped", "silence", ""]


@needs_xfs
@needs_fuse
@pytest.mark.parametrize(("name", "lower"), COMBINATIONS, ids=["-".join(pair) for pair in COMBINATIONS])
@isolated
def test_it_catches_what_a_union_still_needs(name: str, lower: str) -> None:
    try:
        found = {row.state: row for row in fencetable.rows(name, lower, detachable=False)}
    except CannotFence as error:
        pytest.skip(str(error))
    assert found["cold"].caught and "detached" not in found
    assert set(found["warm"].came) == set(OPERATIONS)
    if lower == "fuse" and name != "lying":
        assert set(OPERATIONS) - set(found["cold"].caught) == {"statfs"}


@needs_xfs
@needs_fuse
@pytest.mark.parametrize(("name", "lower"), COMBINATIONS, ids=["-".join(pair) for pair in COMBINATIONS])
@isolated
def test_one_that_does_nothing_is_an_error(name: str, lower: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = fences.kinds()[name]
    if issubclass(kind, Listening):
        monkeypatch.setattr(kind, "_heard", lambda _: [])
    else:
        monkeypatch.setattr(kind, "_raise", lambda *_: None)
    with ExitStack() as stack:
        made = build_layers(stack, [fencetable.TREE], Configuration(lower_fs=lower))  # type: ignore[arg-type]
        try:
            fence = fences.make(name, made.lower)
        except CannotFence as error:
            pytest.skip(str(error))
        fence.fence()
        with pytest.raises(SetupError, match="the fence does not bite"):
            fence.self_test()


@needs_fuse
@isolated
def test_silence_counts_what_comes_after_it_alone() -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [fencetable.TREE], Configuration(lower_fs="fuse"))
        fence = fences.make("silence", made.lower)
        assert isinstance(fence, Silence)
        fence.fence()
        fence.self_test()
        assert fence.heard() == [] and fence.total == 0
        (made.lower.root / "file").read_bytes()
        asked = fence.heard()
        assert any(one.startswith("READ file by process") for one in asked)
        assert fence.total == len(asked) and fence.heard() == []
        assert "before it" in fence.account()


@needs_fuse
@isolated
def test_behind_its_guard_nothing_hangs_for_ever() -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [fencetable.TREE], Configuration(lower_fs="fuse"))
        fence = fences.make("stopped", made.lower)
        assert isinstance(fence, Stopped)
        fence.fence()
        fence.self_test()
        fence.guard()
        with pytest.raises(OSError):
            (made.lower.root / "file").read_bytes()
