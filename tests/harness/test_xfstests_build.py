# SPDX-License-Identifier: GPL-2.0-only
"""`xfstests-overlay/build` with a Makefile that only pretends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from overlay_xfstests import build_command
from overlay_xfstests.build_command import NEEDS
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.choosing import Choosing
from tests.harness.pretend_xfstests import make_checkout
from union.errors import SetupError

PROGRAM = Path(__file__).resolve().parents[2] / "xfstests-overlay/build"
MAKEFILE = """\
default: ltp/fsstress
\t@mkdir -p include; touch ltp/fsx include/builddefs
ltp/fsstress: ltp/fsstress.c
\t@echo compiled >>count
\t@if grep -n error: ltp/fsstress.c; then exit 1; fi
\t@touch ltp/fsstress
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    top = make_checkout(tmp_path / "xfstests")
    (top / "ltp").mkdir()
    (top / "ltp/fsstress.c").touch()
    (top / "Makefile").write_text(MAKEFILE)
    return top


def build(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, words)], capture_output=True, text=True, env={**os.environ, **more}
    )


def test_it_is_built_once(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build_command, "NEEDS", NEEDS[1:2])
    with pytest.raises(SetupError, match=r"is not built, it has no include/builddefs; xfstests-overlay/build"):
        Choosing(Checkout(checkout))
    for _ in range(2):
        assert build_command.main([str(checkout), "--jobs=1"]) == 0
    assert (checkout / "count").read_text() == "compiled\n"
    assert Choosing(Checkout(checkout)).named("001") == ["overlay/001"]
    assert re.fullmatch(rf"(building {checkout}; log: /\S+\.log\nbuilt\n){{2}}", capsys.readouterr().out)


def test_what_make_said_last_is_the_complaint(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_command, "NEEDS", NEEDS[1:2])
    (checkout / "ltp/fsstress.c").write_text("x.c: error: made up by a test\n")
    with pytest.raises(SetupError) as caught:
        build_command.main([str(checkout)])
    found = re.fullmatch(r"make failed: 1:x.c: error: made up by a test; log: (/\S+)", str(caught.value))
    assert found and "error: made up" in Path(found[1]).read_text()


def test_what_is_missing_is_one_line_with_the_command(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, PATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
    assert re.match(r"xfstests-overlay/build: missing: gcc, make, autoconf,.* bc, ", done.stderr)
    assert re.search(r"; install them with: (sudo )?apt-get install gcc libc6-dev make autoconf .*\bbc\b", done.stderr)
    assert not (checkout / "count").exists()


def test_a_header_is_looked_for_by_the_compiler() -> None:
    header = build_command._header
    assert header("stdio.h", "libc6-dev").present() and not header("no/such.h", "none").present()


@pytest.mark.parametrize("words", [[], ["--jobs=-1"], ["--jobs=x"], ["--colour"]])
def test_wrong_words_are_one_line(words: list[str], checkout: Path) -> None:
    done = build(*words, *([checkout] if words else []))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 2
