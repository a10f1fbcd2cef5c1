# SPDX-License-Identifier: GPL-2.0-only
"""What goes into a guest while it runs, limits that its command sets, and faults that end it at once."""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.build import build
from kernel.guest import GuestResult, Outcome
from kernel.progress import Silent
from kernel.uml import STATUS, UmlGuest

LIMIT = 60.0  # seconds for anything that does not test a limit


@pytest.fixture
def guest(tmp_path: Path) -> UmlGuest:
    return UmlGuest(build("stock-6.12", progress=Silent()).path, log_dir=tmp_path)


@contextmanager
def holding(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def shell(guest: UmlGuest, script: str, data: bytes = b"", **options: object) -> tuple[GuestResult, bytes]:
    out = bytearray()
    options.setdefault("time_limit", LIMIT)
    with holding(data) as stdin:
        result = guest.run(["/bin/sh", "-c", script], stdin=stdin, on_stdout=out.extend, **options)  # type: ignore[arg-type]
    return result, bytes(out)


@pytest.mark.parametrize("name", ["stock-6.12", "7.2"])
def test_input_is_complete_and_eight_bit_clean(name: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    guest = UmlGuest(build(name, progress=Silent()).path, log_dir=tmp_path)
    result, out = shell(guest, "exec cat", data)
    assert (result.outcome, result.status) == (Outcome.EXITED, 0)
    assert out == data


def test_input_and_output_take_turns(guest: UmlGuest) -> None:
    code = """
        import os
        for _ in range(200):
            os.write(1, os.read(0, 1))
    """
    reader, writer = os.pipe()
    out = bytearray()

    def answer(data: bytes) -> None:
        out.extend(data)
        if len(out) < 200:
            os.write(writer, b"x" * len(data))

    os.write(writer, b"x")
    try:
        argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]
        result = guest.run(argv, stdin=reader, on_stdout=answer, time_limit=LIMIT)
    finally:
        os.close(reader)
        os.close(writer)
    assert (result.outcome, result.status, bytes(out)) == (Outcome.EXITED, 0, b"x" * 200)


def test_input_that_nobody_reads_does_not_keep_the_guest(guest: UmlGuest) -> None:
    result, out = shell(guest, "exec 0<&-; echo ready", b"x" * (1 << 20))
    assert (result.outcome, result.status, out) == (Outcome.EXITED, 0, b"ready\n")


def test_the_empty_device_is_empty_input(guest: UmlGuest) -> None:
    out = bytearray()
    with open(os.devnull, "rb") as nothing:
        guest.run(["/usr/bin/wc", "-c"], stdin=nothing.fileno(), on_stdout=out.extend, time_limit=LIMIT)
    assert out.strip() == b"0"


# Limits.


def test_a_limit_that_nobody_lifts_is_a_hang(guest: UmlGuest) -> None:
    result, out = shell(guest, f"echo before; echo limit 1 >/dev/{STATUS}; exec sleep 1000")
    assert (result.outcome, result.status, out) == (Outcome.HANG, None, b"before\n")


def test_a_limit_that_is_lifted_is_none(guest: UmlGuest) -> None:
    result, out = shell(guest, f"cd /dev; echo limit 1 >{STATUS}; echo limit 0 >{STATUS}; sleep 1.5; echo after")
    assert (result.outcome, result.status, out) == (Outcome.EXITED, 0, b"after\n")


# Faults.

OOPS = "BUG: made up by a test"


def test_a_fault_can_end_the_guest(guest: UmlGuest) -> None:
    # The first line has reached the host for certain when the fault does, and the second one is written after that.
    script = f"echo before; sleep 0.2; echo '{OOPS}' >/dev/kmsg; sleep 0.2; echo after; exec sleep 1000"
    result, out = shell(guest, script, end_at_fault=True)
    assert (result.outcome, result.status, result.reason, out) == (Outcome.OOPS, None, OOPS, b"before\n")


def test_a_fault_ends_no_other_guest(guest: UmlGuest) -> None:
    result, out = shell(guest, f"echo '{OOPS}' >/dev/kmsg; echo after; exit 3")
    assert (result.outcome, result.status, out) == (Outcome.OOPS, 3, b"after\n")
