# SPDX-License-Identifier: GPL-2.0-only
"""The form of our xfstests: what their maintainers would ask for before they read further."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.pretend_xfstests import PROGRAM, XFSTESTS, golden, needs_xfstests, script

TESTS = PROGRAM / "xfstests-overlay/tests"
NAMES = [path.stem for path in sorted(TESTS.glob("*.out"))]
TITLE = "# FS QA Test NNN"


def complaints(text: str, output: str) -> Iterator[str]:
    """What is wrong with a test and its golden output."""
    lines = text.splitlines()
    beginning = "\n".join(lines[:3])
    if not re.fullmatch(
        r"#! /bin/bash\n# SPDX-License-Identifier: GPL-2\.0(-only)?\n# Copyright \(C\) 20\d\d \w.*", beginning
    ):
        yield "begins with: interpreter, SPDX, copyright"
    if lines[3:6] != ["#", TITLE, "#"]:
        yield "title in line 5"
    description = re.search(rf"^{TITLE}\n((?:#.*\n)*?)#\n\. \./common/preamble\n", text, re.MULTILINE)
    if description is None or not re.search(r"# \w", description[1]):
        yield "description, an empty comment, common/preamble"
    groups = re.findall(r"^\. \./common/preamble\n_begin_fstest (.*)$", text, re.MULTILINE)
    if len(groups) != 1 or len(re.findall("_begin_fstest", text)) != 1:
        yield "_begin_fstest once, after common/preamble"
    elif not {"auto", "nofollow"} <= set(groups[0].split()) or len(set(groups[0].split())) != len(groups[0].split()):
        yield "groups: auto and nofollow, none twice"
    if not re.search(r"\n(_exit 0|status=0\nexit)\n\Z", text):
        yield "ends with success"
    if re.search(r"[ \t]$", text, re.MULTILINE):
        yield "white space at the end of a line"
    if re.search(r"^ |^\t+ ", text, re.MULTILINE):
        yield "indented by something else than tabs"
    if not re.match(r"QA output created by NNN\n.", output) or not output.endswith("\n"):
        yield "golden output begins with its title, has more, and ends with a line break"


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    assert list(complaints((TESTS / name).read_text(), (TESTS / f"{name}.out").read_text())) == []


CONTROLS = [
    ("#! /bin/bash", "#!/bin/sh", "begins with: interpreter, SPDX, copyright"),
    ("GPL-2.0-only", "MIT", "begins with: interpreter, SPDX, copyright"),
    ("Copyright (C) 2026 Somebody", "Copyright (C) 2026", "begins with: interpreter, SPDX, copyright"),
    ("Test NNN", "Test 118", "title in line 5"),
    ("# Show that x holds.  NNN stays here.\n", "", "description, an empty comment, common/preamble"),
    (". ./common/preamble\n", "", "_begin_fstest once, after common/preamble"),
    ("_begin_fstest", "_begin_test", "_begin_fstest once, after common/preamble"),
    ("echo x", "_begin_fstest auto", "_begin_fstest once, after common/preamble"),
    (" nofollow", "", "groups: auto and nofollow, none twice"),
    ("auto ", "", "groups: auto and nofollow, none twice"),
    ("auto ", "auto auto ", "groups: auto and nofollow, none twice"),
    ("_exit 0\n", "", "ends with success"),
    ("echo x", "echo x ", "white space at the end of a line"),
    ("echo x", "if a; then\n\techo x\t\nfi", "white space at the end of a line"),
    ("echo x", "    echo x", "indented by something else than tabs"),
    ("echo x", "\t  echo x", "indented by something else than tabs"),
]


@pytest.mark.parametrize(("old", "new", "complaint"), CONTROLS)
def test_what_is_out_of_form_is_noticed(old: str, new: str, complaint: str) -> None:
    good = script("x")
    assert list(complaints(good, golden("x"))) == []
    assert list(complaints(good.replace("_exit 0", "status=0\nexit"), golden("x"))) == []
    assert complaint in list(complaints(good.replace(old, new), golden("x")))


@pytest.mark.parametrize(
    "output", ["", "x\n", "QA output created by 118\nx\n", "QA output created by NNN\n", golden("x")[:-1]]
)
def test_golden_output_out_of_form_is_noticed(output: str) -> None:
    assert list(complaints(script("x"), output)) == [
        "golden output begins with its title, has more, and ends with a line break"
    ]


def strays(folder: Path) -> set[str]:
    """Files that are no test of the order, and what the order lacks of a test."""
    listed = [line for line in (folder / "order").read_text().splitlines() if line and line[0] != "#"]
    names = [line for line in listed if not line.startswith("Subject:")]
    wanted = {"order", *names, *(f"{name}.out" for name in names)}
    return wanted ^ {path.name for path in folder.iterdir()}


def test_the_order_has_each_test() -> None:
    assert strays(TESTS) == set()


@pytest.mark.parametrize("name", ["a", "a.out", "b", "a.full"])
def test_strays_are_noticed(tmp_path: Path, name: str) -> None:
    for made in ("a", "a.out"):
        (tmp_path / made).touch()
    (tmp_path / "order").write_text("# words\nSubject: more words\na\n")
    assert strays(tmp_path) == set()
    if name.startswith("a") and (tmp_path / name).exists():
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).touch()
    assert strays(tmp_path) == {name}


@needs_xfstests
def test_groups_are_those_of_xfstests() -> None:
    described = set(re.findall(r"^([a-z0-9_-]+)\t", (XFSTESTS / "doc/group-names.txt").read_text(), re.MULTILINE))
    assert "copyup" in described
    for name in NAMES:
        groups = set(re.findall(r"^_begin_fstest (.*)$", (TESTS / name).read_text(), re.MULTILINE)[0].split())
        assert groups - described <= {"nofollow"}, name
