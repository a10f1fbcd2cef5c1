# SPDX-License-Identifier: GPL-2.0-only
"""The command line: options in any order, and one clear line with exit code 2 for bad input."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from command.options import parse
from tests.union import GROUPS
from union.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECKOUT / "run", *words], capture_output=True, text=True, cwd=CHECKOUT)


@pytest.mark.parametrize("order", list(permutations(["--ov", "--xino", "--migrate=dfs", "rename-file"])), ids=" ".join)
def test_options_may_come_in_any_order(order: tuple[str, ...]) -> None:
    options = parse(order)
    assert options.configuration.detach and options.configuration.migrate == "dfs" and options.configuration.fence
    assert options.choice.words == ("rename-file",)
    assert options.command() == "./run --ov --xino --migrate=dfs"


def test_what_the_words_mean() -> None:
    plain = parse(["--ov"]).configuration
    assert not plain.detach and plain.xino == "off" and plain.how() == "--ov"
    detach = parse(["--ov", "--xino"]).configuration
    assert (detach.xino, detach.migrate, detach.fence) == ("nofollow", "mail", "shutdown")
    assert detach.how() == "--ov --xino"
    assert not parse(["--ov", "--xino", "--no-fence"]).configuration.fence
    assert parse(["--ov", "--xdev"]).configuration.how() == "--ov --xdev"
    assert parse(["--ov", "--kernel=/some/linux"]).command() == "./run --ov --kernel=/some/linux"


BAD_INPUT = {
    "nothing": [],
    "unknown option": ["--ov", "--frobnicate"],
    "abbreviated option": ["--ov", "--xin"],
    "unknown way": ["--ov", "--xino", "--migrate=slowly"],
    "unknown group": ["--ov", "rename-flie"],
    "unknown scenario": ["--ov", "rename-file:99"],
    "pattern that matches nothing": ["--ov", "nothing-*"],
    "migrate without detach": ["--ov", "--migrate=dfs"],
    "fence without detach": ["--ov", "--no-fence"],
    "controls with a type": ["--controls", "--ov"],
    "list with a group": ["--list", "open-plain"],
    "table with a group": ["--table=outliving", "open-plain"],
    "two types": ["--ov", "--ovov"],
    "N that is no number": ["--ov=x"],
    "negative N": ["--ov=-1"],
    "a fence for one filesystem": ["--ov", "--xino", "--samefs"],
    "the fence of another lower": ["--ov", "--xino", "--fence=killed"],
    "a fence and none": ["--ov", "--xino", "--fence=shutdown", "--no-fence"],
    "a fence that hears upper too": ["--ov", "--xino", "--fence=traced", "--upper-fs=xfs"],
    "a fence without detach": ["--ov", "--fence=shutdown"],
    "a table that is none": ["--table=chairs"],
    "a table of a kind": ["--ov", "--table=fences"],
    "a fence for tmpfs": ["--ov", "--xino", "--lower-fs=tmpfs"],
    "rotated layers that are served": ["--ov=2", "--xino", "--lower-fs=fuse"],
    "rotated layers without a fence": ["--ov=2", "--xino", "--maxfs=1"],
    "detach without xino": ["--ov", "--detach=on"],
    "two layouts": ["--ov", "--samefs", "--squashfs"],
    "negative maxfs": ["--ov", "--maxfs=-1"],
    "fuse with nested": ["--ovov", "--fuse=fuse-overlayfs"],
    "terminal slash of another kind": ["--ov", "--ts=2"],
    "set-up of nothing": ["--set-up"],
    "set-up of a detached union": ["--ov", "--xino", "-s"],
    "excluding what is not there": ["--ov", "-x", "nothing"],
    "absent exclude file": ["--ov", "--exclude-file=/nonexistent"],
    "exclude file without reasons": ["--ov", f"--exclude-file={__file__}"],
    "unknown configuration": ["--matrix", "nothing-*"],
    "probe without an access": ["--open-file", "/nowhere"],
    "probe with an unknown errno": ["--unlink", "/nowhere", "-E", "ENOTHING"],
    "probe without its argument": ["--truncate", "/nowhere"],
    "group of the other kind": ["--ov", "rename-exdev"],
    "absent source": ["--ov", "--xino", "--kernel-source=/nonexistent"],
    "source without a build": ["--ov", "--kernel=native", "--kernel-source=/"],
    "absent kernel": ["--ov", "--xino", "--kernel=/nonexistent/linux"],
    "no time": ["--ov", "--time-limit=0"],
    "unwritable log directory": ["--ov", "--log-dir=/proc/nowhere"],
}


@pytest.mark.parametrize("words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_line_and_exit_2(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("run: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_wrong_group_name_suggests_the_right_one() -> None:
    assert "rename-file" in run("--ov", "rename-flie").stderr


def test_usage_errors_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="frobnicate"):
        parse(["--ov", "--frobnicate"])


def test_help_tells_the_two_runs_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("--ov --xino", "--controls", "--kernel", "Exit: 0 passed"):
        assert word in done.stdout


def test_list_names_all_scenarios_and_counts_them() -> None:
    done = run("--list")
    assert done.returncode == 0 and done.stderr == ""
    total = sum(len(group.labels) for group in GROUPS)
    assert f"{len(GROUPS)} groups, {total} scenarios, " in done.stdout
    assert "\nrename-mass-5:2: " in done.stdout


@pytest.mark.parametrize("action", ["--list", "--controls", "--matrix"])
def test_results_belong_to_a_run(action: str) -> None:
    with pytest.raises(UsageError, match="--results goes with a run"):
        parse([action, "--results=somewhere"], {})


def test_results_that_cannot_be_written_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--ov", "--kernel=native", f"--results={tmp_path}/file", "rename-file")
    assert done.returncode == 2 and "--results: cannot write to" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["--shard=0/2", "--shard=3/2", "--shard=1", "--shard=a/b", "--repeat=0"])
def test_bad_shards_and_repeats_are_usage_errors(word: str) -> None:
    with pytest.raises(UsageError, match=r"--shard|--repeat"):
        parse(["--ov", word], {})


def test_a_shard_is_part_of_what_repeats_the_run() -> None:
    assert "--shard=2/3" in parse(["--ov", "--shard=2/3"], {}).command()
