# SPDX-License-Identifier: GPL-2.0-only
"""The ready-made jobs in ci/: valid for those who read them, and what they run exists."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from command.options import parse
from kernel import recipe
from union.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
CI = CHECKOUT / "ci"
WORKFLOW = CI / "github/overlayfs.yml"
LAVA = CI / "lava/ovl-detach.yaml"
SIGNAL = CI / "lava/signal"


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


# What the jobs run --------------------------------------------------------------------------------


def command_lines(text: str) -> list[list[str]]:
    """The words of each `./run --…` or `"$suite/run" --…` in the text of a job, `--ov` in place of the caller's."""
    joined = re.sub(r"\\\n\s*", " ", text).replace('"$@"', "--ov").replace('"$results"', "results")
    options = r"(?: +--[\w=]+[\w./=:,-]*)(?: +(?!\d>)[\w./=:,-]+)*"
    return [shlex.split(found) for found in re.findall(rf"/run\"?({options})", joined)]


def filled_in(text: str) -> Iterator[str]:
    """The text of the workflow for each job of its matrix."""
    (job,) = yaml.safe_load(text)["jobs"].values()
    for values in itertools.product(*job["strategy"]["matrix"].values()):
        filled = text
        for name, value in zip(job["strategy"]["matrix"], values, strict=True):
            filled = filled.replace(f"${{{{ matrix.{name} }}}}", value)
        yield filled


def test_every_command_line_of_the_workflow_is_understood() -> None:
    found = [words for text in filled_in(WORKFLOW.read_text()) for words in command_lines(text)]
    parts = {(options.kernel, options.choice.shard) for options in map(parse, found)}
    assert parts == set(itertools.product(recipe.series(), [(1, 2), (2, 2)])), "both kernels, and every part"
    assert all(options.configuration.detach and options.results for options in map(parse, found))


@pytest.mark.parametrize("path", [path for path in sorted(CI.rglob("*")) if path.is_file()], ids=lambda path: path.name)
def test_every_other_command_line_is_understood(path: Path) -> None:
    """In comments and documents too."""
    texts = filled_in(path.read_text()) if path == WORKFLOW else [path.read_text()]
    for words in itertools.chain.from_iterable(map(command_lines, texts)):
        parse(words)


def test_a_command_line_that_does_not_exist_would_be_noticed() -> None:
    words, wrapped = command_lines('sudo ./run --ov \\\n  --nonsense=results >log # ./run it; "$suite/run" --xino "$@"')
    assert words == ["--ov", "--nonsense=results"] and wrapped == ["--xino", "--ov"]
    with pytest.raises(UsageError):
        parse(words)


def test_both_wrappers_have_a_command_line() -> None:
    for wrapper in (SIGNAL, CI / "kselftest/ktap"):
        (words,) = command_lines(wrapper.read_text())
        assert parse(words).kernel == "native" and parse(words).results


@pytest.mark.parametrize("name", ["plain", "detach"])
def test_the_tests_of_the_tarball_run_what_they_say(name: str, tmp_path: Path) -> None:
    """A wrapper beside them tells what it was called with."""
    for one in ("ktap", name):
        executable(tmp_path / one, (CI / "kselftest" / one).read_text())
    executable(tmp_path / "ktap", '#!/bin/sh\necho "$@"\n')
    done = subprocess.run([tmp_path / name, "--ts=1"], capture_output=True, text=True, check=True)
    options = parse(done.stdout.split())
    assert options.configuration.slashes and options.configuration.detach == (name == "detach")


# GitHub -------------------------------------------------------------------------------------------


