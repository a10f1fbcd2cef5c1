# SPDX-License-Identifier: GPL-2.0-only
"""Building a kernel: what decides its hash, what can go wrong, and that a cache entry is whole or not there.

The trees built here only play Linux, see `pretend.py`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kernel import build as building
from kernel import config, paths, source
from kernel import recipe as recipes
from kernel.build import build, cached
from kernel.errors import BuildError, SetupError, Unsupported, UsageError
from kernel.progress import Advance, Silent
from kernel.recipe import Recipe, recipe
from tests.harness.pretend import PATCH, make_ingredients, make_tree

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that nothing here touches the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ovl-detach"


@pytest.fixture
def ingredients(tmp_path: Path) -> Path:
    return make_ingredients(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def content(directory: Path) -> dict[str, tuple[bytes | None, int]]:
    return {
        str(path): (path.read_bytes() if path.is_file() else None, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
    }


def make(ingredients: Path, tree: Path, name: str = "6.12") -> building.Kernel:
    return build(name, tree, Silent(), what=recipe(name, ingredients))


def compilations(tmp_path: Path) -> int:
    count = tmp_path / "count"
    return len(count.read_text().splitlines()) if count.exists() else 0


def test_a_change_of_the_users_tree_is_noticed(tree: Path) -> None:
    before = source.given(tree).identity
    assert source.given(tree).identity == before
    (tree / "fs/overlayfs/super.o").write_text("an object is no source")
    (tree / ".git/index").write_text("nor is this")
    assert source.given(tree).identity == before
    os.utime(tree / "fs/overlayfs/super.c", ns=(1, 1))
    assert source.given(tree).identity != before


# Building.


def test_a_patched_and_a_stock_kernel_come_out_of_one_tree(ingredients: Path, tree: Path, cache: Path) -> None:
    before = content(tree)
    patched = make(ingredients, tree)
    stock = make(ingredients, tree, "stock-6.12")
    assert (patched.release, stock.release) == ("6.12.5-nofollow", "6.12.5")
    assert "# patched" in patched.path.read_text()
    assert "# second" in stock.path.read_text()
    assert patched.patches == ("0001-change.patch",)
    assert stock.patches == ()
    assert content(tree) == before, "nothing of the user's may change"
    [built] = [path for path in (cache / "trees").iterdir() if path.is_dir()]
    assert not (built / "fs/overlayfs/new.c").exists(), "the patches are off again"
    assert (built / "arch/um/fixme.c").read_text() == "# mended\n"
    for name in ("include/generated/utsrelease.h", "fs/overlayfs/super.o", "arch/arm/x.c", ".git"):
        assert not (built / name).exists()


def test_the_second_time_it_comes_from_the_cache(ingredients: Path, tree: Path, tmp_path: Path) -> None:
    first = make(ingredients, tree)
    again = make(ingredients, tree)
    assert again == first
    assert compilations(tmp_path) == 1
    (ingredients / "patches/6.12/0001-change.patch").write_text(PATCH.replace("# patched", "# differently"))
    assert "# differently" in make(ingredients, tree).path.read_text()
    assert compilations(tmp_path) == 2


def test_a_damaged_entry_is_built_anew(ingredients: Path, tree: Path, tmp_path: Path) -> None:
    kernel = make(ingredients, tree)
    kernel.path.with_name("kernel.json").write_text("{")
    assert make(ingredients, tree).path == kernel.path
    assert compilations(tmp_path) == 2


def test_a_flavour_has_its_own_options_and_patches_too(ingredients: Path, tree: Path, cache: Path) -> None:
    (tree / "fs/overlayfs/super.gcno").write_text("notes")
    counting = make(ingredients, tree, "counting-6.12")
    assert "# counted" in counting.path.read_text()
    assert counting.patches == ("0001-change.patch", "0001-count.patch")
    [built] = [path for path in (cache / "trees").iterdir() if path.is_dir()]
    assert "CONFIG_TWO=6\n" in (built / ".config").read_text()
    kept = counting.path.parent / building.PROFILED
    assert (kept / "super.gcno").read_text() == "notes"
    assert "# counted" in (kept / "super.c").read_text(), "the source as it was compiled"
    stock = counting.path.parent / building.STOCK_SOURCE
    assert (stock / "super.c").read_text() == "# first\n# second\n"
    assert not (stock / "new.c").exists()


def test_a_kernel_without_notes_keeps_no_source(ingredients: Path, tree: Path) -> None:
    assert not (make(ingredients, tree).path.parent / building.PROFILED).exists()


def test_trees_of_different_options_do_not_evict_each_other(
    ingredients: Path, tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trees() -> set[Path]:
        return {path for path in (cache / "trees").iterdir() if path.is_dir()}

    monkeypatch.setattr(building, "_TREES", 2)
    make(ingredients, tree)
    plain = trees()
    make(ingredients, tree, "counting-6.12")
    [counting] = trees() - plain
    assert trees() == {*plain, counting}
    for path in plain:
        os.utime(path, (1, 1))
    (ingredients / "uml.config").write_text("CONFIG_ONE=y\n")
    make(ingredients, tree)
    assert len(trees()) == 2
    assert counting in trees(), "the one that was not used for longest is gone"


def test_a_tarball_will_do(ingredients: Path, tree: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "any name.tar.xz"
    with tarfile.open(tarball, "w:xz") as tar:
        tar.add(tree, "linux-6.12.5")
    assert make(ingredients, tarball).release == "6.12.5-nofollow"


def test_a_fix_that_the_source_has_is_fine(ingredients: Path, tree: Path) -> None:
    (tree / "arch/um/fixme.c").write_text("# mended\n")
    assert make(ingredients, tree).release == "6.12.5-nofollow"


def test_cached_builds_nothing(tree: Path, tmp_path: Path) -> None:
    assert cached("6.12", tree) is None
    assert compilations(tmp_path) == 0


# What can go wrong.


def test_a_patch_that_does_not_fit_is_named_with_its_file(ingredients: Path, tree: Path, cache: Path) -> None:
    (tree / "fs/overlayfs/super.c").write_text("# first\n# not what the patch wants\n")
    message = r"^0001-change\.patch does not fit this source at fs/overlayfs/super\.c; log: "
    with pytest.raises(BuildError, match=message) as caught:
        make(ingredients, tree)
    assert caught.value.log is not None
    assert "FAILED" in caught.value.log.read_text()
    assert list((cache / "kernels").iterdir()) == []


def test_a_patch_must_fit_without_fuzz(ingredients: Path, tree: Path) -> None:
    (tree / "fs/overlayfs/super.c").write_text("# other context\n# second\n")
    with pytest.raises(BuildError, match="does not fit"):
        make(ingredients, tree)


def test_a_patch_for_a_file_that_is_not_there_is_named(ingredients: Path, tree: Path) -> None:
    (tree / "fs/overlayfs/super.c").rename(tree / "fs/overlayfs/main.c")
    with pytest.raises(BuildError, match=r"0001-change\.patch does not fit this source at fs/overlayfs/super\.c"):
        make(ingredients, tree)


def test_patches_before_the_one_that_does_not_fit_are_taken_off(ingredients: Path, tree: Path) -> None:
    second = ingredients / "patches/6.12/0002-again.patch"
    second.write_text(PATCH)
    with pytest.raises(BuildError, match=r"0002-again\.patch does not fit"):
        make(ingredients, tree)
    second.unlink()
    assert "# patched" in make(ingredients, tree).path.read_text()


def test_a_dropped_option_is_named(ingredients: Path, tree: Path) -> None:
    fragment = "CONFIG_ONE=y\nCONFIG_DROPPED_A=y\nCONFIG_DROPPED_B=3\n# CONFIG_MORE is not set\n"
    (ingredients / "uml.config").write_text(fragment)
    with pytest.raises(BuildError, match="drops CONFIG_DROPPED_A, CONFIG_DROPPED_B, CONFIG_MORE; log: "):
        make(ingredients, tree)


def test_dropped_options() -> None:
    fragment = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n# words about CONFIG_E\n"
    finished = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=y\n"
    assert config.dropped(fragment, finished) == ["CONFIG_B", "CONFIG_D"]
    assert config.dropped(fragment, fragment) == []


def test_a_compilers_error_is_shown_and_the_tree_stays_usable(ingredients: Path, tree: Path, tmp_path: Path) -> None:
    bad = PATCH.replace("# patched", "error: no such member")
    (ingredients / "patches/6.12/0001-change.patch").write_text(bad)
    with pytest.raises(BuildError, match=r"compiling failed: 2:error: no such member; log: "):
        make(ingredients, tree)
    (ingredients / "patches/6.12/0001-change.patch").write_text(PATCH)
    assert "# patched" in make(ingredients, tree).path.read_text()


def test_a_kernel_that_does_not_run_is_not_cached(ingredients: Path, tmp_path: Path, cache: Path) -> None:
    tree = make_tree(tmp_path, "printf '#!/bin/false\\n' >linux; chmod +x linux; exit 0; :")
    text = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(text[: text.index("\t@printf '#!/bin/sh")])
    with pytest.raises(BuildError, match="does not run"):
        make(ingredients, tree)
    assert list((cache / "kernels").iterdir()) == []


def test_bad_sources_are_refused(ingredients: Path, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        make(ingredients, tmp_path / "none")
    with pytest.raises(UsageError, match="is not a Linux source tree"):
        make(ingredients, tmp_path)
    (tmp_path / "text").write_text("no tarball")
    with pytest.raises(BuildError, match="unpacking"):
        make(ingredients, tmp_path / "text")
    (tree / "Makefile").write_text((tree / "Makefile").read_text().replace("= 12", "= 6"))
    with pytest.raises(SetupError, match=r"is Linux 6\.6\.5, but kernel 6\.12 wants 6\.12"):
        make(ingredients, tree)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown kernel '5\.0'; known: .*stock-6\.12"):
        build("5.0")


def test_no_space_is_said_before_anything_is_done(
    ingredients: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "SPACE_NEEDED", 1 << 60)
    with pytest.raises(SetupError, match=r"only .* GB free in .*; building a kernel needs"):
        make(ingredients, tree)
    assert compilations(tmp_path) == 0


def test_a_machine_without_user_mode_linux(ingredients: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")
    with pytest.raises(Unsupported, match="sparc64"):
        make(ingredients, tree)


def test_a_cache_path_that_a_build_cannot_take(
    ingredients: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "with a blank"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernel = make(ingredients, tree)
    assert kernel.path.is_relative_to(tmp_path / "with a blank")
    assert paths.trees_dir() == tmp_path.resolve() / f"ovl-detach-{os.geteuid()}/trees"


def test_patches_that_change_during_the_build_are_noticed(ingredients: Path, tmp_path: Path, cache: Path) -> None:
    tree = make_tree(tmp_path, f'echo >>"{ingredients}/patches/6.12/0001-change.patch"')
    with pytest.raises(BuildError, match="changed while the kernel was being built"):
        make(ingredients, tree)
    assert list((cache / "kernels").iterdir()) == []


# Interrupted, and two at once.


def test_what_a_killed_build_left_is_thrown_away(ingredients: Path, tree: Path, cache: Path) -> None:
    make(ingredients, tree)
    [built] = [path for path in (cache / "trees").iterdir() if path.is_dir()]
    (built / "half an object").write_text("")
    built.with_name(f"{built.name}.busy").touch()
    make(ingredients, tree, "stock-6.12")
    assert not (built / "half an object").exists()
    assert [path.name for path in (cache / "trees").iterdir()] == [built.name]


class Gate:
    """Two named pipes: a compilation says its process id into one and waits for a word from the other."""

    def __init__(self, directory: Path) -> None:
        self.inside = directory / "inside"
        self.go = directory / "go"
        os.mkfifo(self.inside)
        os.mkfifo(self.go)
        self.action = f'echo $$$$ >"{self.inside}"; read word <"{self.go}"'

    def wait_for_compilation(self) -> int:
        return int(self.inside.read_text())

    def open(self) -> None:
        self.go.write_text("go\n")


SCRIPT = """
    import sys
    from pathlib import Path
    from kernel.build import build
    from kernel.recipe import recipe
    build("6.12", Path(sys.argv[2]), what=recipe("6.12", Path(sys.argv[1])))
