# SPDX-License-Identifier: GPL-2.0-only
"""Reports: what is written is what happened, consumers of each format read it, and a lost run is told."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kcidb_io
import pytest
from junitparser import JUnitXml

from report import junit, kcidb, lava
from report.events import Aborted, Event, Noted, OperationEnded, OperationStarted, Outcome, Refused
from report.record import Recorder, all_of, decode, encode, read
from report.results import Cut, Results, collect
from tests.harness.sample_run import COUNTS, FAMILIES, events, results
from union.errors import SetupError

NOW = datetime(2026, 1, 2, tzinfo=UTC)

# The record ---------------------------------------------------------------------------------------


def test_events_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    told: list[Event] = []
    tell = all_of(Recorder(tmp_path / "events"), lambda event: told.append(event))
    for event in (*events(), OperationStarted("./run --mkdir x"), OperationEnded("success")):
        tell(event)
    assert list(read(tmp_path / "events")) == told[:-2] == list(events())
    assert len(told) == len(list(events())) + 2, "only the file leaves the operations out"


def test_events_that_cannot_be_kept_are_an_error() -> None:
    with pytest.raises(SetupError, match="--results: the events of the run cannot be written: No space left"):
        Recorder(Path("/dev/full"))(Noted("x"))


def test_a_line_that_was_cut_off_ends_the_record(tmp_path: Path) -> None:
    lines = [f"{encode(event)}\n" for event in events()]
    (tmp_path / "events").write_text("".join(lines)[:-5])
    assert list(read(tmp_path / "events")) == list(events())[:-1]


@pytest.mark.parametrize("line", ['{"event": "Event"}\n', '{"text": "x"}\n', "garbage\n", '{"event": "Outcome"}\n'])
def test_what_is_no_event_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"event|Expecting"):
        decode(line)


def test_a_scenario_that_never_ended_is_an_error() -> None:
    whole, lost = results(), results(whole=False)
    assert Counter(case.outcome for case in whole.cases) == COUNTS
    assert lost.cases[:-2] == whole.cases
    last, run = lost.cases[-2:]
    assert (last.selector, last.outcome, last.origin) == ("xattrs:3", Outcome.ERROR, "xattrs.py:7")
    assert (run.selector, run.outcome) == ("run", Outcome.ERROR)


def test_a_run_that_was_cut_off_between_two_scenarios_is_an_error() -> None:
    told = list(events())[:-1]
    assert collect("./run", told, {}).cases[-1].outcome is Outcome.ERROR
    assert collect("./run", [], {}).cases[-1].outcome is Outcome.ERROR


@pytest.mark.parametrize("fault", [True, False])
def test_what_ended_a_run_is_the_reason_and_decides_whose_fault_it_is(fault: bool) -> None:
    lost = collect("./run", events(whole=False), FAMILIES, Cut("guest: the kernel panicked", fault))
    outcome = Outcome.FAILED if fault else Outcome.ERROR
    assert [(case.selector, case.outcome) for case in lost.cases[-2:]] == [("xattrs:3", outcome), ("run", outcome)]
    assert all(case.complaints[0] == "guest: the kernel panicked" for case in lost.cases[-2:])


def test_the_reason_that_a_run_gave_itself_is_known() -> None:
    told = [*list(events())[:-1], Aborted("no space")]
    assert collect("./run", told, FAMILIES).cases[-1].complaints[0] == "no space"
    assert collect("./run", told, FAMILIES, Cut("a panic", fault=True)).cases[-1].complaints[0] == "a panic"


def test_a_fault_that_a_run_outlived_fails_it() -> None:
    cases = collect("./run", events(), FAMILIES, Cut("guest: the kernel reported a fault", fault=True)).cases
    assert cases[:-1] == results().cases and (cases[-1].group, cases[-1].outcome) == ("kernel", Outcome.FAILED)
    assert collect("./run", events(), FAMILIES, Cut("still mounted", fault=False)).cases == results().cases


def test_a_run_that_cannot_be_carried_out_is_skipped() -> None:
    (case,) = collect("./run --ov --xino", [Refused("no nofollow here")], FAMILIES).cases
    assert (case.selector, case.outcome, case.complaints) == ("run", Outcome.SKIPPED, ("no nofollow here",))


def test_each_case_knows_what_repeats_it() -> None:
    found = results()
    assert [found.reproducer(case) for case in found.cases[1:4]] == [
        "./run --ov --xino --operations=before rename-file:2",
        "./run --ov --xino --operations=after rename-file:1",
        "./run --ov --xino --operations=after",
    ]
    assert found.evidence == {"kernel": ["6.12.117-nofollow (x86_64)"]}


# JUnit --------------------------------------------------------------------------------------------


def test_junitparser_counts_the_same(tmp_path: Path) -> None:
    (tmp_path / "results.xml").write_text(junit.write(results(), NOW), encoding="utf-8")
    document = JUnitXml.fromfile(str(tmp_path / "results.xml"))
    assert (document.tests, document.failures, document.errors, document.skipped) == (7, 2, 1, 1)
    suites = {suite.name: suite for suite in document}
    assert set(suites) == {"rename_file.before", "rename_file.after", "checks.after", "xattrs.after"}
    assert {suite.timestamp for suite in suites.values()} == {"2026-01-02T00:00:00+00:00"}
    cases = list(suites["rename_file.before"])
    assert [case.name.partition(":")[0] for case in cases] == ["rename-file", "rename-file"]
    (failure,) = cases[1].result
    assert "EIO instead of success" in failure.message
    assert "reproduce: ./run --ov --xino --operations=before rename-file:2" in failure.text
    suite: Any = suites["checks.after"]
    assert {item.name: item.value for item in suite.properties()}["kernel"].startswith("6.12")


# LAVA ---------------------------------------------------------------------------------------------


def test_lava_names_are_unique_and_plain() -> None:
    lines = [line.split(" ") for line in lava.write(results(whole=False)).splitlines()]
    names = [name for name, _ in lines]
    assert len(set(names)) == len(names) == 9
    assert all(name.replace("-", "").replace("_", "").isalnum() and name.isascii() for name in names)
    assert Counter(word for _, word in lines) == {"pass": 3, "fail": 2, "skip": 1, "unknown": 3}
    assert lines[0] == ["rename-file_1_before", "pass"]


def test_a_lava_name_that_comes_twice_is_numbered() -> None:
    twice = Results("./run", [*results().cases[:1], *results().cases[:1]])
    assert lava.write(twice) == "rename-file_1_before pass\nrename-file_1_before_2 pass\n"


# KCIDB --------------------------------------------------------------------------------------------


def test_kcidb_takes_the_document() -> None:
    text = kcidb.write(results(), "ovl_detach", "ovl_detach:6.12", NOW)
    document = json.loads(text)
    assert kcidb_io.schema.V5_3.is_valid(document)
    assert Counter(test["status"] for test in document["tests"]) == {"PASS": 3, "FAIL": 2, "SKIP": 1, "ERROR": 1}
    assert document["tests"][1]["path"] == "ovl_detach.before.rename_file.rename-file.2"
    assert len({test["id"] for test in document["tests"]}) == 7


def test_kcidb_would_refuse_a_wrong_one() -> None:
    document = json.loads(kcidb.write(results(), "ovl_detach", "ovl_detach:6.12"))
    document["tests"][0]["status"] = "passed"
    assert not kcidb_io.schema.V5_3.is_valid(document)
