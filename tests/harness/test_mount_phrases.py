# SPDX-License-Identifier: GPL-2.0-only
"""What trials about mounting share: a wrong option in effect is noticed, and parameters that were set are put back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from report.events import Event, Outcome, ScenarioEnded
from tests.harness.isolated import isolated, needs_overlay
from tests.mounts import module_parameters
from tests.mounts.phrases import LAYERS, default, effective, needs_option, prepared
from union import effective as parameters
from union.scenario import Group, Trial
from union.stand import Stand
from union.trial import run_trials


def ended(work: Callable[[Stand], None]) -> ScenarioEnded:
    told: list[Event] = []
    run_trials(Group("g", "A group.", trials=(Trial("t", work),)), [1], "./run --ov", lambda event: told.append(event))
    (end,) = (event for event in told if isinstance(event, ScenarioEnded))
    return end


def mounted(stand: Stand, key: str, wanted: str | None) -> None:
    prepared(stand)
    stand.mount(f"{LAYERS},redirect_dir=on,index=on")
    effective(stand, key, wanted)


@needs_overlay
@pytest.mark.parametrize(
    ("key", "wanted", "outcome"),
    [
        ("index", "on", Outcome.PASSED),
        ("index", "off", Outcome.FAILED),
        ("redirect_dir", "on", Outcome.PASSED),
        ("redirect_dir", "nofollow", Outcome.FAILED),
        ("userxattr", None, Outcome.PASSED),
        ("userxattr", "", Outcome.FAILED),
    ],
)
@isolated
def test_what_is_in_effect_is_compared(key: str, wanted: str | None, outcome: Outcome) -> None:
    assert ended(lambda stand: mounted(stand, key, wanted)).outcome is outcome


@needs_overlay
@isolated
def test_an_option_that_the_kernel_lacks_skips() -> None:
    end = ended(lambda _: needs_option("no_such_option", "1"))
    assert (end.outcome, end.complaints) == (Outcome.SKIPPED, ("this kernel's overlay has no no_such_option=1",))
    assert ended(lambda _: needs_option("index", "on")).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"redirect_dir": "nofollow", "index": "off", "xino": "off", "uuid": "auto", "userxattr": None}),
        ({"redirect_dir": "Y", "redirect_always_follow": "Y"}, {"redirect_dir": "on"}),
        ({"redirect_always_follow": "Y", "xino_auto": "Y"}, {"redirect_dir": "follow", "xino": "auto"}),
        ({"index": "Y", "metacopy": "Y"}, {"index": "on", "metacopy": "on", "nfs_export": "off"}),
    ],
)
def test_defaults_follow_the_parameters(
    settings: dict[str, str], wanted: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "PARAMETERS", tmp_path)
    for name, value in settings.items():
        (tmp_path / name).write_text(value)
    assert {key: default(key) for key in wanted} == wanted


@pytest.mark.parametrize("guest", [True, False])
@needs_overlay
@isolated
def test_parameters_are_put_back_and_set_in_a_guest_only(guest: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen: list[str] = []

        def sets(stand: Stand) -> None:
            directory = stand.root / "parameters"
            directory.mkdir()
            (directory / "index").write_text("N")
            patch.setattr(parameters, "PARAMETERS", directory)
            patch.setattr(module_parameters, "PARAMETERS", directory)
            stand.undo(lambda: seen.append((directory / "index").read_text()))  # after what is undone later
            module_parameters.set_parameters(stand, {"index": "Y"})
            seen.append((directory / "index").read_text())

        patch.setattr(module_parameters, "in_guest", lambda: guest)
        end = ended(sets)
    assert (end.outcome, seen) == ((Outcome.PASSED, ["Y", "N"]) if guest else (Outcome.SKIPPED, ["N"]))
