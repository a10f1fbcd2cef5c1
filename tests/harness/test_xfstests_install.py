# SPDX-License-Identifier: GPL-2.0-only
"""`xfstests-overlay/install`: what it puts where, what it refuses, and that nothing stays."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.pretend_xfstests import (
    GROUP_NAMES,
    OVERLAY,
    PROGRAM,
    XFSTESTS,
    add_test,
    checkout,
    command,
    git,
    golden,
    install,
    make_checkout,
    make_group_list,
    needs_xfstests,
    order,
    refusal,
    script,
    suite,
    tree,
)

__all__ = ["checkout", "suite"]
RECORD = ".ovl-detach.json"


def test_tests_get_the_numbers_after_the_last_one(suite: Path, checkout: Path) -> None:
    said = install(suite, checkout)
    assert said.splitlines() == [
        "overlay/006  detach  installed",
        "overlay/007  passes  installed",
        f"run them: {suite}/check {checkout}",
    ]
    assert (checkout / OVERLAY / "006").read_text() == script("detach", "006")  # NNN in the description stays
    assert (checkout / OVERLAY / "006.out").read_text() == golden("detach", "006")
    assert oct((checkout / OVERLAY / "006").stat().st_mode) == "0o100755"
    assert oct((checkout / OVERLAY / "006.out").stat().st_mode) == "0o100644"
    assert (checkout / "common/nofollow").read_text() == "# helpers\n"
    assert json.loads((checkout / RECORD).read_text())["tests"] == {"detach": 6, "passes": 7}
    assert git(checkout, "status", "--short").split() == [
        *("M", "doc/group-names.txt"),
        *("??", "common/nofollow"),
        *("??", f"{OVERLAY}/006", "??", f"{OVERLAY}/006.out", "??", f"{OVERLAY}/007", "??", f"{OVERLAY}/007.out"),
    ]


def test_modes_do_not_depend_on_the_umask(suite: Path, checkout: Path) -> None:
    subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, suite / "install", checkout], check=True)
    assert oct((checkout / OVERLAY / "006").stat().st_mode) == "0o100755"
    assert oct((checkout / "common/nofollow").stat().st_mode) == "0o100644"


def test_the_group_is_described_in_its_place(suite: Path, checkout: Path) -> None:
    install(suite, checkout)
    line = "nofollow\t\toverlayfs detached from lower layers (xino=nofollow)\n"
    there = (checkout / "doc/group-names.txt").read_text()
    assert there == GROUP_NAMES.replace("nonsamefs", line + "nonsamefs")
    assert max(len(line.expandtabs()) for line in there.splitlines()) < 80


def test_the_group_comes_last_where_none_is_after_it(suite: Path, checkout: Path) -> None:
    (checkout / "doc/group-names.txt").write_text(GROUP_NAMES.replace("nonsamefs", "mount").replace("zone", "movie"))
    install(suite, checkout)
    assert (checkout / "doc/group-names.txt").read_text().splitlines()[-2].startswith("nofollow\t")


@pytest.mark.parametrize("first", [1, 3, 4, 7, 800])
def test_the_list_of_groups_is_what_make_writes(suite: Path, checkout: Path, first: int) -> None:
    install(suite, f"--from={first}", checkout)
    installed = (checkout / OVERLAY / "group.list").read_text()
    make_group_list(checkout)
    assert installed == (checkout / OVERLAY / "group.list").read_text()
    assert installed.count(" nofollow\n") == 2  # control


def test_no_list_of_groups_is_made(suite: Path, tmp_path: Path) -> None:
    install(suite, make_checkout(tmp_path / "unbuilt", built=False))
    assert not (tmp_path / "unbuilt" / OVERLAY / "group.list").exists()


@pytest.mark.parametrize(
    ("first", "numbers"), [(1, [3, 4]), (4, [4, 6]), (5, [6, 7]), (800, [800, 801]), (998, [998, 999])]
)
def test_gaps_are_filled_from_a_number_on(suite: Path, checkout: Path, first: int, numbers: list[int]) -> None:
    install(suite, f"--from={first}", checkout)
    assert list(json.loads((checkout / RECORD).read_text())["tests"].values()) == numbers


@pytest.mark.parametrize("name", ["003", "003.out", "003-with-a-name", "003.cfg"])
def test_a_number_is_taken_by_any_file_of_it(suite: Path, checkout: Path, name: str) -> None:
    (checkout / OVERLAY / name).write_text("something\n")
    install(suite, "--from=3", checkout)
    assert list(json.loads((checkout / RECORD).read_text())["tests"].values()) == [4, 6]


def test_a_number_is_taken_by_an_old_line_of_the_list(suite: Path, checkout: Path) -> None:
    with (checkout / OVERLAY / "group.list").open("a") as groups:
        groups.write("006 auto\n")
    install(suite, checkout)
    assert list(json.loads((checkout / RECORD).read_text())["tests"].values()) == [7, 8]


def test_too_few_numbers(suite: Path, checkout: Path) -> None:
    assert "only 1 of 2 numbers are free from 999 to 999" in refusal(suite, "install", "--from=999", checkout)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("words", [(), ("--from=1",)])
def test_removed_is_as_before(suite: Path, tmp_path: Path, built: bool, words: tuple[str, ...]) -> None:
    checkout = make_checkout(tmp_path / "xfstests", built=built)
    (checkout / "doc/group-names.txt").chmod(0o600)
    before = tree(checkout)
    install(suite, *words, checkout)
    assert tree(checkout) != before
    said = install(suite, "--remove", checkout)
    assert [line.split()[1:] for line in said.splitlines()] == [["detach", "removed"], ["passes", "removed"]]
    assert tree(checkout) == before


def test_a_dry_run_changes_nothing(suite: Path, checkout: Path) -> None:
    for words in ([], ["--remove"]):
        before = tree(checkout)
        assert f"would be: {OVERLAY}/006 {OVERLAY}/006.out" in install(suite, "--dry-run", *words, checkout)
        assert tree(checkout) == before
        install(suite, *words, checkout)
        assert tree(checkout) != before


def test_again_changes_nothing(suite: Path, checkout: Path) -> None:
    install(suite, checkout)
    before = tree(checkout)
    assert install(suite, checkout).splitlines()[0] == "overlay/006  detach  unchanged"
    assert tree(checkout) == before


def test_an_update_keeps_numbers(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    install(suite, checkout)
    add_test(suite, "passes", groups="auto nofollow")  # changed,
    add_test(suite, "another")  # new, and
    order(suite, ["another", "passes"])  # gone
    (suite / "common/nofollow").write_text("# better helpers\n")
    assert install(suite, checkout).splitlines()[:3] == [
        "overlay/006  detach   removed",
        "overlay/007  passes   updated",
        "overlay/008  another  installed",
    ]
    assert not (checkout / OVERLAY / "006").exists()
    assert (checkout / OVERLAY / "007").read_text() == script("passes", "007", "auto nofollow")
    assert (checkout / "common/nofollow").read_text() == "# better helpers\n"
    updated = (checkout / OVERLAY / "group.list").read_text()
    make_group_list(checkout)
    assert updated == (checkout / OVERLAY / "group.list").read_text()
    install(suite, "--remove", checkout)
    assert tree(checkout) == before


def test_what_git_cleaned_away_comes_back(suite: Path, checkout: Path) -> None:
    install(suite, checkout)
    before = tree(checkout)
    git(checkout, "clean", "-fdq")
    git(checkout, "checkout", "-q", ".")
    assert tree(checkout) != before
    install(suite, checkout)
    assert tree(checkout) == before


def test_what_is_gone_already_need_not_be_removed(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    install(suite, checkout)
    git(checkout, "clean", "-fdq")
    git(checkout, "checkout", "-q", ".")
    install(suite, "--remove", checkout)
    assert tree(checkout) == before


def test_only_our_lines_go_from_what_was_changed_meanwhile(suite: Path, checkout: Path) -> None:
    install(suite, checkout)
    for name, more in (("doc/group-names.txt", "zzz\t\tlast: nofollow\n"), (f"{OVERLAY}/group.list", "900 auto\n")):
        (checkout / name).write_text((checkout / name).read_text() + more)
    install(suite, "--remove", checkout)
    assert (checkout / "doc/group-names.txt").read_text() == GROUP_NAMES + "zzz\t\tlast: nofollow\n"
    groups = (checkout / OVERLAY / "group.list").read_text()
    assert groups.endswith("005 auto\n900 auto\n")


def test_what_has_come_by_git_stays(suite: Path, checkout: Path) -> None:
    """Whoever has our series on a branch can install, for `check`, and remove: the branch is as it was."""
    install(suite, "--from=3", checkout)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "ours")
    (checkout / RECORD).unlink()
    before = tree(checkout)
    said = install(suite, checkout)
    assert said.splitlines()[0] == "overlay/003  detach  left as it came"
    assert json.loads((checkout / RECORD).read_text())["tests"] == {"detach": 3, "passes": 4}
    install(suite, "--remove", checkout)
    assert tree(checkout) == before
    (checkout / OVERLAY / "004.out").write_text("another\n")  # control: not quite ours
    (checkout / "common/nofollow").unlink()
    assert "overlay/006  passes  installed" in install(suite, checkout)


def edit(name: str) -> Callable[[Path], None]:
    """Somebody changes that file of the checkout."""

    def change(checkout: Path) -> None:
        (checkout / name).parent.mkdir(exist_ok=True)
        with (checkout / name).open("a") as file:
            file.write("# mine\n")

    return change


@pytest.mark.parametrize("name", [f"{OVERLAY}/006", f"{OVERLAY}/006.out", "common/nofollow"])
@pytest.mark.parametrize("words", [(), ("--remove",)])
def test_an_edited_file_is_refused_by_name(suite: Path, checkout: Path, name: str, words: tuple[str, ...]) -> None:
    install(suite, checkout)
    (suite / "common/nofollow").write_text("# better helpers\n")
    (suite / "tests/detach").write_text(script("detach better"))
    (suite / "tests/detach.out").write_text(golden("detach better"))
    edit(name)(checkout)
    before = tree(checkout)
    said = refusal(suite, "install", *words, checkout)
    assert f"not as install puts it, move it away first: {name}; nothing was changed" in said
    assert tree(checkout) == before
    (checkout / name).unlink()  # control
    install(suite, *words, checkout)


def test_a_foreign_file_is_not_overwritten(suite: Path, checkout: Path) -> None:
    edit("common/nofollow")(checkout)
    before = tree(checkout)
    assert "move it away first: common/nofollow;" in refusal(suite, "install", checkout)
    assert tree(checkout) == before
    (checkout / "common/nofollow").unlink()  # control
    install(suite, checkout)


@pytest.mark.parametrize("missing", ["check", "common/preamble", "doc/group-names.txt", OVERLAY])
def test_no_checkout(suite: Path, checkout: Path, missing: str) -> None:
    (checkout / missing).rename(checkout / "elsewhere")
    before = tree(checkout)
    assert f"it has no {missing}" in refusal(suite, "install", checkout)
    assert tree(checkout) == before
    (checkout / "elsewhere").rename(checkout / missing)  # control
    install(suite, checkout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: CHECKOUT"),
        (["/nowhere"], "/nowhere: no such directory"),
        (["--from=0", "."], "'0' is no number from 1 to 999"),
        (["--from=all", "."], "'all' is no number from 1 to 999"),
        (["--remove", "--from=1", "."], "--from says nothing about --remove"),
        (["--force", "."], "unrecognized arguments: --force"),
    ],
)
def test_wrong_words(suite: Path, words: list[str], said: str) -> None:
    assert said in refusal(suite, "install", *words)


def test_nothing_to_remove(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    assert "not installed there, nothing to remove" in refusal(suite, "install", "--remove", checkout)
    assert tree(checkout) == before


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("", "is damaged"),
        ("{}", "is damaged"),
        ('{"version": 1, "tests": {}}', "is damaged"),
        ('{"version": 2, "tests": {}, "files": {}, "group": false}', "is of version 2: use the suite that wrote it"),
    ],
)
def test_a_damaged_record(suite: Path, checkout: Path, record: str, said: str) -> None:
    (checkout / RECORD).write_text(record)
    before = tree(checkout)
    done = command(suite, "install", checkout)
    assert (done.returncode, done.stdout) == (3, "")
    assert f".ovl-detach.json {said}" in done.stderr
    assert tree(checkout) == before


def test_two_at_a_time(suite: Path, checkout: Path) -> None:
    holder = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, checkout], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert "another install is at work" in refusal(suite, "install", checkout)
        other.communicate(b"\n")
    install(suite, checkout)  # control


def test_help_names_what_it_does(suite: Path) -> None:
    said = install(suite, "--help")
    for word in ("--remove", "--dry-run", "--from", "nofollow", "group.list", ".ovl-detach.json", "exit codes"):
        assert word in said
    assert max(map(len, said.splitlines())) <= 120


@needs_xfstests
def test_a_real_checkout(tmp_path: Path) -> None:
    """The list of groups is what xfstests' own program makes of the same files."""
    home, real = PROGRAM / "xfstests-overlay", tmp_path / "xfstests"
    git(tmp_path, "clone", "-q", "--shared", str(XFSTESTS), str(real))
    make_groups = ["../../tools/mkgroupfile", "group.list"]
    subprocess.run(make_groups, cwd=real / OVERLAY, check=True)
    for words in ([], ["--from=1"], ["--from=800"]):
        before = tree(real)
        install(home, *words, real)
        installed = tree(real)
        assert installed[f"{OVERLAY}/group.list"] != before[f"{OVERLAY}/group.list"]
        subprocess.run(make_groups, cwd=real / OVERLAY, check=True)
        assert tree(real) == installed
        install(home, "--remove", real)
        assert tree(real) == before
    assert git(real, "status", "--short") == ""
