# SPDX-License-Identifier: GPL-2.0-only
"""The command line of the lazy run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command.lazy import check_place
from command.lazy_options import PLOT, RATE, ROUNDS, Lazy
from command.options import parse
from union.errors import UsageError
from union.lazy.plan import Rate


def lazy(*words: str) -> Lazy:
    found = parse(words, {}).lazy
    assert found is not None
    return found


def test_without_a_word_it_is_the_whole_story() -> None:
    assert lazy("--lazy") == Lazy("story", None, RATE, ROUNDS, 1, Path(PLOT))
    options = parse(["--lazy"], {})
    assert (options.action, options.configuration.xino) == ("lazy", "nofollow")
    assert options.command() == "./run --lazy --seed=1"


def test_a_variant_draws_nothing_unless_asked() -> None:
    assert lazy("--lazy=crash-midway").plot is None
    assert lazy("--lazy=crash-midway", "--plot=x.png").plot == Path("x.png")


def test_each_word_is_repeated(tmp_path: Path) -> None:
    words = ["--lazy=kill", f"--image={tmp_path}", "--rate=2.5MB,10files", "--rounds=3", "--seed=7", "--upper-fs=xfs"]
    options = parse(words, {})
    assert options.lazy == Lazy("kill", tmp_path, Rate(2.5e6, 10), 3, 7, None)
    assert options.configuration.upper_fs == "xfs"
    again = parse(options.command().split()[1:], {})
    assert again.lazy == options.lazy and again.configuration == options.configuration


def test_rounds_have_a_seed_of_their_own() -> None:
    seeds = {lazy("--lazy=kill").seed for _ in range(20)}
    assert len(seeds) > 1 and ROUNDS == 20


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10MB", Rate(10e6)), ("7files", Rate(0, 7)), ("0.5MB,7files", Rate(5e5, 7)), ("all", Rate())],
)
def test_rates(text: str, rate: Rate) -> None:
    assert lazy("--lazy", f"--rate={text}").rate == rate


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--lazy=sometimes"], "--lazy=sometimes: it takes one of story, "),
        (["--lazy", "--ov"], "--lazy takes no type"),
        (["--lazy", "parity"], "--lazy takes no group"),
        (["--lazy", "--matrix"], "exclude each other"),
        (["--ov", "--rate=1MB"], "--rate goes with --lazy"),
        (["--ov", "--image=/"], "--image goes with --lazy"),
        (["--lazy", "--rate=fast"], "--rate=fast: it takes "),
        (["--lazy", "--rate=0MB"], "--rate=0MB: it takes "),
        (["--lazy", "--rate=1.2.3MB"], "--rate=1.2.3MB: it takes "),
        (["--lazy", "--rounds=2"], "--rounds goes with --lazy=kill"),
        (["--lazy=kill", "--rounds=0"], "--rounds goes with --lazy=kill"),
        (["--lazy=kill", "--plot=x.png"], "there is none"),
        (["--lazy", "--plot=/nowhere/x.png"], "/nowhere is not a directory"),
        (["--lazy", "--image=/nowhere"], "--image: /nowhere is not a directory"),
    ],
)
def test_mistakes_are_named(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(")):
        parse(words, {})


def test_a_plot_that_cannot_be_is_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written to: name another FILE"):
        check_place(tmp_path / "x.png")
