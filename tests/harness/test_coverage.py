# SPDX-License-Identifier: GPL-2.0-only
"""Coverage counts: what we say is what gcov says, for one run and for several; and what patches add is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.counts import Files, add_up, added, hit, read
from union.errors import SetupError

HEADER = """\
static inline int sign(int x)
{
	if (x < 0)
		return -1;
	return x > 0;
}
"""

PROGRAM = """\
#include <stdlib.h>
#include "sign.h"

int other(int x);

int never(int x)
{
	return x + 1;
}

int main(int argc, char **argv)
{
	int i, sum = 0;

	for (i = 1; i < argc; i++)
		sum += sign(atoi(argv[i])) + (argc > 2 ? other(i) : 0);
	return sum > 100 ? never(sum) : 0;
}
"""

OTHER = """\
#include "sign.h"

int other(int x)
{
	return x ? sign(-x) : 0;
}
"""

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("gcov")), reason="needs gcc and gcov")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A directory with the notes of a program in two files, ready to run."""
    for name, text in (("sign.h", HEADER), ("main.c", PROGRAM), ("other.c", OTHER)):
        (tmp_path / name).write_text(text)
    for name in ("main", "other"):
        command = ["gcc", "--coverage", "-c", f"{name}.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["gcc", "--coverage", "main.o", "other.o", "-o", "program"], cwd=tmp_path, check=True)
    return tmp_path


def run(program: Path, *arguments: str) -> Files:
    """The counts of one run of the program."""
    for old in program.glob("*.gcda"):
        old.unlink()
    subprocess.run([program / "program", *arguments], cwd=program, check=True)
    return read(program, program)


def said_by_gcov(program: Path, name: str) -> tuple[str, str]:
    """Share of lines hit and of branches taken at least once, as gcov prints them."""
    text = subprocess.run(["gcov", "-b", "main.gcda", "other.gcda"], cwd=program, capture_output=True, text=True).stdout
    part = next(part for part in text.split("File ") if part.startswith(f"'{name}'"))
    lines = re.search(r"Lines executed:(\S+)% of (\d+)", part)
    taken = re.search(r"Taken at least once:(\S+)% of (\d+)", part)
    assert lines
    return f"{lines[1]} of {lines[2]}", f"{taken[1]} of {taken[2]}" if taken else "-"


def share(counts: tuple[int, int]) -> str:
    return f"{100 * counts[0] / counts[1]:.2f} of {counts[1]}"


@pytest.mark.parametrize("arguments", [(), ("5",), ("0", "-3")])
def test_lines_and_branches_are_those_of_gcov(program: Path, arguments: tuple[str, ...]) -> None:
    files = run(program, *arguments)
    for name in ("main.c", "other.c"):
        ours = (share(hit(files[name].lines.values())), share(hit(files[name].branches.values())))
        assert ours == said_by_gcov(program, name)
    header = files["sign.h"]
    assert share(hit(header.lines.values())) == said_by_gcov(program, "sign.h")[0]
    assert len(header.branches) == 2, "once; gcov's summary leaves them out"


def test_functions_never_entered_are_named(program: Path) -> None:
    files = run(program, "5")
    assert files["main.c"].never_entered() == ["never"]
    assert files["other.c"].never_entered() == ["other"]
    assert files["sign.h"].never_entered() == []


def test_runs_add_up(program: Path) -> None:
    one, other = run(program, "5"), run(program, "-5", "1")
    both = add_up([one, other])
    line = 1 + HEADER.splitlines().index("\t\treturn -1;")
    assert (one["sign.h"].lines[line], other["sign.h"].lines[line]) == (0, 3)
    assert both["sign.h"].lines[line] == 3
    assert both["other.c"].never_entered() == []
    for name, file in both.items():
        assert set(file.lines) == set(one[name].lines), "nothing is known of one run only, zeros are kept"
        assert hit(file.lines.values()) >= hit(one[name].lines.values())
    assert add_up([one])["main.c"].branches == one["main.c"].branches


def test_counts_of_another_compilation_are_refused(program: Path) -> None:
    run(program, "5")
    counts = program / "counts"
    counts.mkdir()
    for path in program.glob("*.gcda"):
        path.rename(counts / path.name)
    (program / "main.c").write_text(PROGRAM.replace("x + 1", "x ? 1 : 2"))
    subprocess.run(["gcc", "--coverage", "-c", "main.c"], cwd=program, check=True)
    with pytest.raises(SetupError, match=r"gcov: .*stamp mismatch"):
        read(program, counts)


def test_no_counts_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no coverage counts"):
        read(tmp_path, tmp_path)


def test_added_lines(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("a\nb\nc\nd\n")
    after.write_text("a\nB\nc\nnew\nd\n")
    assert added(before, after) == {2, 4}
    assert added(after, after) == set()
    assert added(tmp_path / "none", after) == {1, 2, 3, 4, 5}
