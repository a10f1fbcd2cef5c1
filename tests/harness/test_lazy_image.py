# SPDX-License-Identifier: GPL-2.0-only
"""An image of Debian packages: what comes along, and what is said when it cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command import image
from kernel import requirements
from kernel.debian import Apt
from kernel.errors import BuildError, SetupError
from kernel.progress import Advance, Silent

ANNOUNCED = [
    "'https://a.mirror/base-files_12.4_amd64.deb' base-files_12.4_amd64.deb 70936 SHA256:63",
    "'https://a.mirror/libc6_2.36-9_amd64.deb' libc6_2.36-9_amd64.deb 2759320 SHA256:64",
    "'https://a.mirror/dash_0.5_amd64.deb' dash_0.5_amd64.deb 91848 SHA256:65",
    "a line of apt's",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and apt that has the packages above."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(requirements, "missing", lambda _: [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Apt, "run", lambda *_, **__: ANNOUNCED)
    return tmp_path / "ovl-detach"


def _download(_: Apt, packages: list[str], directory: Path, log: Path, advance: Advance) -> None:
    for package in packages:
        (directory / f"{package}_1_amd64.deb").touch()


def test_all_that_is_needed_comes_along(tmp_path: Path) -> None:
    found = image._resolve(image.SMALL, tmp_path, tmp_path / "log")
    assert [package.name for package in found] == ["base-files", "dash", "libc6"]
    assert sum(package.size for package in found) == 70936 + 2759320 + 91848


def test_it_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []

    def unpack(command: list[str | Path], *_: object, **__: object) -> list[str]:
        unpacked.append(Path(command[2]).name)
        tree = Path(command[3])
        (tree / "bin").mkdir(exist_ok=True)
        for name in ("true", "sh"):
            (tree / "bin" / name).touch()
        return []

    monkeypatch.setattr(Apt, "download", _download)
    monkeypatch.setattr(image, "run_logged", unpack)
    made = image.fetch(image.SMALL, Silent())
    assert made.parent == cache / "images" and (made / "bin/true").exists()
    assert unpacked == [f"{name}_1_amd64.deb" for name in ("base-files", "dash", "libc6")]
    assert image.fetch(image.SMALL, Silent()) == made and len(unpacked) == 3
    assert [path.name for path in made.parent.iterdir()] == [made.name]  # nothing else stays
    monkeypatch.setattr(Apt, "run", lambda *_, **__: [ANNOUNCED[0]])  # other packages: another image
    assert image.fetch(image.SMALL, Silent()) != made


def test_an_image_without_its_programs_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apt, "download", _download)
    monkeypatch.setattr(image, "run_logged", lambda *_, **__: [])
    with pytest.raises(SetupError, match=r"an image without bin/true: .*--image=DIR"):
        image.fetch(image.SMALL, Silent())


def test_a_machine_without_apt_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "missing", lambda needs: list(needs))
    with pytest.raises(SetupError, match=r"^missing to get an image from Debian: apt-get, dpkg-deb; .*--image=DIR$"):
        image.fetch(image.SMALL, Silent())


def test_package_lists_that_were_never_got_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[str]:
        raise BuildError("apt-get install failed: E: Unable to locate package dash")

    monkeypatch.setattr(Apt, "run", fail)
    with pytest.raises(SetupError, match=r"do not have all of .*dash; .*sudo apt-get update.*--image=DIR"):
        image.fetch(image.SMALL, Silent())
