# SPDX-License-Identifier: GPL-2.0-only
"""Debian's source packages: from the machine's own package sources, else from Debian's sid by way of the same mirror.

    source = fetch("7.2", log, progress)

Needs no root. For sid, apt gets a configuration, lists and a cache of its own in a directory that is gone afterwards:
what the machine is set up to install does not change. Signatures are verified with the installed archive keyring.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import BuildError, SetupError
from kernel.paths import made
from kernel.process import run_logged
from kernel.progress import Advance, Progress
from kernel.source import Source, sources_dir

ELSEWHERE = "sid"
"""The suite that has a series which the machine's own suite does not have."""

KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{kind}") for kind in ("pgp", "gpg"))
"""Where Debian's package debian-archive-keyring puts the keys, by age of the release."""


@dataclass(frozen=True)
class Apt:
    """apt-get with `options` that say which package sources it has; none are the machine's own."""

    options: tuple[str, ...] = ()

    def run(self, log: Path, *words: str, on_line: Callable[[str], object] | None = None) -> list[str]:
        """The lines that `apt-get WORDS` prints; raises `BuildError` when it fails."""
        return run_logged(["apt-get", *self._all(), *words], log, f"apt-get {words[0]}", on_line=on_line)

    def announced(self, package: str, log: Path) -> tuple[str, int | None] | None:
        """File name and size in bytes of what it would download; None when it knows of no such package."""
        try:
            lines = self.run(log, "download", "-q", "--print-uris", package)
        except BuildError:
            return None
        for line in lines:
            if found := re.match(r"'[^']*' (\S+) (\d+)", line):
                return found[1], int(found[2])
        return package, None

    def download(self, packages: Sequence[str], directory: Path, log: Path, advance: Advance) -> None:
        """Put the packages' files into `directory`, telling `advance` the bytes as they come."""
        done = 0

        def look() -> None:
            nonlocal done
            with contextlib.suppress(OSError):
                now = sum(path.stat().st_size for path in directory.glob("*.deb"))
                advance(now - done)
                done = now

        command = ["apt-get", *self._all(), "download", "-q", *packages]
        run_logged(command, log, "apt-get download", cwd=directory, on_tick=look)
        look()

    def _all(self) -> list[str]:
        # Root may write where apt's own user may not: without the option it warns.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        return [*sandbox, *(word for option in self.options for word in ("-o", option))]


def fetch(series: str, log: Path, progress: Progress) -> Source:
    """Get Debian's source package of `series` and keep its tarball.

    Raises `SetupError` when there is no such package or nothing to verify it with, `BuildError` when the download
    or unpacking fails.
    """
    package = f"linux-source-{series}"
    with tempfile.TemporaryDirectory(dir=made(sources_dir()), prefix=".fetch-") as name:
        work = Path(name)
        apt, (file, size) = _provider(package, work / "apt", log, progress)
        with progress.phase(f"fetching {package}", size, "B", scale=True) as advance:
            apt.download([package], work, log, advance)
        debs = list(work.glob("*.deb"))
        if len(debs) != 1:
            raise BuildError(f"apt-get downloaded no {file}", log)
        with progress.phase(f"opening {package}"):
            run_logged(["dpkg-deb", "-x", debs[0], work / "x"], log, "unpacking the package")
        tarballs = list(work.glob("x/usr/src/*.tar.*"))
        if len(tarballs) != 1:
            raise BuildError(f"{debs[0].name} has no source tarball", log)
        version = debs[0].name.split("_")[1]
        for old in sources_dir().glob(f"{package}_*.tar.xz"):
            old.unlink()
        kept = sources_dir() / f"{package}_{version}.tar.xz"
        tarballs[0].rename(kept)
        os.utime(kept)
    return Source(kept, f"debian {kept.name}")


