# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts of several kernels side by side: what differs is found, and what must fail with a bug is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.seeded import named
from overlay_xfstests import bugs, compare_command, comparison, suite
from overlay_xfstests.comparison import FAIL, NOTRUN, PASS, Side, Verdict
from union.errors import SetupError, UsageError

REPORT = """<?xml version="1.0"?>
<testsuite name="xfstests">
<testcase classname="xfstests.global" name="overlay/001" time="1"/>
<testcase classname="xfstests.global" name="overlay/002" time="1"><failure message="output mismatch"/></testcase>
<testcase classname="xfstests.global" name="overlay/003" time="0"><skipped message="no such thing" /></testcase>
</testsuite>
"""
# A check that fails on the kernel `bad` and is broken on `broken`.
CHECK = """\
import sys
from pathlib import Path

words = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
kernel = words["kernel"]
if kernel == "broken":
    print("check: no such kernel", file=sys.stderr)
    sys.exit(3)
found = '<failure message="it does not hold"/>' if kernel == "bad" else ""
if kernel != "silent":
    Path(words["results"], "result.xml").write_text(
        f'<testsuite><testcase name="overlay/001"/><testcase name="overlay/002">{found}</testcase></testsuite>')
sys.exit(1 if kernel in ("bad", "lies") else 0)
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That check in place of ours."""
    program = tmp_path / "check"
    program.write_text(CHECK)
    monkeypatch.setattr(comparison, "CHECK", program)


def compared(tmp_path: Path, *kernels: str) -> list[dict[str, Verdict]]:
    sides = [comparison.side(kernel) for kernel in kernels]
    said: list[str] = []
    columns = comparison.compared(sides, tmp_path, lambda _: ["-g", "x"], tmp_path / "results", 2, said.append)
    assert len(said) == len(kernels)
    return columns


def test_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "result.xml"
    report.write_text(REPORT)
    assert comparison.verdicts(report) == {
        "overlay/001": Verdict(PASS),
        "overlay/002": Verdict(FAIL, "output mismatch"),
        "overlay/003": Verdict(NOTRUN, "no such thing"),
    }


def test_report_that_is_none_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "result.xml"
    report.write_text(REPORT[:200])
    with pytest.raises(SetupError, match="cannot be read"):
        comparison.verdicts(report)


@pytest.mark.usefixtures("check")
def test_what_differs_is_told(tmp_path: Path) -> None:
    columns = compared(tmp_path, "good", "bad,xino=nofollow")
    assert comparison.differing(columns) == ["overlay/002"]
    sides = [Side("good", "good"), Side("bad", "bad")]
    assert "overlay/002  pass    FAIL" in comparison.table(sides, columns, ["overlay/002"])
    assert comparison.reasons(sides, columns, ["overlay/002"]) == ["overlay/002 on bad: it does not hold"]
    assert "good           2       0         0" in comparison.totals(sides, columns)


@pytest.mark.usefixtures("check")
def test_the_same_everywhere_is_no_difference(tmp_path: Path) -> None:
    assert comparison.differing(compared(tmp_path, "good", "fine")) == []


def test_a_test_that_one_side_lacks_differs() -> None:
    assert comparison.differing([{"overlay/001": Verdict(PASS)}, {}]) == ["overlay/001"]


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("broken", "check ended with 3: check: no such kernel"),
        ("silent", "cannot be read"),
        ("lies", "disagree"),
    ],
)
def test_a_check_that_cannot_be_believed_ends_it(tmp_path: Path, kernel: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        compared(tmp_path, "good", kernel)


def test_options_go_to_check(tmp_path: Path) -> None:
    one = comparison.side("6.12,xino=nofollow,index=on")
    assert (one.kernel, one.options) == ("6.12", "xino=nofollow,index=on")
    assert "--mount-options=xino=nofollow,index=on" in one.command(tmp_path, ["031"], tmp_path)
    with pytest.raises(UsageError):
        comparison.side(",xino=nofollow")


def test_bugs_are_meant_to_be_caught() -> None:
    """Each of our tests has a bug, in the order of the tests; every bug is one that there is, and has a test."""
    meant = bugs.meant()
    assert [*meant] == [test.name for test in suite.read().tests]
    assert all(meant.values())
    assert {bug for names in meant.values() for bug in names} == {bug.name for bug in named([], bugs.BUGS)}


def test_what_is_not_caught_is_told() -> None:
    meant = {"one": ("b", "c"), "two": ("b",)}
    caught = {"one": Verdict(FAIL), "two": Verdict(FAIL)}
    sound = {"one": Verdict(PASS), "two": Verdict(PASS)}
    assert bugs.complaints(meant, sound, {"b": caught, "c": caught}) == []
    assert bugs.complaints(meant, sound, {"b": caught, "c": sound}) == ["one: pass on c"]
    assert bugs.complaints(meant, sound, {"b": {"one": Verdict(FAIL)}}) == ["two: - on b"]
    assert bugs.complaints(meant, {**sound, "two": Verdict(NOTRUN)}, {}) == ["two: notrun without a bug"]
    assert "x" in bugs.table(["one"], {"b": caught})
    with pytest.raises(UsageError):
        bugs.tests_for("d", meant)


@pytest.mark.parametrize(
    "words", [["/x"], ["/x", "--kernel=6.12"], ["/x", "--bugs", "--kernel=6.12"], ["/x", "031", "--bugs="],
              ["/x", "--kernel=a", "--kernel=b", "--jobs=0"]]
)  # fmt: skip
def test_bad_words_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        compare_command.main(words)


@pytest.mark.usefixtures("check")
def test_a_difference_is_explained_by_an_option_alone(tmp_path: Path) -> None:
    columns = compared(tmp_path, "good", "bad", "bad,index=on")
    known = {("overlay/002", "index=on"): "it may"}
    names = ["overlay/002"]
    sides = [Side("good", "good"), Side("bad", "bad"), Side("bad,index=on", "bad", "index=on")]
    assert comparison.unexplained(sides, columns, names, known) == names
    with_it = [sides[0], sides[2]], [columns[0], columns[2]]
    assert comparison.unexplained(*with_it, names, known) == []
    assert comparison.unexplained(*with_it, names, {}) == names


def test_explanations_are_read(tmp_path: Path) -> None:
    assert all(test.startswith("overlay/") for test, _ in comparison.explanations())
    file = tmp_path / "differences"
    file.write_text("overlay/001: no option\n")
    with pytest.raises(SetupError, match="not a line"):
        comparison.explanations(file)
