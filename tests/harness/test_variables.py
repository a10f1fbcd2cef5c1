# SPDX-License-Identifier: GPL-2.0-only
"""The UNIONMOUNT_* variables: how xfstests finds out that we know them, what they mean, what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from command.options import parse
from command.variables import dump, places, variables
from union.configuration import Option, Places
from union.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
ALL = {
    "UNIONMOUNT_MNTOPTIONS": "-oindex=on",
    "UNIONMOUNT_MNTPOINT": "/m",
    "UNIONMOUNT_LOWERDIR": "/l",
    "UNIONMOUNT_BASEDIR": "/b",
}


def run(*words: str, **given: str) -> subprocess.CompletedProcess[str]:
    """`./run` with stdout and stderr in one, as xfstests asks it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNIONMOUNT_")}
    environment = {**kept, **{f"UNIONMOUNT_{name}": value for name, value in given.items()}}
    return subprocess.run(
        [sys.executable, "./run", *words], cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def detected(text: str, variable: str) -> bool:
    """What xfstests looks for: the whole word anywhere in the output."""
    return re.search(rf"\b{variable}\b", text.replace("\n", " ")) is not None


# Detection (parity 1.8) ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BASEDIR", "MNTOPTIONS"])
def test_xfstests_finds_the_variable_and_nothing_is_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    mounts = Path("/proc/self/mountinfo").read_text()
    done = run(**{name: "_"})
    assert detected(done.stdout, f"UNIONMOUNT_{name}")
    assert done.stdout.startswith(f"Environment variables:\nUNIONMOUNT_{name}='_'\n\n")
    assert not detected(run().stdout, f"UNIONMOUNT_{name}"), "without it nothing must be found"
    assert not (CHECKOUT / "_").exists()
    assert done.returncode == 2
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.parametrize("words", [(), ("--list",), ("--frobnicate",), ("--ov", "nothing")], ids=" ".join)
def test_a_directory_that_is_named_stays_as_it_is(words: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("l", "0", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    done = run(*words, BASEDIR=str(tmp_path), LOWERDIR=str(tmp_path))
    assert done.returncode == (0 if words == ("--list",) else 2)
    assert done.stdout.startswith("Environment variables:\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_dump_has_those_that_are_set_in_a_fixed_order() -> None:
    text = "Environment variables:\nUNIONMOUNT_BASEDIR='/b'\nUNIONMOUNT_LOWERDIR='/l'\nUNIONMOUNT_MNTPOINT='/m'\n"
    assert dump(variables(ALL)) == f"{text}UNIONMOUNT_MNTOPTIONS='-oindex=on'\n\n"
    assert run("--frobnicate", BASEDIR="/b", LOWERDIR="", MNTPOINT="/m").stdout.startswith(
        "Environment variables:\nUNIONMOUNT_BASEDIR='/b'\nUNIONMOUNT_MNTPOINT='/m'\n\nrun: "
    )
    assert run("--frobnicate", BASEDIR="").stdout.startswith("run: "), "an empty one counts as unset"


def test_others_are_not_ours() -> None:
    assert variables({"UNIONMOUNT_BASE": "/x", "BASEDIR": "/y", "UNIONMOUNT_FUSE_BINARY": "z"}) == ()
    assert variables({"UNIONMOUNT_BASEDIR": ""}) == ()


# Places -------------------------------------------------------------------------------------------


def test_what_they_mean() -> None:
    where, found = places(ALL)
    assert where == Places(Path("/b"), Path("/l"), Path("/m"), (("index", "on"),))
    assert dict(found) == ALL
    assert places({}) == (Places(), ())


@pytest.mark.parametrize(
    ("environment", "given"),
    [({}, False), ({"BASEDIR": "/b"}, True), ({"LOWERDIR": "/l"}, True), ({"MNTPOINT": "/m"}, False)],
    ids=str,
)
def test_layers_in_a_directory_of_the_users_are_never_fenced(environment: Mapping[str, str], given: bool) -> None:
    full = {f"UNIONMOUNT_{name}": value for name, value in environment.items()}
    assert places(full)[0].given == given
    assert parse(["--ov", "--xino"], full).configuration.detach != given


@pytest.mark.parametrize("name", ["BASEDIR", "LOWERDIR", "MNTPOINT"])
@pytest.mark.parametrize("value", ["here", "here/there", "../here", "~/here"])
def test_a_relative_path_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"UNIONMOUNT_{name}={re.escape(value)}: not an absolute path"):
        places({f"UNIONMOUNT_{name}": value})
    places({f"UNIONMOUNT_{name}": f"/{value}"})


def test_a_run_refuses_a_relative_path_too() -> None:
    done = run("--ov", LOWERDIR="here")
    assert done.returncode == 2
    assert done.stdout.endswith("\n\nrun: UNIONMOUNT_LOWERDIR=here: not an absolute path\n")


@pytest.mark.parametrize(
    ("words", "samefs"),
    [("--ov", True), ("--ov --samefs", True), ("--ov --maxfs=1", False), ("--ov --squashfs", False)],
)
def test_a_base_alone_makes_one_filesystem_the_default(words: str, samefs: bool) -> None:
    assert parse(words.split(), {"UNIONMOUNT_BASEDIR": "/b"}).configuration.samefs == samefs
    both = {"UNIONMOUNT_BASEDIR": "/b", "UNIONMOUNT_LOWERDIR": "/l"}
    if "--samefs" in words:
        with pytest.raises(UsageError, match="filesystem of its own"):
            parse(words.split(), both)
    else:
        assert not parse(words.split(), both).configuration.samefs


def test_the_command_line_that_repeats_a_run_has_them() -> None:
    environment = {"UNIONMOUNT_BASEDIR": "/with space", "UNIONMOUNT_MNTOPTIONS": "-oindex=on"}
    wanted = "UNIONMOUNT_BASEDIR='/with space' UNIONMOUNT_MNTOPTIONS=-oindex=on ./run --ov"
    assert parse(["--ov"], environment).command() == wanted


# Mount options ------------------------------------------------------------------------------------

ON, OFF = ("index", "on"), ("index", "off")
OPTIONS: list[tuple[str, tuple[Option, ...]]] = [
    ("index=on", (ON,)),
    ("-oindex=on", (ON,)),
    ("-o index=on", (ON,)),
    ("  -o   index=on ", (ON,)),
    ("-oindex=on,userxattr", (ON, ("userxattr", ""))),
    ("-o index=on -o metacopy=off", (ON, ("metacopy", "off"))),
    ("-oindex=on -ometacopy=off", (ON, ("metacopy", "off"))),
    ("index=on,,metacopy=off,", (ON, ("metacopy", "off"))),
    ("index=off,index=on", (ON,)),
    ("index=on,index=off", (OFF,)),
    ("-orw", ()),
    ("-orw,index=on", (ON,)),
    ("ro", (("ro", ""),)),
    ("context=a=b", (("context", "a=b"),)),
    ("-o", ()),
]


@pytest.mark.parametrize(("text", "options"), OPTIONS, ids=[ascii(text) for text, _ in OPTIONS])
def test_mount_options(text: str, options: tuple[Option, ...]) -> None:
    assert places({"UNIONMOUNT_MNTOPTIONS": text})[0].options == options
