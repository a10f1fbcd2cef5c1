# SPDX-License-Identifier: GPL-2.0-only
"""A distribution's kernel: what is chosen of what Debian has, and that the module is the one we mean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel import distribution, source
from kernel.distribution import build, misfit
from kernel.errors import SetupError, UsageError
from kernel.progress import Silent
from kernel.requirements import find_program
from kernel.source import Source

CHECKOUT = Path(__file__).resolve().parents[2]

APT_CACHE = """\
#!/bin/sh
# plays apt-cache, which knows two versions of the kernel
case "$1" in
search) echo "linux-headers-6.12.7-cloud-amd64 - older"; echo "linux-headers-6.12.9-cloud-amd64 - newer" ;;
show)
    printf 'Package: linux-headers-6.12.7-cloud-amd64\\nVersion: 6.12.7-1\\nDepends: x, gcc-12\\n\\n'
    printf 'Package: linux-headers-6.12.9-cloud-amd64\\nVersion: 6.12.9-1\\nDepends: x, gcc-14 (>= 1)\\n' ;;
esac
"""
APT_GET = """\
#!/bin/sh
# plays apt-get, which has none of the packages
echo "E: Unable to locate package" >&2
exit 100
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose package sources are the above, and an empty cache; returns where its programs are."""
    for name, text in {"apt-cache": APT_CACHE, "apt-get": APT_GET}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def has_source(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path = Path(f"/x/linux-source-6.12_{version}.tar.xz")
    monkeypatch.setattr(source, "local", lambda series: Source(path, f"debian {path.name}"))


def test_a_version_that_debian_does_not_have_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_source(monkeypatch, "6.12.8-1")
    with pytest.raises(SetupError, match=r"have no cloud-amd64 kernel of 6\.12\.8-1, the version of /x/linux-source-6"):
        build("debian-6.12", Silent())


@pytest.mark.parametrize("version", ["6.12.7", "6.12.9"])
def test_the_kernel_of_the_sources_version_is_chosen(
    machine: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    has_source(monkeypatch, f"{version}-1")
    with pytest.raises(SetupError, match=rf"do not have linux-image-{version}-cloud-amd64={version}-1"):
        build("debian-6.12", Silent())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown kernel 'debian-5\.0'; known: debian-6\.12, stock-debian-6\.12"):
        build("debian-5.0")


def test_a_symbol_that_the_kernel_does_not_export_is_a_misfit() -> None:
    good = ["  MODPOST /x/Module.symvers", "  LD [M]  /x/overlay.ko"]
    bad = 'WARNING: modpost: "vfs_path_lookup" [/x/overlay.ko] undefined!'
    assert misfit(good) is None
    assert misfit([*good, bad]) == bad


def test_the_module_fits_and_has_the_option() -> None:
    patched, stock = build("debian-6.12", Silent()), build("stock-debian-6.12", Silent())
    assert patched.release == stock.release and len(patched.patches) > 10 and stock.patches == ()
    modinfo = find_program("modinfo")
    assert modinfo is not None
    unpacked = subprocess.run(["xz", "-dc", stock.module], capture_output=True, check=True).stdout
    assert b"xino=nofollow" in patched.module.read_bytes()
    assert b"xino=nofollow" not in unpacked and b"xino=" in unpacked
    for kernel in (patched, stock):
        said = subprocess.run([modinfo, "-F", "vermagic", kernel.module], capture_output=True, text=True, check=True)
        assert said.stdout.split()[0] == kernel.release
        [only] = (kernel.root / "lib/modules" / kernel.release).rglob("overlay.ko*")
        assert only == kernel.module
    assert build("debian-6.12", Silent()) == patched, "from the cache"


def test_the_paths_are_printed() -> None:
    command = [sys.executable, "-m", "kernel", "debian-6.12"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    kernel = build("debian-6.12", Silent())
    assert done.stdout.splitlines()[-2:] == [str(kernel.image), str(kernel.module)]


@pytest.mark.parametrize("damage", ["kernel.json", "image", "module"])
def test_a_damaged_entry_counts_as_none(tmp_path: Path, damage: str) -> None:
    kernel = build("stock-debian-6.12", Silent())
    entry = tmp_path / "entry"
    copy = distribution.Distribution("n", entry, kernel.release, "1", (), 1.0)
    for path in (copy.image, copy.module):
        path.parent.mkdir(parents=True)
        path.touch()
    (entry / "kernel.json").write_bytes((kernel.root / "kernel.json").read_bytes())
    assert distribution._load(entry) is not None
    {"kernel.json": entry / "kernel.json", "image": copy.image, "module": copy.module}[damage].unlink()
    assert distribution._load(entry) is None
