# SPDX-License-Identifier: GPL-2.0-only
"""Names, attributes and listings: the model against a plain filesystem, and each check shown to complain."""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from datasets import tree
from datasets.acl import ACCESS, DEFAULT, acl
from report.events import Event
from tests.harness.isolated import isolated, needs_overlay
from tests.harness.test_judge import S, staged
from tests.union.beyond import needs
from union import namecalls
from union.inodes import Inode
from union.model import Model
from union.namecalls import Cookie
from union.names import Name
from union.operations import (
    CREAT,
    SMALL,
    Held,
    Make,
    OpenFile,
    Operation,
    R,
    W,
    chattr,
    chmod,
    chown,
    exchange,
    getxattr,
    go_on_listing,
    lchown,
    link,
    list_again,
    lists,
    listxattr,
    lsattr,
    make_file,
    marked,
    mknod,
    open_file,
    removexattr,
    rename_noreplace,
    rmdir,
    seeks,
    set_times,
    setxattr,
    shows,
    spelled,
    start_listing,
    symlink,
    truncate,
    unlink,
)
from union.plan import Share, Turn
from union.scenario import Group, Need, Scenario
from union.workspace import scratch_directory

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
SOME_ACL = acl("u::rw-,u:1:r--,g::r--,m::r--,o::r--")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that uid 1 can reach, unlike pytest's own; the umask is the one that the model takes for granted."""
    before = os.umask(0o022)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
    os.umask(before)


# System calls -------------------------------------------------------------------------------------


@needs_root
def test_statx_says_what_stat_says(tmp_path: Path) -> None:
    os.mknod(tmp_path / "node", stat.S_IFBLK | 0o640, os.makedev(259, 262143))
    os.symlink("node", tmp_path / "link")
    for name, follow in (("node", True), ("link", False), ("link", True)):
        seen = namecalls.statx(str(tmp_path / name), follow=follow)
        known = os.stat(tmp_path / name, follow_symlinks=follow)
        assert (seen.mode, seen.nlink, seen.uid, seen.size) == (known.st_mode, 1, 0, known.st_size)
        assert os.makedev(*seen.rdev) == known.st_rdev
    with pytest.raises(FileNotFoundError):
        namecalls.statx(str(tmp_path / "missing"), follow=False)


def test_one_time_can_be_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    namecalls.set_times(str(path), 5 * 10**17 + 1, 10**18 + 999_999_999, follow=True)
    namecalls.set_times(str(path), None, 3, follow=True)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5 * 10**17 + 1, 3)


def test_positions_of_entries_lead_behind_them(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"n{number}").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    entries: list[Cookie] = []
    while some := namecalls.getdents(fd, SMALL):
        assert len(some) < 30
        entries += some
    os.lseek(fd, entries[10].after, os.SEEK_SET)
    assert namecalls.getdents(fd, 4096)[0] == entries[11]
    os.close(fd)


# The model against a plain filesystem -------------------------------------------------------------

SMALL_TREE = tree.Directory(
    {
        "file": tree.File(b"content", 0o666),
        "other": tree.File(b"other", 0o600, 1, 1),
        "dir": tree.Directory({"inner": tree.File(b"inside")}, 0o777),
        "sticky": tree.Directory({"theirs": tree.File(b"", 0o666)}, 0o1777),
        "link": tree.Symlink("file"),
        "fifo": tree.Special(stat.S_IFIFO, 0o666),
    }
)
PATHS = [
    "file", "other", "dir", "dir/inner", "dir/new", "sticky", "sticky/theirs", "sticky/new", "link", "fifo", "absent",
    "file/x", "new",
]  # fmt: skip
MODES = [0o600, 0o644, 0o666, 0o755, 0o777, 0o1777, 0o4755]
KEYS = ["user.a", "user.b", "trusted.a", "security.a", "strange.a"]
ACLS = [
    SOME_ACL,
    acl("u::rw-,u:1:---,g::rw-,m::rw-,o::rw-"),
    acl("u::rw-,g::r--,o::r--"),
    acl("u::rw-,u:1:r--,g::r--,o::r--"),  # not valid
]
TYPES = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]


