# SPDX-License-Identifier: GPL-2.0-only
"""`./run --play FILE`: an example without its generator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds
RENAMED = """\
Example(
    lowers=(Directory({'a': File(b'lower')}),),
    after=(Rename(path='t/a', to='t/b'),),
    migrate='%s',
)
"""


FENCED = """\
History(
    lowers=(Directory({'a': File(b'lower')}),),
    steps=(%sFence(unready=True), Rename(path='t/a', to='t/b')),
)
"""


def play(file: Path, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, f"{CHECKOUT}/run", "--play", str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


def test_what_holds(tmp_path: Path) -> None:
    (tmp_path / "example").write_text(RENAMED % "dfs")
    code, out, err = play(tmp_path / "example", "--kernel=6.12")
    step, verdict = out.splitlines()
    assert (code, err) == (0, "") and step.startswith("./run --rename ") and verdict.startswith("passed on 6.12.")


def test_what_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "example").write_text(RENAMED % "none")
    code, out, err = play(tmp_path / "example", "--kernel=6.12")
    assert (code, err) == (1, "") and "FAILED D9: " in out and "\nfailed on 6.12." in out


def test_a_history(tmp_path: Path) -> None:
    (tmp_path / "history").write_text(FENCED % "Migrate(), ")
    code, out, err = play(tmp_path / "history", "--kernel=6.12")
    *steps, verdict = out.splitlines()
    assert (code, err, steps[:2]) == (0, "", ["- migrate", "- fence"]) and verdict.startswith("passed on 6.12.")
    (tmp_path / "history").write_text(FENCED % "")
    code, out, err = play(tmp_path / "history", "--kernel=6.12")
    assert (code, err) == (1, "") and "FAILED D9: " in out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(None, "No such file or directory"), ("nonsense", "no example: "), ("Example(open('x'))", "no example: line 1: ")],
)
def test_what_is_no_example(tmp_path: Path, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / "example").write_text(text)
    code, out, err = play(tmp_path / "example")
    assert (code, out) == (2, "") and complaint in err and err.count("\n") == 1


def test_a_kernel_without_the_option_is_told(tmp_path: Path) -> None:
    (tmp_path / "example").write_text(RENAMED % "dfs")
    code, out, err = play(tmp_path / "example", "--kernel=stock-6.12")
    assert code == 4 and not out and "refuses xino=nofollow" in err and err.count("\n") == 1
