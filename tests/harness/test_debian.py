# SPDX-License-Identifier: GPL-2.0-only
"""Getting the source from Debian: whose package lists are used, what is left alone, and what each failure says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kernel import debian
from kernel.debian import fetch, mirrors, why
from kernel.errors import SetupError
from kernel.progress import Silent
from kernel.source import local

APT = """\
#!/bin/sh
# plays apt-get: the machine knows {own}, sid knows {sid}; each call leaves a line in {calls}
echo "$*" >>{calls}
case "$*" in
*SourceList=*) known={sid} who=sid ;;
*) known={own} who=own ;;
esac
case "$*" in
*indextargets*) echo "{site}|main|Debian" ;;
*update*) {update} ;;
*print-uris*$known) echo "'x' $known.deb 5" ;;
*print-uris*) echo "E: Unable to locate package" >&2; exit 100 ;;
*download*) cp {deb} "${{known}}_7.2.1-1_all.deb"; echo "$who" >>{calls} ;;
esac
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ovl-detach"


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keyring.gpg"
    path.touch()
    monkeypatch.setattr(debian, "KEYRINGS", (tmp_path / "no such keyring", path))
    return path


class Machine:
    """A machine with a pretended apt-get; `calls` are the command lines that it was given."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = tmp_path / "bin"
        self._log = tmp_path / "calls"
        self._deb = tmp_path / "source.deb"
        self._directory.mkdir()
        monkeypatch.setenv("PATH", f"{self._directory}:{os.environ['PATH']}")
        package = tmp_path / "package"
        (package / "DEBIAN").mkdir(parents=True)
        (package / "DEBIAN/control").write_text(
            "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
        )
        (package / "usr/src").mkdir(parents=True)
        (package / "usr/src/linux-source-7.2.tar.xz").write_text("a tarball")
        subprocess.run(["dpkg-deb", "-b", package, self._deb], check=True, capture_output=True)

    def knows(self, own: str, sid: str, update: str = "true") -> None:
        script = self._directory / "apt-get"
        text = APT.format(own=own, sid=sid, calls=self._log, site="mirror:/some/debian", update=update, deb=self._deb)
        script.write_text(text)
        script.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def get(tmp_path: Path) -> str:
    return fetch("7.2", tmp_path / "log", Silent()).identity


NAME = "linux-source-7.2"


def test_the_machines_own_sources_come_first(machine: Machine, tmp_path: Path, keyring: Path) -> None:
    machine.knows(own=NAME, sid=NAME)
    assert get(tmp_path) == f"debian {NAME}_7.2.1-1.tar.xz"
    assert machine.calls[-1] == "own"
    found = local("7.2")
    assert found is not None
    assert found.path.read_text() == "a tarball"


@pytest.mark.parametrize("uid", [0, 1000])
def test_what_they_lack_comes_from_sid_by_the_same_mirror(
    machine: Machine, tmp_path: Path, keyring: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    as_user(monkeypatch, uid)
    keep = f"cp {cache}/sources/.fetch*/apt/0/sources.list {tmp_path}"
    machine.knows(own="other", sid=NAME, update=keep)
    assert get(tmp_path) == f"debian {NAME}_7.2.1-1.tar.xz"
    assert machine.calls[-1] == "sid"
    assert (tmp_path / "sources.list").read_text() == f"deb [signed-by={keyring}] mirror:/some/debian sid main\n"
    changing = [call for call in machine.calls if "update" in call and "Dir::State::Lists=" not in call]
    assert len(changing) == (1 if uid == 0 else 0), "only root may renew the machine's lists"
    assert [path.name for path in (cache / "sources").iterdir()] == [f"{NAME}_7.2.1-1.tar.xz"], "apt's files are gone"


def test_a_package_that_nobody_has(
    machine: Machine, tmp_path: Path, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.knows(own="other", sid="other")
    with pytest.raises(SetupError, match=r"neither this machine's .* nor Debian's sid have linux-source-7\.2"):
        get(tmp_path)
    as_user(monkeypatch, 1000)
    with pytest.raises(SetupError, match="sudo apt-get update"):
        get(tmp_path)


def test_a_key_that_is_missing_is_named(machine: Machine, tmp_path: Path, keyring: Path) -> None:
    machine.knows(own="other", sid=NAME, update='echo "W: GPG error: sid InRelease: NO_PUBKEY 0123ABCD"; exit 100')
    with pytest.raises(SetupError, match=rf"^{keyring} lacks the key 0123ABCD that signs Debian's sid"):
        get(tmp_path)
    assert why(["W: another trouble"], keyring) is None


def test_without_a_keyring_nothing_is_got(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRINGS", ())
    machine.knows(own="other", sid=NAME)
    with pytest.raises(SetupError, match="install the package debian-archive-keyring"):
        get(tmp_path)
    assert "sid" not in machine.calls


def test_mirrors_are_those_of_debians_main() -> None:
    lines = ["c|main|", "a|main|Debian", "a|main|Debian", "s|main|Debian-Security", "o|main|Other", "n|contrib|Debian"]
    assert mirrors(lines) == ["a", "c"]
    assert mirrors([]) == []


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_a_mirror_without_a_signature_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(path.is_file() for path in debian.KEYRINGS):
        pytest.skip("needs debian-archive-keyring")
    dist = tmp_path / "mirror/dists/sid"
    (dist / "main/binary-amd64").mkdir(parents=True)
    packages = f"Package: {NAME}\nVersion: 7.2.1-1\nArchitecture: all\nFilename: x.deb\nSize: 1\n"
    (dist / "main/binary-amd64/Packages").write_text(packages)
    (dist / "Release").write_text("Suite: unstable\nCodename: sid\nArchitectures: amd64\nComponents: main\n")
    as_user(monkeypatch, 1000)  # not to renew the lists of this machine
    monkeypatch.setattr(debian, "mirrors", lambda _: [f"file:{tmp_path}/mirror"])
    with pytest.raises(SetupError, match=r"the package lists of Debian's sid cannot be got: .*not signed"):
        fetch("7.2-not-there", tmp_path / "log", Silent())