def random_operation(draw: random.Random) -> Operation:
    """Any operation on names that collide, by root or by uid 1."""
    path, to, key = Name(draw.choice(PATHS)), Name(draw.choice(PATHS)), draw.choice(KEYS)
    who, follow = draw.random() < 0.4, draw.random() < 0.5
    value, mode = draw.choice([b"", b"1", b"22"]), draw.choice(MODES)

    def make() -> Operation:
        rdev = os.makedev(1, 3)
        umask = draw.choice([0, 0o022, 0o077])
        kind = draw.choice(TYPES)
        return Make(path=path, type=kind, mode=mode, rdev=rdev, target="file", umask=umask, unprivileged=who)

    kinds: list[Callable[[], Operation]] = [
        make, make, lambda: chmod(path, mode, unprivileged=who),
        lambda: chown(path, draw.choice([-1, 0, 1]), draw.choice([-1, 1]), unprivileged=who),
        lambda: lchown(path, draw.choice([-1, 0, 1]), -1, unprivileged=who),
        lambda: set_times(path, draw.choice([None, 10**18]), 10**18, follow=follow, unprivileged=who),
        lambda: setxattr(path, key, value, how=draw.choice([0, 1, 2]), follow=follow, unprivileged=who),
        lambda: setxattr(path, key, value, how=draw.choice([0, 1, 2]), follow=follow, unprivileged=who),
        lambda: removexattr(path, key, follow=follow, unprivileged=who),
        lambda: getxattr(path, key, follow=follow, unprivileged=who),
        lambda: setxattr(path, draw.choice([ACCESS, DEFAULT]), draw.choice(ACLS), follow=follow, unprivileged=who),
        lambda: getxattr(path, ACCESS, follow=follow, unprivileged=who),
        lambda: exchange(path, to), lambda: rename_noreplace(path, to), lambda: lists(path), lambda: unlink(path),
        lambda: OpenFile(path=path, flags=draw.choice([R, W, W | CREAT]), mode=mode, unprivileged=who),
        lambda: rmdir(path), lambda: truncate(path, 3, unprivileged=who), lambda: link(path, to),
    ]  # fmt: skip
    return draw.choice(kinds)()


def blocks(model: Model, operation: Operation) -> bool:
    """Whether it opens a fifo, which waits for the other end, or a device, or what only overlays refuse."""
    place = model.find(str(operation.path))
    kind = place.inode.TYPE if place and place.inode else 0
    return isinstance(operation, OpenFile) and kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def seen_in(root: Path, name: str) -> tuple[object, ...]:
    path = root / name
    status = path.lstat()
    keys = (key for key in os.listxattr(path, follow_symlinks=False) if key not in ("security.selinux",))
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
    return oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, xattrs


def known_of(inode: Inode) -> tuple[object, ...]:
    mode = inode.TYPE | inode.mode
    return oct(mode), inode.uid, inode.gid, getattr(inode, "rdev", 0), dict(inode.xattrs)


@pytest.mark.parametrize("seed", range(40))
@needs_root
def test_random_operations_as_on_a_plain_filesystem(seed: int, open_directory: Path) -> None:
    draw = random.Random(seed)
    tree.write(SMALL_TREE, open_directory)
    if needs.ACLS.probe(open_directory, open_directory) or needs.XATTRS.probe(open_directory, open_directory):
        pytest.skip("this filesystem has no ACLs or xattrs")
    model = Model(SMALL_TREE)
    for _ in range(80):
        operation = random_operation(draw)
        if blocks(model, operation):
            continue
        predicted, given = model.apply(operation), operation.perform(str(open_directory), Held())
        assert predicted == given, operation
    found = {str(path.relative_to(open_directory)) for path in open_directory.rglob("*")}
    known = {path: inode for path, inode in model.walk() if path}
    assert found == known.keys()
    for path, inode in known.items():
        assert seen_in(open_directory, path) == known_of(inode), path


def inode_at(model: Model, path: str) -> Inode:
    place = model.find(path)
    assert place is not None and place.inode is not None
    return place.inode


