# SPDX-License-Identifier: GPL-2.0-only
"""Programs of the system: what is missing is noticed, named in a line to copy, and installed for root."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from kernel import recipe as recipes
from kernel import requirements
from kernel.errors import SetupError


def test_what_is_missing_is_one_line_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = [need for need in requirements.BUILD if need.name in ("flex", "xz", "bison")]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    needs = [replace(need, present=lambda: False) for need in absent]
    message = "^missing: flex, bison, xz; install them with: sudo apt-get install flex bison xz-utils$"
    with pytest.raises(SetupError, match=message):
        requirements.ensure(needs, tmp_path / "log")


def test_no_compiler_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.requirements.clean_env", lambda: {"PATH": str(tmp_path)})
    names = [need.name for need in requirements.missing(requirements.BUILD)]
    assert names == ["gcc", "make", "flex", "bison", "bc", "patch", "tar", "xz"]
    assert recipes.compiler() == "none"


def test_missing_headers_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "gcc"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("kernel.requirements.find_program", lambda name: str(fake) if name == "gcc" else "/bin/true")
    missing = requirements.missing(requirements.BUILD)
    assert requirements.packages(missing) == ["libc6-dev"]


def test_root_gets_them_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt fails for want of package lists."""
    fake = tmp_path / "apt-get"
    new = tmp_path / "new"
    fake.write_text(f'#!/bin/sh\necho "$@"\ncase $1 in update) touch {new};; *) test -e {new};; esac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said: list[str] = []
    need = requirements.Requirement("frob", "frob-tools", new.exists)
    requirements.ensure([need], tmp_path / "log", said.append)
    assert said == ["installing frob-tools (apt-get install)"]
    log = (tmp_path / "log").read_text()
    assert log.count("install -y -q --no-install-recommends frob-tools") == 4, "command and echo, twice"


def test_the_virtiofs_daemon_is_where_the_release_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, package in {"12": "qemu-system-common", "13": "virtiofsd"}.items():
        release = {"ID": "debian", "VERSION_ID": version}
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda release=release: release)
        assert requirements.virtiofsd_package() == package


def test_what_qemu_needs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.requirements.clean_env", lambda: {"PATH": str(tmp_path)})
    monkeypatch.setattr(requirements, "_DAEMONS", ())
    names = [need.name for need in requirements.missing(requirements.QEMU)]
    assert names == ["qemu-system-x86_64", "virtiofsd", "modprobe"]


def test_an_administrators_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requirements.find_program("mkfs.xfs") or requirements.find_program("ldconfig")