"""


@contextmanager
def building_process(ingredients: Path, tree: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(ingredients), str(tree)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def gone(pid: int) -> bool:
    """Wait for the end of a process; false when that takes too long."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = poll.poll(10_000)
        os.close(fd)
        return bool(ended)
    return True


def test_ctrl_c_leaves_no_process_and_no_entry(ingredients: Path, tmp_path: Path, cache: Path) -> None:
    gate = Gate(tmp_path)
    tree = make_tree(tmp_path, gate.action)
    with building_process(ingredients, tree) as process:
        compilation = gate.wait_for_compilation()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        assert gone(compilation)
    assert list((cache / "kernels").iterdir()) == []
    assert list((cache / "trees").iterdir()) == []


def test_a_killed_build_leaves_no_entry_and_the_next_one_works(ingredients: Path, tmp_path: Path, cache: Path) -> None:
    gate = Gate(tmp_path)
    tree = make_tree(tmp_path, gate.action)
    with building_process(ingredients, tree) as process:
        gate.wait_for_compilation()
        process.kill()
        process.wait(20)
        gate.open()  # what make started notices on its own that nobody listens any more
    assert not (cache / "kernels").exists() or list((cache / "kernels").iterdir()) == []
    assert make(ingredients, make_tree(tmp_path)).release == "6.12.5-nofollow"