def test_what_the_upper_filesystem_refuses_was_copied_up_before() -> None:
    model = Model(tree.Directory({"f": tree.File(xattrs={"user.a": b"1"}), "g": tree.File(), "h": tree.File()}))
    assert model.apply(setxattr(Name("f"), "user.a", b"2", how=os.XATTR_CREATE)).errno == errno.EEXIST
    assert model.apply(removexattr(Name("g"), "user.a")).errno == errno.ENODATA
    assert model.apply(setxattr(Name("h"), "trusted.a", b"", unprivileged=True)).errno == errno.EPERM
    assert [inode_at(model, name).in_upper for name in "fgh"] == [True, False, False]


def test_a_migration_by_chown_takes_what_chown_takes() -> None:
    capability = {"security.capability": struct.pack("<5I", 0x02000001, 1, 0, 0, 0), "user.a": b"1"}
    objects: dict[str, tree.Node] = {
        "program": tree.File(b"", 0o6755, 3, 4, capability),
        "locked": tree.File(b"", 0o2644, 3, 4),
        "dir": tree.Directory({}, 0o7755, 3, 4),
    }
    model = Model(tree.Directory(objects))
    model.copy_up_all(None)
    assert (inode_at(model, "program").mode, dict(inode_at(model, "program").xattrs)) == (0o6755, capability)
    model.copy_up_all((0, 0))
    assert {name: inode_at(model, name).mode for name in objects} == {"program": 0o755, "locked": 0o2644, "dir": 0o7755}
    assert dict(inode_at(model, "program").xattrs) == {"user.a": b"1"}
    assert {(inode_at(model, name).uid, inode_at(model, name).gid) for name in objects} == {(0, 0)}


def test_given_times_hold_until_the_content_changes() -> None:
    model = Model(tree.Directory({"f": tree.File(mtime=7)}))
    f = Name("f")
    assert inode_at(model, f).times() is not None
    model.apply(set_times(f, 5, None))
    known = inode_at(model, f).times()
    assert known is not None and (known.atime, known.mtime) == (5, 7)
    model.apply(chmod(f, 0o600))
    assert inode_at(model, f).times() == known
    model.apply(open_file(f, W, writes=b"x"))
    assert inode_at(model, f).times() is None


# The judge ----------------------------------------------------------------------------------------

OLD = 10**18


WRONG: dict[str, tuple[Sequence[Operation], dict[str, dict[str, bytes]], str]] = {
    "value": ([setxattr(S.reg, "user.a", b"1")], {S.reg: {"user.a": b"2"}}, "xattr user.a is 0x32 instead of 0x31"),
    "missing": ([setxattr(S.reg, "user.a", b"1")], {S.reg: {}}, "xattr user.a is missing"),
    "unasked": ([], {S.reg: {"user.a": b"1"}}, "xattr user.a although none was set"),
    "removed": (
        [setxattr(S.reg, "user.a", b"1"), removexattr(S.reg, "user.a")],
        {S.reg: {"user.a": b"1"}},
        "xattr user.a although none was set",
    ),
    "ACL": ([setxattr(S.reg, ACCESS, SOME_ACL)], {S.reg: {}}, f"xattr {ACCESS} is missing"),
    "ACL of a directory": (
        [setxattr(S.dir, DEFAULT, SOME_ACL)],
        {S.dir: {DEFAULT: acl("u::rw-,g::r--,o::r--")}},
        f"xattr {DEFAULT} is 0x",
    ),
    "capability": ([], {S.reg: {"security.capability": b"1"}}, "xattr security.capability although none was set"),
    "symlink's": ([setxattr(S.sym, "trusted.a", b"1", follow=False)], {S.sym: {}}, "xattr trusted.a is missing"),
    "private": ([], {S.reg: {"trusted.overlay.origin": b"1"}}, "private xattr trusted.overlay.origin is visible"),
}


@pytest.mark.parametrize("what", WRONG)
def test_complains_of_a_wrong_xattr(what: str) -> None:
    operations, shown, complaint = WRONG[what]
    judge, witness = staged(*operations)
    for path, xattrs in shown.items():
        witness.staged[path] = replace(witness.true(path), xattrs=xattrs)
        assert any(complaint in line for line in judge.names([path])), judge.names([path])


