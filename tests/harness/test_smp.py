# SPDX-License-Identifier: GPL-2.0-only
"""A guest with several CPUs: that it has them, where it runs, and what becomes of one that cannot have them."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from kernel.build import build
from kernel.cpus import own_cpus
from kernel.errors import UsageError
from kernel.guest import GuestResult, Outcome
from kernel.progress import Silent
from kernel.uml import UmlGuest

LIMIT = 60.0  # seconds


@pytest.fixture(scope="session")
def binary() -> Path:
    """A kernel for several CPUs."""
    return build("stock-7.2", progress=Silent()).path


@pytest.fixture(scope="session")
def single() -> Path:
    """A kernel for one."""
    return build("stock-6.12", progress=Silent()).path


def python(guest: UmlGuest, code: str) -> tuple[GuestResult, str]:
    out: list[bytes] = []
    argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]
    result = guest.run(argv, on_stdout=out.append, on_stderr=out.append, time_limit=LIMIT)
    return result, b"".join(out).decode()


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


ON_BOTH = """
    import os
    found = set()
    for cpu in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {cpu})
        with open("/proc/self/stat") as file:
            found.add(int(file.read().rpartition(")")[2].split()[36]))
    print(os.cpu_count(), sorted(found))
"""


@pytest.mark.parametrize("spread", [False, True])
def test_a_guest_has_two_cpus_and_runs_on_both(binary: Path, tmp_path: Path, spread: bool) -> None:
    said: list[str] = []
    guest = UmlGuest(binary, log_dir=tmp_path, spread=spread, say=said.append)
    result, out = python(guest, ON_BOTH)
    assert (result.status, result.cpus, out, said) == (0, 2, "2 [0, 1]\n", [])


def test_a_kernel_for_one_cpu_has_one_and_nothing_is_said(single: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result, out = python(UmlGuest(single, log_dir=tmp_path, say=said.append), ON_BOTH)
    assert (result.status, result.cpus, out, said) == (0, 1, "1 [0]\n", [])


@pytest.mark.parametrize("cpus", [1, 3])
def test_the_number_asked_for_is_the_number_there_is(binary: Path, tmp_path: Path, cpus: int) -> None:
    result, out = python(UmlGuest(binary, log_dir=tmp_path, cpus=cpus), ON_BOTH)
    assert (result.cpus, out) == (cpus, f"{cpus} {list(range(cpus))}\n")


def test_a_number_that_the_kernel_cannot_have_is_refused(binary: Path, single: Path) -> None:
    with pytest.raises(UsageError, match="2 CPUs: this kernel can have 1"):
        UmlGuest(single, cpus=2)
    for cpus in (0, UmlGuest(binary).most_cpus() + 1):
        with pytest.raises(UsageError, match=f"{cpus} CPUs: this kernel can have 4"):
            UmlGuest(binary, cpus=cpus)


def test_one_that_does_not_come_up_with_two_gets_one_unless_two_were_asked_for(binary: Path, tmp_path: Path) -> None:
    deaf = program(tmp_path / "k", f'#!/bin/bash\nexec {binary} "${{@/#ncpus=*/quiet}}"\n')
    said: list[str] = []
    result, _ = python(UmlGuest(deaf, log_dir=tmp_path, say=said.append), "")
    assert (result.status, result.cpus) == (0, 1)
    [line] = said
    assert line.startswith("guest: it does not boot with 2 CPUs, trying 1, traced: the guest did not boot: 1 of 2 CPUs")
    result, _ = python(UmlGuest(deaf, log_dir=tmp_path, cpus=2, say=said.append), "")
    assert (result.outcome, result.cpus) == (Outcome.NOT_BOOTED, None)
    assert "1 of 2 CPUs came up" in result.reason
    assert len(said) == 1


def test_one_that_is_asked_for_one_cpu_runs_by_seccomp_if_it_can(binary: Path, single: Path, tmp_path: Path) -> None:
    deaf = program(tmp_path / "k", f'#!/bin/bash\nfor w; do [ $w = seccomp=on ] && exit 1; done\nexec {binary} "$@"\n')
    said: list[str] = []
    result, out = python(UmlGuest(deaf, log_dir=tmp_path, cpus=1, say=said.append), ON_BOTH)
    assert (result.cpus, out) == (1, "1 [0]\n")
    assert [line.partition(": the guest")[0] for line in said] == [
        "guest: it does not boot with 1 and seccomp, trying 1, traced"
    ]
    for kernel in (binary, single):
        result, out = python(UmlGuest(kernel, log_dir=tmp_path, cpus=1, say=said.append), ON_BOTH)
        assert (result.cpus, out, len(said)) == (1, "1 [0]\n", 1)


def test_guests_get_host_cpus_of_their_own_while_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 4, 6})
    with own_cpus(1) as first, own_cpus(1) as second:
        assert (first, second) == ((2,), (4,))
        with own_cpus(2) as third:
            assert third[0] == 6
            assert third[1] in (2, 4)
    with own_cpus(5) as all_there_are:
        assert sorted(all_there_are) == [2, 4, 6]
