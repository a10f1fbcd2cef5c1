# SPDX-License-Identifier: GPL-2.0-only
"""All changes to a checkout or none: whatever fails, and wherever it is killed."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overlay_xfstests import changes, install_command
from overlay_xfstests import suite as ours
from tests.harness.pretend_xfstests import (
    OVERLAY,
    add_test,
    checkout,
    golden,
    install,
    order,
    refusal,
    script,
    suite,
    tree,
)
from union.errors import SetupError

__all__ = ["checkout", "suite"]
OF_OS = ["replace", "unlink", "link"]
OF_PATH = ["write_bytes", "write_text", "chmod", "unlink"]
KILLED = 77
EARLY, LATE = 22, 28  # steps of an installation: one or two files are in place; all but the record


def at_step(step: int, happens: Callable[[], None]) -> Callable[[], int]:
    """From now on something happens instead of the step of that number; the function counts the steps so far."""
    count = itertools.count(1)
    taken = 0

    def instead(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken = next(count)
            if taken == step:
                happens()
            return real(*args, **kwargs)

        return call

    mine = {name: instead(getattr(os, name)) for name in OF_OS}
    setattr(changes, "os", SimpleNamespace(**vars(os) | mine))  # noqa: B010
    for name in OF_PATH:
        setattr(Path, name, instead(getattr(Path, name)))
    return lambda: taken


def in_child(suite: Path, words: list[str], step: int, happens: Callable[[], None]) -> int:
    """The exit code of `install` with the tests of `suite`, in a child to which that happens at a step."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            read_as_suite = functools.partial(ours.read, suite)
            setattr(ours, "read", read_as_suite)  # noqa: B010
            steps = at_step(step, happens)
            install_command.main(words)
            status = 0 if steps() >= step else 1
        except SetupError:
            status = 28
        except KeyboardInterrupt:
            status = 130
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undo_in_child(checkout: Path, step: int) -> int:
    """The exit code of `undo` in a child that is killed at a step; 0 if it takes fewer."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            at_step(step, lambda: os._exit(KILLED))
            changes.undo(checkout)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def no_space() -> None:
    raise OSError(28, "No space left on device", "somewhere")


def interrupt() -> None:
    raise KeyboardInterrupt


def changed(suite: Path) -> None:
    """The suite has a test that is another, one that is new, and one is gone."""
    (suite / "tests/passes").write_text(script("passes better"))
    add_test(suite, "another")
    order(suite, ["another", "passes"])


@pytest.mark.parametrize(("happens", "code"), [(no_space, 28), (interrupt, 130)])
@pytest.mark.parametrize("what", ["install", "update", "remove"])
def test_what_fails_midway_is_taken_back(
    suite: Path, checkout: Path, what: str, happens: Callable[[], None], code: int
) -> None:
    if what != "install":
        install(suite, checkout)
        changed(suite)
    words = [*(["--remove"] if what == "remove" else []), str(checkout)]
    before = tree(checkout)
    for step in itertools.count(1):
        ended = in_child(suite, words, step, happens)
        if ended == 1:
            break  # it takes fewer steps than that
        assert ended == code
        assert tree(checkout) == before, step
    assert step > 15
    assert tree(checkout) != before


@pytest.mark.parametrize("what", ["install", "update", "remove"])
def test_what_was_killed_is_taken_back_by_the_next(suite: Path, checkout: Path, what: str) -> None:
    untouched = tree(checkout)
    if what != "install":
        install(suite, checkout)
        changed(suite)
    words = [*(["--remove"] if what == "remove" else []), str(checkout)]
    before = tree(checkout)
    left = 0
    for step in itertools.count(1):
        ended = in_child(suite, words, step, lambda: os._exit(KILLED))
        if ended == 1:
            break
        assert ended == KILLED
        if changes.is_unfinished(checkout):
            left += 1
            if left == 1:
                assert "an install was killed there" in refusal(suite, "install", "--dry-run", checkout)
            changes.undo(checkout)
        assert tree(checkout) == before, step
    assert left > 10
    if what != "remove":
        install(suite, "--remove", checkout)
    assert tree(checkout) == untouched


def test_install_itself_takes_back_what_was_killed(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    assert in_child(suite, [str(checkout)], LATE, lambda: os._exit(KILLED)) == KILLED
    install(suite, "--from=3", checkout)
    assert (checkout / OVERLAY / "003").exists()
    assert not (checkout / OVERLAY / "006").exists()
    install(suite, "--remove", checkout)
    assert tree(checkout) == before


def test_killed_while_it_takes_back(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    assert in_child(suite, [str(checkout)], LATE, lambda: os._exit(KILLED)) == KILLED
    assert tree(checkout) != before
    for step in itertools.count(1):
        ended = undo_in_child(checkout, step)
        if ended == 0:
            break
        assert ended == KILLED
    assert step > 5
    assert tree(checkout) == before


def test_what_others_did_after_a_kill_stays(suite: Path, checkout: Path) -> None:
    """Only what was in place already is taken back."""
    assert in_child(suite, [str(checkout)], EARLY, lambda: os._exit(KILLED)) == KILLED
    assert (checkout / OVERLAY / "006").exists()
    assert not (checkout / OVERLAY / "007").exists()
    (checkout / OVERLAY / "007").write_text("# mine\n")
    (checkout / "edited").write_text("# mine\n")
    (checkout / "edited").rename(checkout / "doc/group-names.txt")
    changes.undo(checkout)
    assert not (checkout / OVERLAY / "006").exists()
    assert (checkout / OVERLAY / "007").read_text() == "# mine\n"
    assert (checkout / "doc/group-names.txt").read_text() == "# mine\n"


def test_a_limit_midway_is_one_line(suite: Path, checkout: Path) -> None:
    """What a full disk gives, from the command itself."""
    (suite / "tests/passes.out").write_text(golden("passes") + "much\n" * 10000)
    before = tree(checkout)
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", sys.executable, str(suite / "install"), str(checkout)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"xfstests-overlay/install: {checkout}: File too large; nothing was changed\n"
    assert tree(checkout) == before
    install(suite, checkout)  # control
    assert (checkout / OVERLAY / "007.out").stat().st_size > 50000


def test_sigterm_ends_it_in_order(suite: Path, checkout: Path) -> None:
    before = tree(checkout)
    planted = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(suite)!r}, {str(suite.parent)!r}]\n"
        "from overlay_xfstests import changes, install_command, words\n"
        "real = os.replace\n"
        "def replace(old, new):\n"
        "    if str(new).endswith('007'): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    real(old, new)\n"
        "os.replace = replace\n"
        "words.run('install', install_command.main)\n"
    )
    done = subprocess.run([sys.executable, "-c", planted, checkout], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")
    assert tree(checkout) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have files of others")
def test_all_in_a_checkout_of_somebody_else_is_theirs(suite: Path, checkout: Path) -> None:
    everything = [checkout, *checkout.rglob("*")]
    for path in everything:
        os.chown(path, 4242, 4243)
    install(suite, checkout)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in checkout.rglob("*")} == {(4242, 4243)}
    assert len(list(checkout.rglob("*"))) == len(everything) - 1 + 6  # two tests, common/nofollow, the record
    install(suite, "--remove", checkout)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in checkout.rglob("*")} == {(4242, 4243)}
