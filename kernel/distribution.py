# SPDX-License-Identifier: GPL-2.0-only
"""A distribution's kernel for a QEMU guest: Debian's own image, and overlayfs as a module with the reference patches.

    kernel = build("debian-6.12")           overlay.ko has xino=nofollow
    kernel = build("stock-debian-6.12")     nothing but what Debian ships
    kernel.image, kernel.module             the bzImage, the module

The image, the headers to build a module against and the source of overlayfs are of one version of Debian's. It is the
`cloud` flavour: a third of the size, and virtio is built in. In the cache directory: `kernels/NAME-HASH/` with `boot`
and `lib/modules` as in the package; what was downloaded is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kernel import debian, patching, requirements, source
from kernel.build import build_lock
from kernel.errors import BuildError, SetupError, Unsupported, UsageError
from kernel.paths import cache_dir, made, new_log, trees_dir
from kernel.process import clean_env, run_logged
from kernel.progress import Progress
from kernel.recipe import series_patches
from kernel.requirements import find_program
from kernel.source import Source

SERIES = ("6.12",)
"""The series that Debian has as an image and that there are patches for."""
FLAVOUR = "cloud-amd64"
_VERSION = 2  # to be raised when this module makes something else of the same inputs
_OVERLAY = Path("kernel/fs/overlayfs/overlay.ko")  # in the directory of a kernel's modules
_MEMBERS = ("*/fs/overlayfs", "*/fs/internal.h", "*/Documentation/filesystems/overlayfs.rst")
_KEEP = 2  # entries of one name


@dataclass(frozen=True)
class Distribution:
    """A kernel in the cache, below `root`, and what its `kernel.json` says of it. `build_seconds` is the time it took.

    `root` has `boot` and `lib/modules` in it. `version` is that of Debian's packages, `patches` those in the module.
    """

    name: str
    root: Path
    release: str
    version: str
    patches: tuple[str, ...]
    build_seconds: float

    @property
    def image(self) -> Path:
        """The bzImage."""
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def module(self) -> Path:
        """The overlay.ko that the guest loads; a distribution's own may be compressed."""
        path = self.root / "lib/modules" / self.release / _OVERLAY
        return next((found for found in path.parent.glob(f"{path.name}*")), path)


def names() -> list[str]:
    """The kernels that can be had: per series the one with the patches, and the one as it is."""
    return [name for one in SERIES for name in (f"debian-{one}", f"stock-debian-{one}")]


def build(name: str = "debian-6.12", progress: Progress | None = None) -> Distribution:
    """The kernel `name`, from the cache or made now.

    Programs that are missing are installed when we are root on Debian. Raises `UsageError` for an unknown name,
    `SetupError` when something is missing on this machine or in Debian's packages, `BuildError` when a download or the
    build goes wrong, `Unsupported` on another architecture.
    """
    if name not in names():
        raise UsageError(f"unknown kernel {name!r}; known: {', '.join(names())}")
    series = name.rpartition("-")[2]
    patches = () if name.startswith("stock-") else series_patches(series)
    progress = progress or Progress()
    if (origin := source.local(series)) and (found := _load(_entry(name, origin, patches))):
        return found
    if platform.machine() != "x86_64":
        raise Unsupported(f"{name} does not run on {platform.machine()}")
    with build_lock(progress):
        log = new_log(f"build-{name}")
        begin = time.monotonic()
        requirements.ensure([*requirements.MODULE, *requirements.FETCH], log, progress.say)
        origin = source.local(series) or debian.fetch(series, log, progress)
        entry = _entry(name, origin, patches)
        if found := _load(entry):  # another run was faster
            return found
        with tempfile.TemporaryDirectory(dir=trees_dir(), prefix=".module-") as work:
            maker = _Maker(name, series, origin, patches, Path(work), log, progress)
            kernel = maker.make(entry, begin)
    progress.say(f"{kernel.release} ready after {kernel.build_seconds:.0f} s")
    return kernel


