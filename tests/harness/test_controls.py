# SPDX-License-Identifier: GPL-2.0-only
"""The controls: a control that passes, or that cannot be judged, is noticed."""

from __future__ import annotations

import pytest

from command import controls, native
from command.controls import Control, Row, Verdict
from command.options import parse
from report.events import Outcome, ScenarioEnded
from union.configuration import Configuration
from union.errors import SetupError, UsageError

FAILED = Row("a control", Verdict.FAILED_AS_IT_MUST, "EIO")
PASSED = Row("a control", Verdict.PASSED, "no EIO")
UNJUDGED = Row("a control", Verdict.UNJUDGED, "the guest was lost")


@pytest.mark.parametrize(
    ("rows", "stock", "status", "last"),
    [
        ([FAILED, FAILED], FAILED, 0, "3 passed, 0 failed, 0 skipped"),
        ([FAILED, PASSED], FAILED, 1, "2 passed, 1 failed, 0 skipped"),
        ([FAILED, FAILED], PASSED, 1, "2 passed, 1 failed, 0 skipped"),
        ([FAILED, UNJUDGED], FAILED, 3, "2 passed, 1 failed, 0 skipped"),
    ],
    ids=["all fail", "one passes", "stock accepts", "one unknown"],
)
def test_exit_code_and_counts(
    rows: list[Row],
    stock: Row,
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(native, "chosen", lambda options: True)
    monkeypatch.setattr(controls, "_rows_here", lambda: list(rows))
    monkeypatch.setattr(controls, "_stock_refuses", lambda options: stock)
    assert controls.run(parse(["--controls"])) == status
    assert capsys.readouterr().out.splitlines()[-1] == last


def judged(outcome: Outcome, complaint: str, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    def carry_out(configuration: object, groups: object, tell: controls._Collector) -> None:
        tell(ScenarioEnded("unlink", 1, "a scenario", outcome, (complaint,), 0.0))

    monkeypatch.setattr(native, "carry_out", carry_out)
    return controls._judge(Control("a control", Configuration(), ("unlink",))).verdict


def test_only_a_failure_with_eio_is_the_failure_that_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(Outcome.FAILED, "x: EIO instead of success", monkeypatch) is Verdict.FAILED_AS_IT_MUST
    assert judged(Outcome.FAILED, "x: mode 0600 instead of 0644", monkeypatch) is Verdict.PASSED
    assert judged(Outcome.ERROR, "x: EIO instead of success", monkeypatch) is Verdict.PASSED
    assert judged(Outcome.PASSED, "", monkeypatch) is Verdict.PASSED


def test_a_control_that_cannot_be_set_up_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(configuration: object, groups: object, tell: object) -> None:
        raise SetupError("no loop device")

    monkeypatch.setattr(native, "carry_out", carry_out)
    row = controls._judge(Control("a control", Configuration(), ("unlink",)))
    assert (row.verdict, row.proof) == (Verdict.UNJUDGED, "no loop device")


def test_the_stock_kernel_cannot_be_its_own_control() -> None:
    with pytest.raises(UsageError, match=r"stock-6\.12 is the control"):
        controls.run(parse(["--controls", "--kernel=stock-6.12"]))


def test_the_controls_are_those_of_the_contract() -> None:
    assert [control.name for control in controls.CONTROLS] == [
        "fence without migration",
        "copy-up without listing",
        "one file left uncopied",
        "one directory left unlisted",
        "xino=on instead of nofollow",
        "fuse without migration",
        "fuse, one file left uncopied",
        "fuse, one directory left unlisted",
        "fuse, xino=on instead of nofollow",
    ]
    assert all(control.configuration.fence and control.configuration.detach for control in controls.CONTROLS)
