# SPDX-License-Identifier: GPL-2.0-only
"""Source -> fixes -> configuration -> patches -> compiled -> cached: a User-mode Linux kernel.

    kernel = build("6.12")           the one with xino=nofollow
    kernel = build("stock-6.12")     the same tree without it, a matter of seconds after the first
    kernel.path                      the program

In the cache directory: `kernels/NAME-HASH/` with the finished ones (appear all at once or not at all), `trees/HASH/`
the last few trees with their objects, `sources/` what was downloaded, `logs/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kernel import config, debian, patching, requirements, source
from kernel.errors import BuildError, SetupError, Unsupported
from kernel.paths import cache_dir, made, new_log, trees_dir
from kernel.process import clean_env, run_logged
from kernel.progress import Progress
from kernel.recipe import Recipe, compiler, recipe
from kernel.source import Source

SPACE_NEEDED = 3 * 10**9
"""Bytes that must be free before a build starts: the tarball, the tree, the objects."""

PROFILED = Path("fs/overlayfs")
"""Where a kernel with coverage counts, in its source tree and in its cache entry."""
STOCK_SOURCE = Path("stock") / PROFILED
"""In the cache entry of such a kernel, the same source without the patches."""

_STEPS = 1550  # lines that make prints for a whole build of our configuration, give or take a hundred
_KEEP = 4  # kernels of one name
_TREES = 3  # of different series or configurations, some 0.7 GB each


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache, and what its `kernel.json` says of it. `build_seconds` is the time it took then."""

    name: str
    path: Path
    release: str
    series: str
    patches: tuple[str, ...]
    inputs: str
    source: str
    compiler: str
    build_seconds: float


def cached(name: str, source_path: Path | None = None) -> Kernel | None:
    """The kernel `name` if it has been built from the inputs of today; never builds nor uses the network.

    Raises `UsageError` for an unknown name or a source that is not there.
    """
    what = recipe(name)
    origin = source.given(source_path) if source_path else source.local(what.series)
    return _load(what, origin, compiler()) if origin else None


def build(
    name: str = "6.12",
    source_path: Path | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
    what: Recipe | None = None,
) -> Kernel:
    """The kernel `name`, from the cache or built now, from Debian's source or from `source_path`.

    `jobs` is the number of compilers at a time, by default one per CPU. `what` replaces the recipe of `name`.
    Programs that are missing are installed when we are root on Debian. Raises `UsageError` for an unknown name or
    source, `SetupError` when something is missing on this machine, `BuildError` when the build goes wrong,
    `Unsupported` where User-mode Linux does not exist. Ctrl-C leaves no process and nothing half done.
    """
    progress = progress or Progress()
    what = what or recipe(name)
    gcc = compiler()
    origin = source.given(source_path) if source_path else source.local(what.series)
    if origin and (found := _load(what, origin, gcc)):
        return found
    if platform.machine() not in ("x86_64", "i686"):
        raise Unsupported(f"User-mode Linux does not run on {platform.machine()}")
    with build_lock(progress) as lock:
        log = new_log(f"build-{what.name}")
        begin = time.monotonic()
        requirements.ensure([*requirements.BUILD, *([] if origin else requirements.FETCH)], log, progress.say)
        _check_space()
        origin = origin or source.local(what.series) or debian.fetch(what.series, log, progress)
        gcc = compiler()
        if found := _load(what, origin, gcc):  # another run was faster
            return found
        kernel = _Build(what, origin, gcc, progress, jobs or os.cpu_count() or 1, lock, log).run(begin)
    progress.say(f"{kernel.release} ready after {kernel.build_seconds:.0f} s")
    return kernel


