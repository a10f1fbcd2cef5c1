# SPDX-License-Identifier: GPL-2.0-only
"""`./run --migrate-tree`: its words and exit codes, what a dry run counts, and what makes it say "not detached".

The tests with `nofollow` need a kernel that has `xino=nofollow`. What the migration does to all kinds of trees is told
by the trials `live-migration`.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from command import migration
from command.options import parse
from datasets.tree import IMMUTABLE, Directory, File, HardLink, Symlink, write
from tests.harness.isolated import isolated, needs_mounts, needs_overlay
from union import syscalls
from union.errors import SetupError, UsageError
from union.filesystems import mount, tmpfs
from union.live import Live, _lowers, _unescaped
from union.live_migration import NO_DATA, Advance, Outcome
from union.migrate import STILL_MERGED, Leftover
from union.mountinfo import Mount
from union.overlay import accepts
from union.portrait import portrait
from union.survey import Survey, survey
from union.upper import OpaqueState, opaque_state
from union.workspace import scratch_directory

CHECKOUT = Path(__file__).resolve().parents[2]
TREE = Directory({"d": Directory({"e": Directory({"x": File(b"x" * 100)}), "y": File(b"y")}), "f": File(b"f")})
KEPT = Directory({"d": Directory({"kept": File(b"k", flags=IMMUTABLE)}), "e": Directory({"x": File(b"x")})})


@pytest.mark.parametrize(
    "words",
    [
        ["--dry-run"],
        ["--ov", "--dry-run"],
        ["--ov", "--migrate-tree", "/m"],
        ["--migrate-tree", "/m", "--list"],
        ["--migrate-tree", "/m", "rename-file"],
        ["--migrate-tree", "/m", "--kernel=7.2"],
        ["--migrate-tree"],
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


def test_the_options_are_understood() -> None:
    assert parse(["--migrate-tree", "/m"]).migrate_tree == Path("/m")
    assert not parse(["--migrate-tree", "/m"]).dry_run and parse(["--dry-run", "--migrate-tree=/m"]).dry_run


def shown(*options: tuple[str, str]) -> Mount:
    return Mount(1, 0, "0:1", "/m", "overlay", "overlay", options)


def test_lower_layers_are_read_as_the_kernel_shows_them() -> None:
    def lowers(*options: tuple[str, str]) -> list[str]:
        return [str(path) for path in _lowers(shown(*options))]

    assert lowers(("lowerdir", "/a:/b c:/d,=")) == ["/a", "/b c", "/d,="]
    assert lowers(("lowerdir", r"/a\:b:/c\\:/d\\\:e")) == ["/a:b", "/c\\", "/d\\:e"]
    assert lowers(("lowerdir", "/a:/b::/data::/more")) == ["/a", "/b"]
    assert lowers(("lowerdir+", "/a:b"), ("lowerdir+", "/c\\"), ("datadir+", "/data")) == ["/a:b", "/c\\"]
    assert lowers(("lowerdir", "l")) == [f"{Path.cwd()}/l"]
    assert _unescaped(r"/a\\b\,c") == r"/a\b,c"


# the upper layer alone decides


def test_what_needs_a_lower_layer_keeps_all_that_it_is_in_from_being_done() -> None:
    everything = frozenset({".", "a", "a/b", "a/b/c", "a/d", "e"})
    assert OpaqueState(everything, frozenset(), frozenset(), 9).done == everything
    state = OpaqueState(everything - {"a/b"}, frozenset({"a/b"}), frozenset(), 9)
    assert state.needy == {"a/b"} and state.done == {"a/b/c", "a/d", "e"}
    state = OpaqueState(everything, frozenset(), frozenset({"p"}), 9, frozenset({"a/b/c/f"}))
    assert state.needy == {"a/b/c/f"} and state.done == {"a/d", "e", "p"}


@needs_mounts
@isolated
def test_a_file_without_data_is_seen_in_the_upper_layer(tmp_path: Path) -> None:
    with ExitStack() as stack:
        tmpfs(stack, tmp_path, "upper_layer")
        write(TREE, tmp_path)
        for path in (tmp_path, tmp_path / "d"):
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        assert opaque_state(tmp_path, hidden=frozenset(), data=True).needy == frozenset()
        assert (opaque_state(tmp_path).objects, opaque_state(tmp_path, hidden=frozenset()).objects) == (4, 5)
        os.setxattr(tmp_path / "d/e/x", "trusted.overlay.metacopy", b"")
        os.setxattr(tmp_path / "f", "trusted.overlay.metacopy", b"digest")
        assert opaque_state(tmp_path, hidden=frozenset(), data=True).needy == {"d/e/x", "f"}
        assert opaque_state(tmp_path, namespace="user", hidden=frozenset(), data=True).dataless == frozenset()


# words


LIVE = Live(shown(), Path("/u"), (Path("/l"),), {}, "trusted", {})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """There is an overlay, whatever it is."""
    monkeypatch.setattr(migration, "find", lambda point, changes=True: LIVE)
    yield monkeypatch


class Terminal(io.StringIO):
    """It says that it is one."""

    def isatty(self) -> bool:
        return True


def ends_with(outcome: Outcome) -> Callable[[Live, Advance], Outcome]:
    def carry_out(live: Live, advance: Advance) -> Outcome:
        advance(2)
        advance(1)
        return outcome

    return carry_out


def test_detached(found: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found.setattr(migration, "carry_out", ends_with(Outcome(4, 4, 9, ())))
    assert migration.run(Path("/m"), dry=False) == 0
    said, complained = capsys.readouterr()
    first = "/m: detached: 4 of 4 directories opaque, 9 objects in the upper layer, none needs a lower one"
    assert said.splitlines()[0] == first and not complained


def test_not_detached(found: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    merged = (Leftover("d", STILL_MERGED), Leftover(".", STILL_MERGED))
    found.setattr(migration, "carry_out", ends_with(Outcome(2, 4, 9, (Leftover("d/x", NO_DATA), *merged))))
    assert migration.run(Path("/m"), dry=False) == 1
    cause, last = capsys.readouterr().out.splitlines()
    assert cause == f"left over: d/x: {NO_DATA}"
    assert last.startswith("/m: not detached: 1 object left over, 2 of 4 directories opaque")
    found.setattr(migration, "carry_out", ends_with(Outcome(2, 4, 9, merged)))
    assert migration.run(Path("/m"), dry=False) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert (first, second) == (f"left over: d: {STILL_MERGED}", f"left over: .: {STILL_MERGED}")
    assert last.startswith("/m: not detached: 2 of 4 directories opaque")


def test_a_terminal_gets_a_bar(found: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found.setattr(migration, "carry_out", ends_with(Outcome(4, 4, 9, ())))
    found.setattr(migration, "survey", lambda live, advance: Survey(seen=3))
    found.setattr(sys, "stderr", terminal := Terminal())
    assert migration.run(Path("/m"), dry=False) == 0
    assert "migrate: " in terminal.getvalue() and "/3 " in terminal.getvalue()
    assert "%" not in capsys.readouterr().out


def test_an_interruption_says_how_far_it_came(found: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def carry_out(live: Live, advance: Advance) -> Outcome:
        advance(3)
        raise KeyboardInterrupt

    found.setattr(migration, "carry_out", carry_out)
    assert migration.run(Path("/m"), dry=False) == 130
    assert capsys.readouterr() == ("", "run: interrupted after 3 objects; the same command goes on from here\n")


@pytest.mark.parametrize(
    ("seen", "status", "words"),
    [
        (Survey(5, 3, 700, 2), 0, "/m: to copy up: 3 objects with 700 bytes of data; to mark: 2 directories"),
        (Survey(5, 3, 700, 2, free=700), 0, "/m: to copy up: 3 objects with 700 bytes"),
        (Survey(5, 3, 700, 2, free=699), 1, "/m: not enough room: 700 bytes to copy up, 699 are free"),
        (Survey(5, 0, 0, 2, [Leftover("d/x", "immutable")]), 1, "left over: d/x: immutable"),
        (Survey(5, 0, 0, 2, [Leftover("d/x", "immutable")]), 1, "1 object is in the way of a detach"),
        (Survey(), 0, "/m: detached already, nothing to copy up"),
    ],
)
def test_a_dry_run(
    found: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seen: Survey, status: int, words: str
) -> None:
    found.setattr(migration, "survey", lambda live, advance: seen)
    assert migration.run(Path("/m"), dry=True) == status
    said, complained = capsys.readouterr()
    assert words in said and not complained


# the command


def run(*words: str | Path, cwd: Path = CHECKOUT) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, CHECKOUT / "run", *words], capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


@needs_overlay
@isolated
def test_what_cannot_be_migrated_is_refused_in_one_line() -> None:
    with ExitStack() as stack:
        root = union(stack, "xino=on", TREE)
        for point, status, words in (
            (root / "l0", 2, "is not an overlay but"),
            (root / "m/d", 2, "lies inside of an overlay"),
            (root / "absent", 2, "No such file or directory"),
            (root / "m", 4, "is not mounted with xino=nofollow"),
        ):
            for more in ((), ("--dry-run",)):
                code, said, complained = run("--migrate-tree", point, *more)
                assert (code, said, complained.count("\n")) == (status, "", 1), complained
                assert complained.startswith(f"run: {point}") and words in complained


def union(stack: ExitStack, options: str, *lowers: Directory) -> Path:
    """A union on `m`, its layers beside it; skips the test if the kernel does not have nofollow and should."""
    if "nofollow" in options and (refusal := accepts(("xino", "nofollow"))):
        pytest.skip(f"this kernel refuses xino=nofollow: {refusal}")
    root = layers(stack, *lowers)
    mounted(stack, root, [f"l{number}" for number in range(len(lowers))], options)
    return root


def layers(stack: ExitStack, *lowers: Directory) -> Path:
    root = scratch_directory(stack)
    for number, tree in enumerate(lowers):
        (root / f"l{number}").mkdir()
        write(tree, root / f"l{number}")
    for name in ("u", "v", "w", "m"):
        (root / name).mkdir()
    return root


def mounted(stack: ExitStack, root: Path, names: list[str], options: str, upper: str = "u") -> None:
    shown = f"lowerdir={':'.join(f'{root}/{name}' for name in names)},upperdir={root}/{upper},workdir={root}/w"
    mount(stack, "overlay", root / "m", "overlay", f"{shown},{options}")


@needs_overlay
@pytest.mark.parametrize("options", ["", ",userxattr", ",index=on", ",metacopy=on,redirect_dir=on"])
@isolated
def test_nofollow_detached(options: str) -> None:
    with ExitStack() as stack:
        root = union(stack, f"xino=nofollow{options}", TREE)
        before = portrait(str(root / "m"))
        status, said, complained = run("--migrate-tree", root / "m", "--dry-run")
        assert (status, complained) == (0, "") and "to copy up: 5 objects with 102 bytes" in said
        assert os.listdir(root / "u") == []
        status, said, complained = run("--migrate-tree", root / "m")
        assert (status, complained) == (0, "")
        assert ": detached: 3 of 3 directories opaque, 5 objects in the upper layer" in said
        status, said, complained = run("--migrate-tree", "m", "--dry-run", cwd=root)
        assert (status, said, complained) == (0, "m: detached already, nothing to copy up\n", "")
        shutil.rmtree(root / "l0")  # nobody will miss it
        (root / "l0").mkdir()
        syscalls.drop_caches()
        assert portrait(str(root / "m")) == before


@needs_overlay
@isolated
def test_nofollow_not_detached_until_it_is() -> None:
    with ExitStack() as stack:
        root = union(stack, "xino=nofollow", KEPT)
        line = "left over: d/kept: immutable: not copied up; chattr -i on it in the union"
        status, said, _ = run("--migrate-tree", root / "m", "--dry-run")
        assert status == 1 and said.splitlines()[0] == line and "3 objects with 1 bytes" in said
        status, said, complained = run("--migrate-tree", root / "m")
        assert (status, complained) == (1, "") and said.splitlines()[0] == line
        assert ": not detached: 1 object left over, 1 of 3 directories opaque" in said
        subprocess.run(["chattr", "-i", root / "m/d/kept"], check=True)
        assert run("--migrate-tree", root / "m")[0] == 0


@needs_overlay
@isolated
def test_nofollow_without_privilege() -> None:
    with ExitStack() as stack:
        root = union(stack, "xino=nofollow", TREE)
        without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable]
        command = [*without, str(CHECKOUT / "run"), "--migrate-tree", str(root / "m")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
        assert (done.returncode, done.stdout) == (4, "") and "CAP_SYS_ADMIN" in done.stderr
        assert os.listdir(root / "u") == []


# what a dry run counts


def move_about(point: Path) -> None:
    """Leave marks of all kinds in the upper layer."""
    for name in ("gone", "dir/y"):
        (point / name).unlink()
    shutil.rmtree(point / "again")
    (point / "again").mkdir()
    (point / "again/new").write_bytes(b"new")
    (point / "dir/sub").rename(point / "sub-here")  # an absolute redirect
    (point / "other").rename(point / "another")  # a relative one
    (point / "deep/a").rename(point / "another/moved")
    (point / "file").chmod(0o600)


def lower(number: int) -> Directory:
    own = f"own{number}"
    return Directory(
        {
            "gone": File(b"gone"),
            "file": File(b"file" * number),
            "again": Directory({own: File(b"hidden")}),
            "dir": Directory(
                {"y": File(b"y"), own: File(b"12"), "sub": Directory({own: File(b"345"), "s": Symlink("y")})}
            ),
            "other": Directory({own: File(b"6789"), "x": Directory({"one": File(b"one"), "two": HardLink("one")})}),
            "deep": Directory({"a": Directory({own: File(b"abcde"), "b": Directory({own: File(b"f")})})}),
            own: Directory({"in": File(b"in")}),
        }
    )


def by_hand(root: Path, names: list[str], upper: str, options: Mapping[str, str]) -> Live:
    mount = replace(shown(), point=str(root / "m"))
    return Live(mount, root / upper, tuple(root / name for name in names), options, "trusted", {})


@needs_overlay
@pytest.mark.parametrize("rotated", [False, True])
@isolated
def test_a_dry_run_counts_what_is_not_in_the_upper_layer(rotated: bool) -> None:
    with ExitStack() as stack:
        root = layers(stack, lower(1), lower(2))
        with ExitStack() as first:
            mounted(first, root, ["l0", "l1"], "redirect_dir=on")
            move_about(root / "m")
            if not rotated:
                check(root, ["l0", "l1"], "u")
        if rotated:  # what was upper is a lower layer now, with all its marks
            mounted(stack, root, ["u", "l0", "l1"], "redirect_dir=on", "v")
            (root / "m/another").rename(root / "m/own1/back")
            (root / "m/sub-here/own1").unlink()
            (root / "m/again").rename(root / "m/own2/again")
            check(root, ["u", "l0", "l1"], "v")


def check(root: Path, names: list[str], upper: str) -> None:
    seen = portrait(str(root / "m"))
    lacking = [name for name in seen if not os.path.lexists(root / upper / name)]
    data = sum(len(seen[name].data or b"") for name in lacking if stat.S_ISREG(seen[name].mode))
    found = survey(by_hand(root, names, upper, {"redirect_dir": "on"}))
    assert (found.objects, found.bytes, found.obstacles) == (len(lacking), data, [])
    assert len(lacking) > 10 and found.seen >= len(lacking)


def test_a_dry_run_without_a_layer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    with pytest.raises(SetupError, match="l0 cannot be looked at: No such file or directory; a dry run needs all"):
        survey(by_hand(tmp_path, ["l0"], "u", {}))


@needs_overlay
@isolated
def test_a_redirect_that_is_not_followed_is_in_the_way() -> None:
    with ExitStack() as stack:
        root = union(stack, "redirect_dir=on", lower(1))
        move_about(root / "m")
        found = survey(by_hand(root, ["l0"], "u", {"redirect_dir": "nofollow"}))
        assert {one.path for one in found.obstacles} == {"sub-here", "another"}