def _provider(package: str, private: Path, log: Path, progress: Progress) -> tuple[Apt, tuple[str, int | None]]:
    """The apt that has `package`, and what it announced. Fresh lists of the machine are got only if we are root."""
    own = Apt()
    if what := own.announced(package, log):
        return own, what
    if os.geteuid() == 0:
        # A failing mirror shows in the next step if it matters.
        with contextlib.suppress(BuildError):
            own.run(log, "update", "-q")
        if what := own.announced(package, log):
            return own, what
    with progress.phase(f"looking for {package} in Debian's {ELSEWHERE}"):
        elsewhere = _elsewhere(private, log)
    if what := elsewhere.announced(package, log):
        return elsewhere, what
    refresh = "" if os.geteuid() == 0 else "; refresh the package lists with: sudo apt-get update"
    raise SetupError(
        f"neither this machine's package sources nor Debian's {ELSEWHERE} have {package}{refresh}, "
        f"or use --kernel-source DIR or TARBALL; log: {log}"
    )


def _elsewhere(private: Path, log: Path) -> Apt:
    """apt for the suite `ELSEWHERE` alone, with its state below `private`, up to date.

    Raises `SetupError` when there is no keyring or mirror, or when the lists cannot be got or verified.
    """
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise SetupError(f"nothing to verify Debian's {ELSEWHERE} with: install the package debian-archive-keyring")
    sites = mirrors(Apt().run(log, "indextargets", "--format", _TARGET, "Created-By: Packages"))
    if not sites:
        raise SetupError(
            "this machine's package lists name no Debian mirror; get them with: sudo apt-get update "
            "(or use --kernel-source DIR or TARBALL)"
        )
    reasons = []
    for number, site in enumerate(sites):
        apt = _private(private / str(number), site, keyring)
        lines: list[str] = []
        try:
            apt.run(log, "update", "-q", on_line=lines.append)
        except BuildError as error:
            reasons.append(why(lines, keyring) or f"the package lists of Debian's {ELSEWHERE} cannot be got: {error}")
        else:
            return apt
    raise SetupError(reasons[0])


_TARGET = "$(SITE)|$(COMPONENT)|$(LABEL)"


def mirrors(targets: list[str]) -> list[str]:
    """The sites that may mirror Debian, the likely ones first, out of `SITE|COMPONENT|LABEL` lines.

    A label is known once lists were got; a site whose label is another one than Debian's is none.
    """
    found: dict[str, str] = {}
    for line in targets:
        site, _, rest = line.partition("|")
        component, _, label = rest.partition("|")
        if component == "main" and label in ("Debian", ""):
            found.setdefault(site, label)
    return sorted(found, key=lambda site: found[site] != "Debian")


def _private(directory: Path, site: str, keyring: Path) -> Apt:
    """apt with files of its own below `directory` and `site`'s `ELSEWHERE` as its only package source."""
    for name in ("lists/partial", "cache/archives/partial"):
        made(directory / name)
    (directory / "status").touch()
    (directory / "sources.list").write_text(f"deb [signed-by={keyring}] {site} {ELSEWHERE} main\n")
    return Apt(
        (
            f"Dir::Etc::SourceList={directory}/sources.list",
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            f"Dir::State={directory}",
            f"Dir::State::Lists={directory}/lists",
            f"Dir::State::Status={directory}/status",
            f"Dir::Cache={directory}/cache",
            "Acquire::Languages=none",
            # Without it, lists that cannot be verified or got are a warning.
            "APT::Update::Error-Mode=any",
        )
    )


def why(lines: Sequence[str], keyring: Path) -> str | None:
    """What is wrong with `keyring`, if the output of apt-get says that it is: the key that it lacks."""
    keys = sorted({key for line in lines for key in re.findall(r"NO_PUBKEY ([0-9A-F]+)", line)})
    if not keys:
        return None
    return (
        f"{keyring} lacks the key {', '.join(keys)} that signs Debian's {ELSEWHERE}: "
        "install a newer debian-archive-keyring, or use --kernel-source DIR or TARBALL"
    )