def test_security_modules_may_set_theirs_unasked() -> None:
    judge, witness = staged()
    witness.staged[S.reg] = replace(witness.true(S.reg), xattrs={"security.selinux": b"context"})
    assert judge.names([S.reg]) == []


def test_complains_of_a_wrong_device_number() -> None:
    judge, witness = staged(mknod(S.none, stat.S_IFCHR, rdev=os.makedev(1, 3)))
    assert judge.names([S.none]) == []
    witness.staged[S.none] = witness.true(S.none, rdev=os.makedev(1, 5))
    assert judge.names([S.none]) == [f"{S.none}: device number 0x105 instead of 0x103"]


def test_complains_of_times_that_were_given_otherwise() -> None:
    for atime, mtime in ((OLD, OLD), (None, OLD), (OLD, None)):
        judge, witness = staged(set_times(S.reg, atime, mtime))
        assert judge.names([S.reg]) == []
    judge, witness = staged(set_times(S.reg, OLD, OLD))
    witness.staged[S.reg] = witness.true(S.reg, mtime=OLD + 1)
    assert any(f"mtime {OLD + 1} instead of {OLD}" in line for line in judge.names([S.reg]))
    judge, witness = staged(set_times(S.reg, OLD, OLD))
    witness.staged[S.reg] = witness.true(S.reg, atime=OLD - 1)
    assert any(f"atime {OLD - 1} instead of {OLD}" in line for line in judge.names([S.reg]))


def test_complains_of_wrong_flags() -> None:
    judge, witness = staged(chattr(S.reg, tree.IMMUTABLE))
    assert judge.names([S.reg]) == []
    witness.staged_flags[S.reg] = 0
    assert judge.names([S.reg]) == [f"{S.reg}: flags 0x0 instead of 0x10"]


def test_complains_of_links_of_what_is_no_file() -> None:
    judge, witness = staged(mknod(S.none, stat.S_IFIFO), link(S.none, S.nodir))
    assert judge.names([S.none, S.nodir]) == []
    witness.staged[S.none] = witness.true(S.none, nlink=1)
    assert judge.names([S.none]) == [f"{S.none}: 1 links instead of 2"]


# Operations ---------------------------------------------------------------------------------------

N = Name("top/foo100")
LINES: list[tuple[Operation, str]] = [
    (chown(N, 3, -1), "- chown /mnt/top/foo100 3:-1"),
    (lchown(N, 3, 4, errno.EPERM, unprivileged=True), "- chown /mnt/top/foo100 3:4 -h -B -E EPERM"),
    (set_times(N, None, 5, follow=False), "- set-times /mnt/top/foo100 None 5 -h"),
    (setxattr(N, "user.a", b"1", how=os.XATTR_CREATE), "- setxattr /mnt/top/foo100 user.a 0x31 --create"),
    (removexattr(N, "user.a", errno.ENODATA), "- removexattr /mnt/top/foo100 user.a -E ENODATA"),
    (getxattr(N, "user.a", b"1"), "- getxattr /mnt/top/foo100 user.a -R 0x31"),
    (listxattr(N, "user.b", "user.a"), "- listxattr /mnt/top/foo100 -R 'user.a user.b'"),
    (chattr(N, 0x10), "- chattr /mnt/top/foo100 0x10"),
    (lsattr(N, 0x10), "- lsattr /mnt/top/foo100 -R 0x10"),
    (shows(N, "f 0644 0:0 x1 5"), "- statx /mnt/top/foo100 -R 'f 0644 0:0 x1 5'"),
    (make_file(N, 0o600), "- make /mnt/top/foo100 file 0600 umask=022"),
    (mknod(N, stat.S_IFCHR, 0o644, os.makedev(1, 3)), "- make /mnt/top/foo100 char 1:3 0644 umask=022"),
    (symlink("a b", N), "- make /mnt/top/foo100 symlink 'a b'"),
    (exchange(N, N + "x", errno.ENOENT), "- renameat2 /mnt/top/foo100 /mnt/top/foo100x EXCHANGE -E ENOENT"),
    (lists(N, "a", size=SMALL), "- list /mnt/top/foo100 buffer=300"),
    (unlink(Name(os.fsdecode(b"top/\xff'\n"))), "./run --unlink $'/mnt/top/\\xff\\x27\\n'"),
]