def test_two_at_once_build_once(ingredients: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    tree = make_tree(tmp_path, gate.action)
    waiting = threading.Event()

    class Watch(Silent):
        @contextmanager
        def phase(
            self, text: str, total: int | None = None, unit: str = "it", scale: bool = False
        ) -> Iterator[Advance]:
            if text.startswith("waiting"):
                waiting.set()
            yield lambda _: None

    releases: list[str] = []

    def one() -> None:
        releases.append(build("6.12", tree, Watch(), what=recipe("6.12", ingredients)).release)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.wait_for_compilation()
    second_waits = waiting.wait(20)
    gate.open()
    for thread in threads:
        thread.join()
    assert second_waits, "for the first one to have compiled"
    assert releases == ["6.12.5-nofollow"] * 2
    assert compilations(tmp_path) == 1


def test_only_the_last_kernels_are_kept(ingredients: Path, tree: Path, cache: Path) -> None:
    stock = make(ingredients, tree, "stock-6.12")
    for i in range(6):
        (ingredients / "patches/6.12/0001-change.patch").write_text(PATCH.replace("# patched", f"# {i}"))
        newest = make(ingredients, tree)
    kept = list((cache / "kernels").glob("6.12-*"))
    assert len(kept) == 4
    assert newest.path.parent in kept
    assert stock.path.exists()


# What the project itself ships.


def test_our_own_recipes_are_complete() -> None:
    assert {"6.12", "stock-6.12", "7.2", "stock-7.2"} <= set(recipes.names())
    assert recipe("6.12").fixes, "6.12 does not boot on a CPU with AMX without"
    for name in recipes.names():
        what: Recipe = recipe(name)
        assert bool(what.patches) == (not name.startswith("stock-"))
        assert len(config.requested(what.fragment())) > 50