@dataclass(frozen=True)
class _Maker:
    name: str
    series: str
    origin: Source
    patches: tuple[Path, ...]
    work: Path
    log: Path
    progress: Progress

    def make(self, entry: Path, begin: float) -> Distribution:
        """Fetch, build and put into the cache as `entry`, in one step; `begin` is when the user started to wait."""
        version = _source_version(self.origin)
        release, gcc = self._choose(version)
        new = self.work / "entry"
        self._unpack(self._fetch(_packages(release, with_headers=bool(self.patches)), version), release, new)
        if self.patches:
            requirements.ensure([requirements.compiler(gcc)], self.log, self.progress.say)
            self._replace_overlay(release, new)
        with self.progress.phase("listing the modules"):
            run_logged([find_program("depmod") or "depmod", "-b", new, release], self.log, "depmod")
        kernel = Distribution(
            name=self.name,
            root=entry,
            release=release,
            version=version,
            patches=tuple(path.name for path in self.patches),
            build_seconds=round(time.monotonic() - begin, 1),
        )
        (new / "kernel.json").write_text(json.dumps({**asdict(kernel), "root": "."}, indent=1) + "\n")
        if entry.exists():  # damaged
            shutil.rmtree(entry)
        # The cache may be on another file system than a path without blanks.
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as name:
            Path(shutil.move(new, Path(name, "entry"))).rename(entry)
        _prune(entry)
        return kernel

    def _choose(self, version: str) -> tuple[str, str]:
        """The release of Debian's kernel of package version `version`, and the compiler that built it."""
        pattern = rf"^linux-headers-{re.escape(self.series)}\..*-{FLAVOUR}$"
        found = run_logged(["apt-cache", "search", "--names-only", pattern], self.log, "apt-cache search")
        packages = [line.split()[0] for line in found]
        stanzas = run_logged(["apt-cache", "show", *packages], self.log, "apt-cache show") if packages else []
        name = ""
        right = False
        for line in stanzas:
            key, _, value = line.partition(": ")
            if key == "Package":
                name, right = value, False
            elif key == "Version":
                right = value == version
            elif key == "Depends" and right and (gcc := re.search(r"\bgcc-\d+\b", value)):
                return name.removeprefix("linux-headers-"), gcc[0]
        raise SetupError(
            f"this machine's package sources have no {FLAVOUR} kernel of {version}, the version of "
            f"{self.origin.path}; refresh the package lists (apt-get update), or remove that file for the newest source"
        )

    def _fetch(self, packages: list[str], version: str) -> list[Path]:
        apt = debian.Apt()
        wanted = [f"{package}={version}" for package in packages]
        sizes: list[int] = []
        for package in wanted:
            announced = apt.announced(package, self.log)
            if announced is None:
                raise SetupError(f"this machine's package sources do not have {package}; log: {self.log}")
            sizes.append(announced[1] or 0)
        with self.progress.phase(f"fetching {packages[0]}", sum(sizes), "B", scale=True) as advance:
            for package in wanted:
                apt.download([package], made(self.work / package), self.log, advance)
        return sorted(self.work.glob("*/*.deb"))

    def _unpack(self, debs: list[Path], release: str, new: Path) -> None:
        """Put the image and its modules into `new`."""
        with self.progress.phase("opening the packages"):
            for deb in debs:
                run_logged(["dpkg-deb", "-x", deb, self.work / "x"], self.log, "unpacking a package")
            # Later releases have the modules below usr.
            modules = next(
                path for path in (self.work / "x/lib/modules", self.work / "x/usr/lib/modules") if path.exists()
            )
            made(new / "boot")
            (self.work / "x/boot" / f"vmlinuz-{release}").rename(new / "boot" / f"vmlinuz-{release}")
            made(new / "lib")
            modules.rename(new / "lib/modules")

    def _replace_overlay(self, release: str, new: Path) -> None:
        """Build overlay.ko with the patches and put it into the place of the distribution's."""
        tree = made(self.work / "source")
        with self.progress.phase("extracting overlayfs"):
            command = ["tar", "-C", str(tree), "--strip-components=1", "--wildcards", "-xf", str(self.origin.path)]
            run_logged([*command, *_MEMBERS], self.log, f"unpacking {self.origin.path}")
        with self.progress.phase("patching"):
            for patch in self.patches:
                patching.apply(tree, patch, self.log)
        with self.progress.phase("compiling overlay.ko"):
            make = ["make", "-C", str(self._headers(release)), f"M={tree / 'fs/overlayfs'}"]
            options = ["CONFIG_OVERLAY_FS=m", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
            lines = run_logged([*make, *options], self.log, "compiling overlay.ko", env=clean_env())
        if reason := misfit(lines):
            raise BuildError(f"overlay.ko does not fit the kernel: {reason}", self.log)
        ours = new / "lib/modules" / release / _OVERLAY
        for theirs in ours.parent.glob(f"{ours.name}*"):
            theirs.unlink()
        shutil.copyfile(tree / "fs/overlayfs/overlay.ko", ours)

    def _headers(self, release: str) -> Path:
        """The directory to build modules in, which expects to be installed below /usr/src."""
        base = self.work / "x/usr/src"
        headers = base / f"linux-headers-{release}"
        makefile = headers / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{base}/"))
        return headers


def misfit(lines: Sequence[str]) -> str | None:
    """The first line of a module's build that says it needs what the kernel does not give; None without any."""
    return next((line.strip() for line in lines if "modpost:" in line or " undefined!" in line), None)


def _packages(release: str, *, with_headers: bool) -> list[str]:
    base = release.removesuffix(f"-{FLAVOUR}")
    headers = [f"linux-headers-{release}", f"linux-headers-{base}-common", f"linux-kbuild-{base}"]
    return [f"linux-image-{release}", *(headers if with_headers else [])]


def _source_version(origin: Source) -> str:
    """The version of Debian's package that `origin` is of; `SetupError` when that cannot be told."""
    if found := re.fullmatch(r"linux-source-[\d.]+_(.+)\.tar\.xz", origin.path.name):
        return found[1]
    package = origin.path.name.removesuffix(".tar.xz")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    raise SetupError(f"{origin.path}: cannot tell which version of Debian's {package} it is of")


def _entry(name: str, origin: Source, patches: tuple[Path, ...]) -> Path:
    # The compiler is the one that Debian's kernel of this version was built with.
    parts = [f"distribution {_VERSION}", f"source {origin.identity}", FLAVOUR]
    try:
        parts += [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in patches]
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}") from error
    key = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
    return made(cache_dir() / "kernels") / f"{name}-{key}"


def _load(entry: Path) -> Distribution | None:
    """What the cache has; a damaged entry counts as none."""
    try:
        fields = json.loads((entry / "kernel.json").read_text())
        kernel = Distribution(**{**fields, "root": entry, "patches": tuple(fields["patches"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return kernel if kernel.image.is_file() and kernel.module.is_file() else None


def _prune(newest: Path) -> None:
    """Forget all but the last few entries of one name."""
    name = newest.name.rpartition("-")[0]
    entries = [path for path in newest.parent.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
    for path in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)[_KEEP:]:
        shutil.rmtree(path)
