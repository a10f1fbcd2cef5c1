# SPDX-License-Identifier: GPL-2.0-only
"""Work in a user namespace: its result and its errors come back, nothing else does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.harness.isolated import isolated, needs_mounts
from union import syscalls
from union.elsewhere import NoNamespace, as_root_of_a_namespace
from union.errors import SetupError

MOUNTS = Path("/proc/self/mountinfo")


def mounts_there() -> tuple[int, str]:
    syscalls.mount("there", "/tmp", "tmpfs")
    return os.stat("/proc/self/ns/user").st_ino, MOUNTS.read_text()


def refused() -> None:
    raise OSError(errno.ENOSPC, "no room", "/a")


def wrong() -> None:
    raise ValueError("a bug of ours")


def forbids_another() -> str:
    Path("/proc/sys/user/max_user_namespaces").write_text("0")  # a limit of this namespace
    try:
        as_root_of_a_namespace(mounts_there)
    except NoNamespace as reason:
        return type(reason).__name__
    return "made"


def dies() -> None:
    os._exit(1)


@needs_mounts
@isolated
def test_its_mounts_stay_there() -> None:
    namespace, mounts = as_root_of_a_namespace(mounts_there)
    assert namespace != os.stat("/proc/self/ns/user").st_ino
    assert " - tmpfs there " in mounts
    assert " - tmpfs there " not in MOUNTS.read_text()


@needs_mounts
@isolated
def test_no_namespace_is_told_apart() -> None:
    assert as_root_of_a_namespace(forbids_another) == "NoNamespace"


@needs_mounts
@isolated
def test_its_errors_come_back() -> None:
    with pytest.raises(OSError, match="no room") as caught:
        as_root_of_a_namespace(refused)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(SetupError, match="a bug of ours"):
        as_root_of_a_namespace(wrong)
    with pytest.raises(SetupError, match="died"):
        as_root_of_a_namespace(dies)