def faults(path: Path) -> int:
    """What GitHub's schema says of a workflow: 0 if nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True).returncode


def test_the_workflow_is_one(tmp_path: Path) -> None:
    assert faults(WORKFLOW) == 0
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOW.read_text().replace("runs-on:", "run-on:"))
    assert faults(broken) == 1


def test_the_scripts_of_the_workflow_are_shell(tmp_path: Path) -> None:
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    for step in job["steps"]:
        script = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_the_cache_keeps_what_the_key_is_about() -> None:
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    (cache,) = (step["with"] for step in job["steps"] if "cache@" in step.get("uses", ""))
    assert [Path(path).name for path in cache["path"].split()] == ["kernels", "sources"]
    assert "steps.inputs.outputs.key" in cache["key"] and "matrix.kernel" in cache["key"]


def test_a_key_needs_no_source_and_differs_by_kernel(tmp_path: Path) -> None:
    def key(name: str) -> str:
        command = [sys.executable, "-m", "kernel", name, "--key"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True).stdout

    keys = [key(name) for name in recipe.names()]
    assert len(set(keys)) == len(keys) and all(re.fullmatch(r"[0-9a-f]{16}\n", one) for one in keys)
    assert list(tmp_path.iterdir()) == []


# LAVA ---------------------------------------------------------------------------------------------


def test_the_lava_definition_runs_what_is_there() -> None:
    definition: dict[str, Any] = yaml.safe_load(LAVA.read_text())
    assert definition["metadata"]["format"] == "Lava-Test Test Definition 1.0"
    (step,) = definition["run"]["steps"]
    program, words = step.split(" ", 1)
    assert CHECKOUT / program == SIGNAL and os.access(SIGNAL, os.X_OK)
    assert words == "${OPTIONS}"
    parse([*definition["params"]["OPTIONS"].split(), "--kernel=native"])


def signalled(tmp_path: Path, *words: str, lava: bool = True) -> tuple[int, list[str], list[str]]:
    """The script's exit code, what it signalled and what else it printed."""
    if lava:
        executable(tmp_path / "lava-test-case", '#!/bin/sh\necho "SIGNAL $1 $2 $3"\n')
    # Our interpreter has the libraries already.
    environment = {**os.environ, "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([SIGNAL, *words], stdout=-1, stderr=subprocess.STDOUT, text=True, env=environment)
    lines = done.stdout.splitlines()
    signals = [line.removeprefix("SIGNAL ") for line in lines if line.startswith("SIGNAL ")]
    return done.returncode, signals, [line for line in lines if not line.startswith("SIGNAL ")]


def test_each_scenario_is_a_test_case_of_lava(tmp_path: Path) -> None:
    status, signals, lines = signalled(tmp_path, "--ov", "--kernel=6.12", "open-plain")
    assert status == 0, lines
    passed, *rest = map(int, re.findall(r"\d+", lines[-1]))
    assert rest == [0, 0] and passed > 1
    assert signals[:passed] == [f"open-plain_{n} --result pass" for n in range(1, passed + 1)]
    assert signals[-1] == "run --result pass"
    assert any(line.startswith("TEST ") for line in lines), "what it is at is shown"
    assert not any(line.startswith(" ./run") for line in lines), "the operations are not"


def test_a_failure_is_one_to_lava(tmp_path: Path) -> None:
    status, signals, lines = signalled(
        tmp_path, "--ov", "--xino", "--kernel=6.12", "--migrate=none", "--operations=after", "open-plain:1"
    )
    assert status == 1, lines
    assert "open-plain_1 --result fail" in signals and signals[-1] == "run --result fail"


def test_a_skip_is_no_failure_to_lava(tmp_path: Path) -> None:
    status, signals, _ = signalled(tmp_path, "--ov", "--xino", "--kernel=stock-6.12")
    assert (status, signals) == (0, ["check_run --result skip", "run --result skip"])


def test_a_run_that_never_began_is_a_failure_to_lava(tmp_path: Path) -> None:
    status, signals, _ = signalled(tmp_path, "--nonsense")
    assert (status, signals) == (2, ["run --result fail"])


def test_outside_of_lava_nothing_is_run(tmp_path: Path) -> None:
    status, signals, lines = signalled(tmp_path, "--ov", lava=False)
    assert (status, signals) == (3, []) and lines == ["signal: no lava-test-case: this is no LAVA test"]


# tuxrun -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--ov", "--xino")])
def test_tuxrun_is_given_the_tarball_and_the_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    executable(tmp_path / "tuxrun", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "ovl-detach.tar.xz").touch()  # it is there already
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(CI / "tuxrun"), "bzImage", "rootfs.ext4", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    given, inside = done.stdout.split("--\n")
    overlay = given.split()[given.split().index("--overlay") :]
    assert overlay[1:3] == [str(tmp_path / "ovl-detach.tar.xz"), "/opt/ovl-detach"]
    program, *options = inside.split()
    assert program == "/opt/ovl-detach/suite/ci/lava/signal"
    parse([*options, "--kernel=native"])
    assert tuple(options) == (words or ("--ov",))


def test_tuxrun_without_a_kernel_says_what_it_takes() -> None:
    done = subprocess.run([CI / "tuxrun"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: ci/tuxrun KERNEL ROOTFS [OPTION...]\n")