@dataclass
class _Build:
    what: Recipe
    origin: Source
    gcc: str
    progress: Progress
    jobs: int
    lock: int
    log: Path

    def run(self, begin: float) -> Kernel:
        """Build and put into the cache; `begin` is when the user started to wait (monotonic seconds)."""
        self._final = _entry(self.what, self.origin, self.gcc)
        self._inputs = _key(self.what, self.origin, self.gcc)
        with self._tree() as (tree, fresh):
            if fresh:
                self._prepare(tree)
            with contextlib.ExitStack() as stack:
                with self.progress.phase("patching"):
                    patched = stack.enter_context(patching.Patched(tree, self.what.patches, self.log))
                self._compile(tree, _STEPS if fresh else None)
                return self._store(tree / "linux", patched, begin)

    @contextlib.contextmanager
    def _tree(self) -> Iterator[tuple[Path, bool]]:
        """The tree to build in, and whether it is a new, empty one.

        A file beside it says that somebody is at work in it. Found at the start, the last one was killed and the tree
        is thrown away: make takes a half-written object for a finished one. A failed build keeps its tree. Of the
        other trees those used last are kept.
        """
        key = self.what.tree_key(self.origin.identity, self.gcc)
        tree = trees_dir() / key
        busy = trees_dir() / f"{key}.busy"
        self._remove_all("what a killed build left", _killed())
        self._remove_all("an old tree", _old(tree))
        fresh = not tree.exists()
        busy.touch()
        try:
            tree.mkdir(exist_ok=True)
            os.utime(tree)  # used last
            yield tree, fresh
        except BuildError:
            if not (tree / ".config").exists():
                _remove(tree)
            busy.unlink()
            raise
        except BaseException:
            _remove(tree)
            busy.unlink()
            raise
        busy.unlink()

    def _remove_all(self, text: str, paths: list[Path]) -> None:
        if paths:
            with self.progress.phase(f"removing {text}"):
                for path in paths:
                    _remove(path)

    def _prepare(self, tree: Path) -> None:
        """Fill a new tree: source, fixes, configuration."""
        with self.progress.phase("extracting"):
            self.origin.unpack(tree, self.log)
            series, version = source.release(tree)
            if series != self.what.series:
                raise SetupError(
                    f"{self.origin.path} is Linux {version}, but kernel {self.what.name} wants {self.what.series}"
                )
            for fix in self.what.fixes:
                if not patching.applied_already(tree, fix, self.log):
                    patching.apply(tree, fix, self.log)
        with self.progress.phase("configuring"):
            fragment = tree / "fragment.config"
            fragment.write_text(self.what.fragment())
            self._make(tree, f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig", what="configuring")
            try:
                config.verify(fragment.read_text(), tree / ".config", self.log)
            except BuildError:
                (tree / ".config").unlink()  # the tree is good for nothing
                raise

    def _compile(self, tree: Path, steps: int | None) -> None:
        (tree / "linux").unlink(missing_ok=True)
        with self.progress.phase(f"compiling {self.what.name}", steps, "file") as advance:
            self._make(
                tree,
                f"-j{self.jobs}",
                f"LOCALVERSION={self.what.suffix}",
                "linux",
                what="compiling",
                on_line=lambda line: advance(1) if re.match(r"  [A-Z]", line) else None,
            )

    def _make(self, tree: Path, *arguments: str, what: str, on_line: Callable[[str], object] | None = None) -> None:
        env = clean_env(KBUILD_BUILD_USER="ovl-detach", KBUILD_BUILD_HOST="localhost", KCONFIG_NOTIMESTAMP="1")
        run_logged(
            ["make", "ARCH=um", *arguments],
            self.log,
            what,
            cwd=tree,
            env=env,
            # Were we killed, what make started would hold the lock until it is gone too.
            keep_open=[self.lock],
            on_line=on_line,
        )

    def _store(self, binary: Path, patched: patching.Patched, begin: float) -> Kernel:
        """Put the program and its description into the cache under its final name, in one step."""
        final = self._final
        if _key(self.what, self.origin, self.gcc) != self._inputs:
            raise BuildError("the patches were changed while the kernel was being built; start again", self.log)
        kernel = Kernel(
            name=self.what.name,
            path=final / "linux",
            release=_release(binary, self.log),
            series=self.what.series,
            patches=tuple(path.name for path in self.what.patches),
            inputs=self._inputs,
            source=self.origin.identity,
            compiler=self.gcc,
            build_seconds=round(time.monotonic() - begin, 1),
        )
        _remove(final)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".new-") as name:
            new = Path(name, "entry")
            new.mkdir()
            shutil.copy2(binary, new / "linux")
            _keep_notes(binary.parent / PROFILED, patched, new)
            description = {**asdict(kernel), "path": "linux"}
            (new / "kernel.json").write_text(json.dumps(description, indent=1) + "\n")
            new.rename(final)
        _prune(final)
        return kernel


def _keep_notes(profiled: Path, patched: patching.Patched, entry: Path) -> None:
    """Of a kernel that counts what it runs, keep what is needed to read the counts: notes, source, stock source."""
    notes = list(profiled.glob("*.gcno"))
    if notes:
        kept, stock = made(entry / PROFILED), made(entry / STOCK_SOURCE)
        for path in notes:
            shutil.copy2(path, kept)
        for path in profiled.glob("*.[ch]"):
            shutil.copy2(path, kept)
            if (original := patched.original(path)) is not None:
                (stock / path.name).write_bytes(original)


def _killed() -> list[Path]:
    """What killed builds left: the trees before their marks, so that being killed in between does no harm."""
    marks = sorted(trees_dir().glob("*.busy"))
    return [*(mark.with_suffix("") for mark in marks), *marks]


def _old(wanted: Path) -> list[Path]:
    """The trees beyond those to keep beside `wanted`, which may not exist yet."""
    others = [path for path in trees_dir().iterdir() if path != wanted]
    return sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_TREES - 1 :]


def _entry(what: Recipe, origin: Source, gcc: str) -> Path:
    return made(cache_dir() / "kernels") / f"{what.name}-{_key(what, origin, gcc)}"


def _key(what: Recipe, origin: Source, gcc: str) -> str:
    try:
        return what.key(origin.identity, gcc)
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}") from error


def _load(what: Recipe, origin: Source, gcc: str) -> Kernel | None:
    """The cache's entry for these inputs; a damaged one counts as none."""
    entry = _entry(what, origin, gcc)
    try:
        fields = json.loads((entry / "kernel.json").read_text())
        kernel = Kernel(**{**fields, "path": entry / "linux", "patches": tuple(fields["patches"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return kernel if os.access(kernel.path, os.X_OK) else None


def _prune(newest: Path) -> None:
    """Forget all but the last few kernels of one name."""
    name = newest.name.rpartition("-")[0]
    entries = [path for path in newest.parent.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
    for path in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)[_KEEP:]:
        _remove(path)


def _release(binary: Path, log: Path) -> str:
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"the kernel that came out does not run: {error}", log) from error
    return done.stdout.strip()


@contextlib.contextmanager
def build_lock(progress: Progress) -> Iterator[int]:
    """One build at a time in this cache; yields the lock's file descriptor."""
    path = made(cache_dir()) / "build.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.phase("waiting for another run's build"):
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _check_space() -> None:
    for directory in {made(cache_dir()), trees_dir()}:
        free = shutil.disk_usage(directory).free
        if free < SPACE_NEEDED:
            raise SetupError(
                f"only {free / 1e9:.1f} GB free in {directory}; building a kernel needs {SPACE_NEEDED / 1e9:.0f} GB"
            )


def _remove(path: Path) -> None:
    """Remove a file or directory of ours, whatever state it is in."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
