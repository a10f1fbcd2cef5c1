# SPDX-License-Identifier: GPL-2.0-only
"""Migration: what it copies, what it must not change, what it reports; opaque marks as read from upper.

The tests with `nofollow` need a kernel that has `xino=nofollow`; any other skips them with its own words.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from datasets.reference import CLASSICAL, reference
from datasets.tree import Directory, File, Symlink, walk, write
from tests.harness.isolated import isolated, needs_mounts, needs_overlay, needs_xfs
from union import migrate, syscalls
from union.configuration import Configuration, LowerFs, Xino
from union.effective import effective
from union.errors import SetupError
from union.fences.disk import Shutdown
from union.filesystems import tmpfs
from union.layers import LayerStack, build_layers
from union.migrate import Leftover, Migration, opaque_state
from union.overlay import Overlay, accepts

SMALL = reference({"top": 2})
SMALL_OBJECTS = 1 + 2 * 13
SMALL_DIRECTORIES = 1 + 1 + 2 * 4  # the root counts
OPAQUE = "trusted.overlay.opaque"


def union_of(
    stack: ExitStack, tree: Directory = SMALL, *, xino: Xino = "on", lower_fs: LowerFs = "tmpfs"
) -> LayerStack:
    """A mounted union; its layers. Skips the test if the kernel lacks the wanted xino."""
    refusal = accepts(("xino", xino))
    if refusal:
        pytest.skip(f"this kernel refuses xino={xino}: {refusal}")
    made = build_layers(stack, [tree], Configuration(lower_fs=lower_fs))
    stack.enter_context(Overlay(made, effective(Configuration(xino=xino)).options).mounted())
    return made


def rich(root: Path) -> None:
    """Objects of all kinds with all that a careless copy-up could lose."""
    write(
        Directory(
            {
                "d": Directory(
                    {
                        "suid": File(b"#!", 0o4755, 5, 6),
                        "sgid": File(b"x", 0o2711),
                        "none": File(b"y", 0o000),
                    }
                ),
                "sticky": Directory({}, 0o1777, 7, 8),
                "link": Symlink("d/suid", 3, 4),
                "first": File(b"linked"),
                "capable": File(b"z", 0o755),
            }
        ),
        root,
    )
    os.link(root / "first", root / "d/second")
    os.mknod(root / "fifo", stat.S_IFIFO | 0o604)
    os.mknod(root / "device", stat.S_IFCHR | 0o4640, os.makedev(1, 3))
    capability = struct.pack("<IIIII", 0x02000001, 1 << 12, 0, 0, 0)
    os.setxattr(root / "capable", "security.capability", capability)
    os.setxattr(root / "d", "trusted.test", b"value")
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(10**18 + 1, 10**18 + 2), follow_symlinks=False)


Seen = tuple[int, int, int, int, int, int, bytes, dict[str, bytes]]


def visible(root: Path) -> dict[str, Seen]:
    """What a user sees of each object, but inode numbers, directory link counts and ctime (D7)."""
    found: dict[str, Seen] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else content
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        names = os.listxattr(path, follow_symlinks=False)
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        owner = status.st_uid, status.st_gid
        found[str(path.relative_to(root))] = (
            status.st_mode,
            *owner,
            links,
            status.st_rdev,
            status.st_mtime_ns,
            content,
            xattrs,
        )
    return found


def walk_all(root: Path) -> int:
    """Stat everything and look up an absent name in each directory; the number of objects."""
    count = 0
    for path in [root, *root.rglob("*")]:
        count += 1
        if not path.is_symlink() and path.is_dir():
            assert not (path / "absent").exists()
        elif not path.is_symlink():
            path.read_bytes()
    return count


@needs_mounts
@isolated
def test_opaque_state_reads_marks_and_counts_objects(tmp_path: Path) -> None:
    with ExitStack() as stack:
        tmpfs(stack, tmp_path, "upper_layer")
        write(
            Directory(
                {
                    "f": File(b"pure"),
                    "merged": Directory(
                        {
                            "done": Directory(
                                {
                                    "made": Directory(),
                                    "moved": Directory({"in": Directory()}),
                                    "f": File(),
                                }
                            ),
                            "xwhiteouts": Directory(),
                        }
                    ),
                }
            ),
            tmp_path,
        )
        os.mknod(tmp_path / "merged/whiteout", stat.S_IFCHR, 0)
        os.mknod(tmp_path / "merged/null", stat.S_IFCHR, os.makedev(1, 3))
        os.setxattr(tmp_path / "merged/done", OPAQUE, b"y")
        os.setxattr(tmp_path / "merged/xwhiteouts", OPAQUE, b"x")
        os.setxattr(tmp_path / "merged/done/moved", "trusted.overlay.redirect", b"/old")
        state = opaque_state(tmp_path)
        assert state.opaque == {"merged/done"}
        moved = {"merged/done/moved", "merged/done/moved/in"}
        assert state.merged == {".", "merged", "merged/xwhiteouts"} | moved
        assert state.pure == {"merged/done/made"}
        assert state.objects == 8
        assert state.directories == 6


def test_passes_counts_up_to_the_last_change() -> None:
    def passes(*counts: int) -> int:
        return Migration("x", counts, counts[-1], 9, 0, 0).passes

    assert [passes(0, 0), passes(9), passes(1, 3, 9, 9), passes(1, 1, 2, 2), passes(5, 5)] == [0, 1, 3, 3, 1]


def test_what_chown_complains_about_is_a_leftover() -> None:
    lines = [
        "chown: changing ownership of '/union/a b/it's': Operation not permitted",
        "/usr/bin/chown: cannot access '/union/a/x': Input/output error",
        "something else",
    ]
    assert migrate._complaints(lines, Path("/union")) == [
        Leftover("a b/it's", "not copied up: Operation not permitted"),
        Leftover("a/x", "not copied up: Input/output error"),
        Leftover(".", "something else"),
    ]


@needs_overlay
@isolated
def test_dfs_copies_everything_and_changes_nothing_that_can_be_seen() -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [Directory()])
        syscalls.mount("none", made.lower.root, None, syscalls.MS_REMOUNT)
        rich(made.lower.root)
        before = visible(made.lower.root)
        assert before["capable"][-1], "the capability was not set"
        with Overlay(made, effective(Configuration(xino="on")).options).mounted():
            migration = migrate.dfs(made.mountpoint, made.upperdir)
            after = visible(made.mountpoint)
        assert migration.in_upper == migration.objects == len(before)
        assert after.pop("f")
        for name, seen in before.items():
            if name in ("first", "d/second"):  # without index=on, copy-up breaks hard links
                assert after[name][:3] + after[name][4:] == seen[:3] + seen[4:]
            else:
                assert after[name] == seen, name


@needs_overlay
@isolated
def test_dfs_copies_the_data_too_when_metadata_would_do() -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [SMALL], Configuration(lower_fs="tmpfs"))
        options = [("metacopy", "on"), ("redirect_dir", "on")]
        with Overlay(made, options).mounted():
            migrate.dfs(made.mountpoint, made.upperdir)
        assert (made.upperdir / "top/foo100").read_bytes() == b":xxx:yyy:zzz"
        assert "trusted.overlay.metacopy" not in os.listxattr(made.upperdir / "top/foo100")


@needs_overlay
@isolated
def test_a_running_program_is_copied_up() -> None:
    sleep = shutil.which("sleep")
    assert sleep
    with ExitStack() as stack:
        tree = Directory({"program": File(Path(sleep).read_bytes(), 0o755)})
        made = union_of(stack, tree)
        running = subprocess.Popen([made.mountpoint / "program", "600"])
        try:
            assert migrate.dfs(made.mountpoint, made.upperdir).in_upper == 1
        finally:
            running.kill()
            running.wait()


@needs_overlay
@pytest.mark.parametrize("way", ["dfs", "mail"])
@isolated
def test_what_cannot_be_copied_up_is_named(way: str) -> None:
    with ExitStack() as stack:
        made = build_layers(stack, [SMALL], Configuration(lower_fs="tmpfs"))
        syscalls.mount("none", made.lower.root, None, syscalls.MS_REMOUNT)
        make_immutable(made.lower.root / "top/dir101/pop/b")
        stack.enter_context(Overlay(made, effective(Configuration(xino="on")).options).mounted())
        migration = getattr(migrate, way)(made.mountpoint, made.upperdir)
        assert Leftover("top/dir101/pop/b", "not copied up: Operation not permitted") in migration.leftovers
        assert (migration.in_upper, migration.objects) == (SMALL_OBJECTS - 1, SMALL_OBJECTS)
        assert "left over" in migration.describe()


def make_immutable(path: Path) -> None:
    set_flags, immutable = 0x40086602, 0x10  # FS_IOC_SETFLAGS
    with path.open() as file:
        try:
            fcntl.ioctl(file, set_flags, struct.pack("l", immutable))
        except OSError as error:
            pytest.skip(f"no immutable files on tmpfs here: {error.strerror}")


@needs_overlay
@isolated
def test_controls_leave_out_exactly_what_they_say() -> None:
    with ExitStack() as stack:
        made = union_of(stack)
        left = frozenset({"top/dir101/pop/b", "top/empty100"})
        migration = migrate.dfs(made.mountpoint, made.upperdir, skip_copy=left)
        in_upper = {str(path.relative_to(made.upperdir)) for path in made.upperdir.rglob("*")} - {"f"}
        assert {path for path, _ in walk(SMALL)} - in_upper == left
        assert left <= {leftover.path for leftover in migration.leftovers}


@needs_overlay
@isolated
def test_leaving_out_what_is_not_there_is_an_error() -> None:
    with ExitStack() as stack:
        made = union_of(stack)
        with pytest.raises(SetupError, match="not in the union: top/nowhere"):
            migrate.dfs(made.mountpoint, made.upperdir, skip_listing=frozenset({"top/nowhere"}))


@needs_overlay
@isolated
def test_with_xino_on_nothing_turns_opaque() -> None:
    with ExitStack() as stack:
        made = union_of(stack)
        for way in (migrate.mail, migrate.dfs):
            migration = way(made.mountpoint, made.upperdir)
            assert (migration.opaque, migration.passes) == (0, 0)
            assert migration.directories == SMALL_DIRECTORIES == len(migration.leftovers)
            assert migration.in_upper == migration.objects == SMALL_OBJECTS
        owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in made.mountpoint.rglob("*")}
        assert owners == {(0, 0)}, "the mail's chown gives everything to root"


@needs_xfs
@isolated
def test_nofollow_dfs_needs_one_pass_and_survives_the_fence() -> None:
    with ExitStack() as stack:
        made = union_of(stack, reference(CLASSICAL), xino="nofollow", lower_fs="xfs")
        migration = migrate.dfs(made.mountpoint, made.upperdir)
        assert (migration.passes, migration.opaque_after) == (1, (122,))
        assert migration.opaque == migration.directories == 122
        assert migration.in_upper == migration.objects == 391
        assert migration.leftovers == ()
        shutdown = Shutdown(made.lower)
        shutdown.fence()
        shutdown.self_test(cold=True)
        assert walk_all(made.mountpoint) == 391 + 2  # the root and the sample file


@needs_xfs
@isolated
def test_nofollow_mail_needs_a_pass_per_level_and_survives_the_fence() -> None:
    with ExitStack() as stack:
        made = union_of(stack, reference(CLASSICAL), xino="nofollow", lower_fs="xfs")
        migration = migrate.mail(made.mountpoint, made.upperdir)
        assert migration.opaque == migration.directories == 122
        assert migration.leftovers == ()
        assert 1 <= migration.passes <= 5
        assert list(migration.opaque_after) == sorted(migration.opaque_after)
        shutdown = Shutdown(made.lower)
        shutdown.fence()
        shutdown.self_test()
        assert walk_all(made.mountpoint) == 391 + 2


@needs_overlay
@isolated
def test_nofollow_one_file_left_keeps_its_ancestors_merged_and_no_other() -> None:
    with ExitStack() as stack:
        made = union_of(stack, xino="nofollow")
        migration = migrate.dfs(made.mountpoint, made.upperdir, skip_copy=frozenset({"top/dir101/pop/b"}))
        assert opaque_state(made.upperdir).merged == {".", "top", "top/dir101", "top/dir101/pop"}
        assert {leftover.path for leftover in migration.leftovers} == {
            "top/dir101/pop/b",
            ".",
            "top",
            "top/dir101",
            "top/dir101/pop",
        }


@needs_overlay
@pytest.mark.parametrize("unlisted", ["top/dir101/pop", "top/empty101"])
@isolated
def test_nofollow_one_directory_left_unlisted_stays_merged(unlisted: str) -> None:
    with ExitStack() as stack:
        made = union_of(stack, xino="nofollow")
        migration = migrate.dfs(made.mountpoint, made.upperdir, skip_listing=frozenset({unlisted}))
        ancestors = {str(path) for path in Path(unlisted).parents}
        assert opaque_state(made.upperdir).merged == {unlisted} | ancestors
        assert migration.in_upper == migration.objects
        # It was only not listed: one more migration finishes the work.
        assert migrate.dfs(made.mountpoint, made.upperdir).leftovers == ()


@needs_overlay
@isolated
def test_nofollow_what_the_first_pass_missed_is_listed_deepest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        made = union_of(stack, xino="nofollow")

        def careless(walk_: migrate._Migrator) -> None:
            """Copy everything up, but list only one directory afterwards."""
            for path, _ in walk(SMALL):
                os.chown(made.mountpoint / path, -1, -1, follow_symlinks=False)
            walk_.enumerate("top/empty100")

        monkeypatch.setattr(migrate._Migrator, "run", careless)
        migration = migrate.dfs(made.mountpoint, made.upperdir)
        assert migration.opaque_after == (1, SMALL_DIRECTORIES)
        assert migration.passes == 2


@needs_overlay
@isolated
def test_nofollow_mail_lists_on_until_a_deeper_tree_is_opaque() -> None:
    tree = Directory({"file": File(b"x")})
    for name in "gfedcba":
        tree = Directory({name: tree})
    with ExitStack() as stack:
        made = union_of(stack, tree, xino="nofollow")
        migration = migrate.mail(made.mountpoint, made.upperdir)
        assert migration.opaque == migration.directories == 8
        assert migration.passes == len(migration.opaque_after) <= 8, "a pass per level at most, none in vain"
