# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios as tests of pytest: their ids, on which worker they run, and everything that must not pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness.trouble import plant
from tests.scopes import WORTH_A_UNION, scope_of, stages
from tests.union import GROUPS, rename_file
from tests.union.choice import default_groups
from union.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
SCENARIO = r"tests/(union|union/beyond|mounts)/\w+\.py"
LIMIT = 120  # seconds for one run
FAMILY = "tests/union/rename_file.py"
ONE = f"{FAMILY}::rename-file::onto itself[ov-xino-detached-6.12]"
RENAMES = 2 * sum(len(group.labels) for group in rename_file.GROUPS)  # its scenarios, before the detach and after it


def run(*words: str, path: Path | None = None) -> tuple[str, str]:
    """Output of pytest in this checkout, and its last line without the time; plugins are looked for in `path` too."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(path or CHECKOUT)])}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    text = done.stdout + done.stderr
    [last] = re.findall(r"^=+ (.*) in [\d.]+s(?: .*)?=+$", done.stdout, re.M) or [text]
    return text, last


# What runs.


def test_a_family_runs_on_its_unions_in_guests() -> None:
    text, last = run("--union=ov-xino", "--kernel=6.12", "-n2", FAMILY)
    assert last == f"{RENAMES} passed", text
    assert f"PASSED {ONE} " in text and f"PASSED {ONE.replace('detached', 'before')} " in text


@pytest.mark.parametrize("words", [[ONE], [FAMILY, "-k", "onto and itself and detached"]], ids=["id", "expression"])
def test_one_scenario_can_be_named(words: list[str]) -> None:
    text, last = run("--union=ov-xino", "--kernel=6.12", *words)
    assert last.startswith("1 passed") and f"{ONE} PASSED" in text, text


def collected(*words: str) -> list[str]:
    text, _ = run("--collect-only", "-q", "-q", *words)
    return [line for line in text.splitlines() if "::" in line]


def test_ids_are_unique_and_only_scenarios_run() -> None:
    ids = collected("--union=ov", "--kernel=native")
    assert len(ids) == len({name.partition("::")[2] for name in ids}) > 900, "a scenario of two files runs twice"
    assert all(re.fullmatch(rf"{SCENARIO}::[\w-]+::.+\[ov-native\]", name) for name in ids)


def test_what_takes_long_runs_if_its_file_is_named() -> None:
    file = "tests/mounts/power_cuts.py"
    assert any(line.startswith(f"{file}::power-cuts::") for line in collected("--union=ov-xino", "--kernel=6.12", file))
    assert not any(file in line for line in collected("--union=ov-xino", "--kernel=6.12", "tests/mounts"))


def test_scenarios_are_marked_with_family_and_clauses() -> None:
    assert {name.partition("::")[0] for name in collected("--union=ov", "-m", "rename_file")} == {FAMILY}
    assert {name.partition("::")[2].partition("::")[0] for name in collected("--union=ov", "-m", "D13")} == {
        group.name for group in default_groups(directory_renames=True) if len(group.lowers) > 1
    }


def test_without_union_the_scenarios_are_those_of_the_main_job_beside_all_other_tests() -> None:
    names = collected("tests", "--kernel=6.12")
    scenarios = {name.rpartition("[")[2] for name in names if re.match(SCENARIO, name)}
    assert scenarios == {"ov-xino-before-6.12]", "ov-xino-detached-6.12]"}
    assert any(name.startswith("tests/harness/test_scenario_items.py::") for name in names)
    assert not any(re.match(SCENARIO, name) for name in collected("tests/harness/test_options.py"))


# Who shares a union.


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_groups_are_dealt_out_whole_and_evenly(workers: int) -> None:
    loads: Counter[str] = Counter()
    kinds: dict[str, list[object]] = {}
    for group in GROUPS:
        [scope] = {scope_of(f"x.py::{group.name}::{label}[ov-6.12]", workers) for label in group.labels}
        loads[scope] += len(group.labels)
        kinds.setdefault(scope, []).append((len(group.lowers) or 1, group.options))
    assert all(kind == some[0] for some in kinds.values() for kind in some), "what cannot share a union does"
    main = [load for scope, load in loads.items() if " union 0." in scope]
    assert len(main) == workers and max(main) - min(main) < WORTH_A_UNION


def test_another_configuration_is_another_union() -> None:
    first, *others = (scope_of(f"x.py::mkdir::a label[{name}]", 2) for name in ("ov-6.12", "ov-7.2", "ov-meta-6.12"))
    assert first not in others


def test_what_is_no_scenario_is_alone() -> None:
    assert scope_of("tests/harness/test_x.py::test_y[1]", 2) == "tests/harness/test_x.py::test_y[1]"


def test_a_detach_run_is_two_stages() -> None:
    before, after = stages("ov-xino-verify")
    assert (before.name, before.configuration.detached) == ("ov-xino-verify-before", False)
    assert (after.name, after.configuration.detached) == ("ov-xino-verify-detached", True)
    assert after.command("7.2") == "./run --ov --xino --verify --operations=after --kernel=7.2"
    [plain] = stages("ov-xino", ["--detach=off"])
    assert (plain.name, plain.configuration.xino, plain.configuration.detach) == ("ov-xino", "on", False)


def test_a_run_with_rotations_is_two_stages_and_what_is_remounted_in_its_midst_is_alone() -> None:
    rotating, plain = stages("ov=3")
    assert (rotating.name, rotating.rotating, plain.name, plain.rotating) == ("ov=3-rotating", True, "ov=3", False)
    assert rotating.command("6.12") == plain.command("6.12") == "./run --ov=3 --kernel=6.12"
    scopes = {scope_of(f"x.py::{name}::a label[ov=3-rotating-6.12]", 1) for name in ("rename-file", "rename-mass")}
    assert len(scopes) == 2
    assert len({scope_of(f"x.py::{name}::a label[ov=3-6.12]", 1) for name in ("rename-file", "rename-mass")}) == 1
    [detached] = [stage for stage in stages("ov=3-xino") if stage.configuration.detached]
    assert not detached.rotating


@pytest.mark.parametrize("union", ["list", "nonsense", "ov-nonsense", ""])
def test_what_is_no_union_is_refused(union: str) -> None:
    with pytest.raises(UsageError):
        stages(union)


# What must not pass.


def broken(path: Path, plan: dict[str, str], *words: str) -> tuple[str, str]:
    """A run on a plain overlay in a guest in which scenarios end as planned, whatever the kernel does.

    Python loads a module of this name when it starts, also in the guest.
    """
    plant(path / "sitecustomize.py", plan)
    union = [] if any("--union" in word for word in words) else ["--union=ov"]
    return run(*union, "--kernel=stock-6.12", "-rA", *words, path=path)


def outcomes(text: str, group: str) -> list[tuple[str, int]]:
    """Of the scenarios of a group, in the short summary: the outcome and the number."""
    labels = next(one.labels for one in GROUPS if one.name == group)
    found = re.findall(rf"^(\w+) \S+::{group}::(.*?)\[ov-stock-6\.12\]", text.rpartition("short test summary")[2], re.M)
    return sorted((word, labels.index(label) + 1) for word, label in found)


def test_a_failure_an_error_and_a_skip_are_kept_apart(tmp_path: Path) -> None:
    plan = {"mkdir:2": "FAILED", "mkdir:4": "ERROR", "mkdir:6": "SKIPPED"}
    text, last = broken(tmp_path, plan, "tests/union/mkdir.py", "-n2")
    assert last == "1 failed, 8 passed, 1 skipped, 1 error", text
    assert [what for what in outcomes(text, "mkdir") if what[0] != "PASSED"] == [("ERROR", 4), ("FAILED", 2)]
    for number in (2, 4):
        again = f"reproduce: ./run --ov --kernel=stock-6.12 mkdir:{number}"
        assert re.search(rf"^made up by a test\n(?: .*\n)*{again}$", text, re.M), text
    assert re.search(r"^SKIPPED \[1\] tests/union/mkdir.py:\d+: made up by a test$", text, re.M)


def test_a_lost_guest_is_one_failure_and_is_not_tried_again(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"mkdir:3": "fault"}, "tests/union/mkdir.py", "-n2")
    assert last == "1 failed, 10 passed", text
    assert ("FAILED", 3) in outcomes(text, "mkdir")
    assert "\nthe guest was lost in this scenario:\n" in text and "\nreproduce: ./run --ov " in text
    assert "the kernel reported a fault: BUG: made up by a test" in text


def test_a_sequence_does_not_go_on_in_another_guest(tmp_path: Path) -> None:
    group = next(group for group in GROUPS if group.sequence and len(group.labels) > 3)
    text, last = broken(tmp_path, {f"{group.name}:2": "fault"}, "tests/union/rename_mass.py", "-k", f" {group.name} ")
    rest = len(group.labels) - 2
    assert last.startswith(f"1 failed, 1 passed, {rest} skipped"), text
    assert f"the scenario it goes on from, {group.name}:1, did not run on this union" in text


def test_a_sequence_is_run_from_its_start(tmp_path: Path) -> None:
    group = next(group for group in GROUPS if group.sequence and len(group.labels) > 3)
    name = f"tests/union/rename_mass.py::{group.name}::{group.labels[2]}[ov-stock-6.12]"
    text, last = broken(tmp_path, {}, name)
    assert last == "1 passed", text
    text, last = broken(tmp_path, {f"{group.name}:1": "FAILED"}, name)
    assert last == "1 skipped" and "the scenario it goes on from did not pass" in text, text


def test_what_a_remount_shows_is_a_failure(tmp_path: Path) -> None:
    files = [f"tests/union/{name}.py" for name in ("readlink", "truncate", "unlink")]  # one group each
    text, last = broken(tmp_path, {"after a group": "x"}, *files, "--union=ov=2")
    assert last.startswith("2 failed"), text
    assert text.count("-: after a remount each group is as the model says: made up by a test\n") >= 2, text
    text, last = broken(tmp_path, {"after an operation": "x"}, "tests/union/mkdir.py", "--union=ov=2")
    wrong = re.findall(r"^FAILED .*\[ov=2-(\w+)", text, re.M)
    assert set(wrong) == {"rotating"}, text


def test_a_union_that_is_lost_is_an_error_of_what_was_to_run_on_it(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"mkdir:3": "exit"}, "tests/union/mkdir.py")
    assert last == "2 passed, 9 errors", text
    assert "\nthe process of the union died\nreproduce: " in text


def test_what_is_wrong_at_the_end_is_an_error_of_the_last_scenario(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"the end": "wrong"}, "tests/union/mkdir.py")
    assert last == "11 passed, 1 error", text
    assert re.search(r"^_+ ERROR at teardown of ", text, re.M)
    assert "\nthe union is not what it must be at the end:\nD7: a check: made up by a test\n" in text


@pytest.mark.parametrize("words", [["-p", "no:xdist"], ["-n0"], ["-n1"]], ids=" ".join)
def test_workers_are_not_needed(tmp_path: Path, words: list[str]) -> None:
    text, last = broken(tmp_path, {"mkdir:2": "FAILED", "mkdir:3": "fault"}, "tests/union/mkdir.py", *words)
    assert last == "2 failed, 9 passed", text


def test_a_debugger_can_be_had(tmp_path: Path) -> None:
    text, last = broken(tmp_path, {"mkdir:2": "FAILED"}, "tests/union/mkdir.py", "--pdb")
    assert "entering PDB" in text and "1 failed" in last, text


# What is missing.


@pytest.mark.parametrize("require", [False, True])
def test_what_a_kernel_lacks_is_a_reason_to_skip_or_an_error(require: bool) -> None:
    words = ["--require"] if require else []
    text, last = run("--union=ov-xino", "--kernel=stock-6.12", FAMILY, *words)
    assert last == f"{RENAMES} {'errors' if require else 'skipped'}", text
    assert "refuses xino=nofollow: EINVAL" in text


def test_what_a_filesystem_lacks_is_an_error_if_it_is_required() -> None:
    words = ["-k", "whole and lower", "--require"]
    text, last = run("--union=ov", "--kernel=stock-6.12", "tests/union/beyond/copied_ranges.py", *words)
    assert last.endswith("1 error"), text
    assert "an upper whose files can share blocks: files on upper share nothing" in text