@pytest.mark.parametrize(("operation", "line"), LINES, ids=[line for _, line in LINES])
def test_reproducer_lines(operation: Operation, line: str) -> None:
    assert operation.reproducer("/mnt") == line


@pytest.mark.parametrize("changes", ["none", "lost", "twice", "type", "order"])
def test_a_directory_that_gives_other_entries_after_a_seek_is_noticed(
    changes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = namecalls.getdents
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).touch()

    def getdents(fd: int, size: int) -> list[Cookie]:
        entries = true(fd, size)
        if size == SMALL or not entries:  # the first listing is the true one
            return entries
        broken = {
            "none": entries,
            "lost": entries[:-1],
            "twice": [*entries, entries[-1]],
            "type": [*entries[:-1], entries[-1]._replace(type=4)],
            "order": entries[::-1],
        }
        return broken[changes]

    monkeypatch.setattr(namecalls, "getdents", getdents)
    operation = seeks(Name(""), "a", "b", "c", "d")
    given = operation.perform(str(tmp_path), Held())
    assert (given == operation.expected()) is (changes == "none"), given


def test_names_that_came_and_went_may_be_listed_once_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").touch()
    held = Held()
    assert start_listing(Name(""), "d").perform(str(tmp_path), held).errno == 0
    goes_on = go_on_listing(Name(""), "d", "stays", unsure={"went"})
    assert goes_on.perform(str(tmp_path), held) == goes_on.expected()
    listing = held.get("d")
    listing.entries.append(Cookie("went", 8, 0))
    assert goes_on.perform(str(tmp_path), held) == goes_on.expected()
    listing.entries.append(Cookie("went", 8, 0))
    assert goes_on.perform(str(tmp_path), held) != goes_on.expected()
    again = list_again(Name(""), "d", "stays")
    assert again.perform(str(tmp_path), held) == again.expected()
    held.release()


def test_entries_are_marked_by_their_type() -> None:
    assert spelled([marked("d", 4), marked("f", 8), marked("l", 10)]) == "'../', './', 'd/', 'f', 'l@'"
    assert marked("x", 0) == "x (d_type 0)"


# Needs --------------------------------------------------------------------------------------------


@isolated
def on_tmpfs() -> None:
    with ExitStack() as stack:
        root = scratch_directory(stack)
        for name in ("lower", "upper"):
            (root / name).mkdir()
        for need in (needs.XATTRS, needs.ACLS, needs.FLAGS, needs.LONG_NAMES, needs.LINKED_SYMLINKS, needs.XWHITEOUTS):
            assert need.probe(root / "lower", root / "upper") is None, need.words
        assert list((root / "lower").iterdir()) == list((root / "upper").iterdir()) == []


@needs_overlay
def test_the_probes_find_what_tmpfs_has_and_leave_nothing_behind() -> None:
    on_tmpfs()


def test_a_need_that_is_not_met_names_the_layer() -> None:
    nowhere = Path("/proc/sys")  # nothing can be made there
    with pytest.raises(OSError, match="probe"):
        needs.XATTRS.probe(nowhere, nowhere)


def test_what_a_packed_lower_lacks_is_skipped() -> None:
    skipped: list[Event] = []

    def tell(event: Event) -> None:
        skipped.append(event)

    need = Need("something", lambda _lower, _upper: None, frozenset({"squashfs"}))
    group = Group("g", "Do it.", (Scenario("one", lambda n: (unlink(n.reg),)),), needs=(need,))
    other = Group("h", "Do it.", (Scenario("one", lambda n: (unlink(n.reg),)),))
    share = Share((Turn("g", group, (1,)), Turn("h", other, (1,))))
    assert share.able(Path(), [Path()], tell, "xfs") == share and not skipped
    left = share.able(Path(), [Path()], tell, "squashfs")
    assert [turn.top for turn in left.turns] == ["h"] and len(skipped) == 1
