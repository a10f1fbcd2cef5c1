# SPDX-License-Identifier: GPL-2.0-only
"""The judge: silent on a union that is as it must be, and every check of it shown to complain."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from datasets.reference import reference
from datasets.tree import Directory, Symlink
from union.inodes import DirectoryInode, FileInode, Inode, LinkInode
from union.judge import DeviceRule, Judge
from union.model import Model
from union.names import Names
from union.operations import CREAT, Operation, W, link, mkdir, open_file, rename, rmtree, touch, unlink
from union.syscalls import Dirent
from union.witness import Observation, UpperState, Witness

UNION, LOWER, UPPER = 0x30, 0x31, 0x32  # st_dev numbers
S = Names("top", 100)


class StagedWitness(Witness):
    """Shows what the model says, except where a test stages something else."""

    def __init__(self, model: Model) -> None:
        super().__init__("/union", "/upper")
        self.model = model
        self.numbers: dict[Inode, int] = {}
        self.times: dict[Inode, tuple[int, int]] = {}
        self.staged: dict[str, Observation] = {}
        self.staged_upper: dict[str, UpperState] = {}
        self.staged_flags: dict[str, int] = {}
        self.staged_listing: dict[str, list[Dirent]] = {}

    def number(self, inode: Inode) -> int:
        return self.numbers.setdefault(inode, 1000 + len(self.numbers))

    def mtime(self, inode: Inode) -> int:
        """Moves when, and only when, the model changed the object."""
        stated = inode.times()
        version, mtime = self.times.get(inode, (inode.version, 5_000))
        if stated and stated.mtime is not None:
            return stated.mtime
        if version != inode.version:
            mtime += 10
        self.times[inode] = (inode.version, mtime)
        return mtime

    def atime(self, inode: Inode, otherwise: int) -> int:
        stated = inode.times()
        return otherwise if stated is None or stated.atime is None else stated.atime

    def observe(self, path: str, *, glance: bool = False) -> Observation:
        if path in self.staged:
            return self.staged[path]
        place = self.model.find(path)
        if place is None or place.inode is None:
            return Observation(errno.ENOENT)
        return self.true(path)

    def true(self, path: str, **changes: int) -> Observation:
        place = self.model.find(path)
        assert place is not None and place.inode is not None
        inode = place.inode
        mtime = self.mtime(inode)
        fields = {
            "mode": inode.TYPE | inode.mode, "ino": self.number(inode), "dev": UNION, "nlink": inode.nlink,
            "uid": inode.uid, "gid": inode.gid, "size": len(getattr(inode, "content", b"")),
            "mtime": mtime, "atime": self.atime(inode, mtime), **changes,
        }  # fmt: skip
        order = ("mode", "ino", "dev", "nlink", "uid", "gid", "size")
        seconds = [0, 0, 0]
        exact = {
            "st_mtime_ns": fields["mtime"], "st_atime_ns": fields["atime"], "st_ctime_ns": 0,
            "st_rdev": fields.get("rdev", getattr(inode, "rdev", 0)),
        }  # fmt: skip
        status = os.stat_result([*(fields[name] for name in order), *seconds], exact)
        content = inode.content if isinstance(inode, FileInode) else None
        return Observation(0, status, content, inode.target if isinstance(inode, LinkInode) else None, inode.xattrs)

    def flags(self, path: str) -> int:
        place = self.model.find(path)
        assert place is not None and place.inode is not None
        return self.staged_flags.get(path, place.inode.flags)

    def upper(self, path: str) -> UpperState:
        if path in self.staged_upper:
            return self.staged_upper[path]
        place = self.model.find(path)
        if place is not None and place.inode is not None and place.inode.in_upper:
            opaque = isinstance(place.inode, DirectoryInode) and place.inode.lower is None
            return UpperState(place.inode.TYPE | 0o755, opaque=opaque)
        lower = place.parent.lower if place is not None and place.inode is None else None
        hidden = lower is not None and place is not None and place.name in lower.entries
        return UpperState(stat.S_IFCHR, whiteout=True) if hidden else UpperState()

    def listing(self, path: str) -> list[Dirent]:
        if path in self.staged_listing:
            return self.staged_listing[path]
        return self.true_listing(path)

    def true_listing(self, path: str) -> list[Dirent]:
        place = self.model.find(path)
        assert place is not None and isinstance(place.inode, DirectoryInode)
        entries: dict[str, Inode] = {".": place.inode, "..": place.parent, **place.inode.entries}
        return [Dirent(name, self.number(inode), inode.TYPE >> 12) for name, inode in entries.items()]


def staged(*operations: Operation, same: bool = True) -> tuple[Judge, StagedWitness]:
    model = Model(reference({"top": 2}))
    witness = StagedWitness(model)
    judge = Judge(model, witness, DeviceRule(same, UNION, frozenset({LOWER, UPPER})))
    if same:
        assert judge.tree("top") == []
    for operation in operations:
        assert model.apply(operation).errno == 0
    return judge, witness


def test_silent_on_what_must_be() -> None:
    judge, _ = staged(
        unlink(S.reg), rmtree(S.dir), mkdir(S.dir), rename(S.empty, S.nodir), open_file(S.none, W | CREAT, writes=b"x"),
        link(S.none, S.reg), touch(S.rootfile),
    )  # fmt: skip
    assert judge.tree("top") == []
    assert judge.names([S.reg, S.dir, S.empty, S.none, S.rootfile, S.dangling, "top/nowhere/x"]) == []


WRONG_OBJECTS: dict[str, tuple[dict[str, int], str]] = {
    "type": ({"mode": stat.S_IFIFO | 0o644}, "type"),
    "mode": ({"mode": stat.S_IFREG | 0o600}, "mode 0600 instead of 0644"),
    "owner": ({"uid": 7}, "owner 7:1 instead of 1:1"),
    "group": ({"gid": 7}, "owner 1:7 instead of 1:1"),
    "links": ({"nlink": 2}, "2 links instead of 1"),
    "size": ({"size": 3}, "size 3 instead of 12"),
    "device": ({"dev": LOWER}, "st_dev"),
    "number": ({"ino": 1}, "became"),
    "mtime": ({"mtime": 1}, "mtime moved"),
}


@pytest.mark.parametrize("what", WRONG_OBJECTS)
def test_complains_of_a_wrong_object(what: str) -> None:
    changes, complaint = WRONG_OBJECTS[what]
    judge, witness = staged()
    witness.staged[S.reg] = witness.true(S.reg, **changes)
    assert any(complaint in line for line in judge.names([S.reg])), judge.names([S.reg])


def test_complains_of_content_target_and_private_xattrs() -> None:
    judge, witness = staged()
    witness.staged[S.reg] = replace(witness.true(S.reg), content=b"other text.")
    witness.staged[S.isym] = replace(witness.true(S.isym), target="elsewhere")
    witness.staged[S.empty] = replace(witness.true(S.empty), xattrs={"user.mine": b"", "trusted.overlay.opaque": b"y"})
    for path, complaint in ((S.reg, "content"), (S.isym, "leads to elsewhere"), (S.empty, "private xattr trusted")):
        assert any(complaint in line for line in judge.names([path]))


def test_complains_of_errors_and_of_names_that_must_not_be() -> None:
    judge, witness = staged(unlink(S.reg))
    witness.staged[S.rootfile] = Observation(errno.EIO)
    assert judge.names([S.rootfile]) == [f"{S.rootfile}: EIO although it must exist"]
    witness.staged[S.reg] = Observation(errno.EIO)
    assert judge.names([S.reg]) == [f"{S.reg}: EIO although it is only absent"]
    witness.staged[S.none] = witness.true(S.rootfile)
    assert judge.names([S.none]) == [f"{S.none}: exists although it must not"]


def test_a_symlink_is_followed_to_its_target_each_time() -> None:
    judge, witness = staged()
    assert judge.names([S.isym]) == []
    witness.staged[S.reg] = Observation(errno.EIO)
    assert judge.names([S.isym]) == [f"{S.reg}: EIO although it must exist"]


def test_complains_of_the_times_of_a_change() -> None:
    judge, witness = staged(touch(S.reg))
    judge.begin()
    witness.staged[S.reg] = witness.true(S.reg, atime=1)
    assert any("not both set to now" in line for line in judge.names([S.reg]))
    judge, witness = staged(open_file(S.reg, W, writes=b"x"))
    witness.staged[S.reg] = witness.true(S.reg, mtime=1)
    assert any("mtime went back" in line for line in judge.names([S.reg]))


def test_numbers_may_change_only_when_told() -> None:
    judge, witness = staged()
    place = judge.model.find(S.reg)
    assert place is not None and place.inode is not None
    witness.numbers[place.inode] = 77
    assert any("became" in line for line in judge.names([S.reg]))


def test_with_nofollow_a_number_may_change_on_copy_up_and_only_then() -> None:
    judge, witness = staged()
    judge.renumbers = True
    place = judge.model.find(S.reg)
    assert place is not None and place.inode is not None
    witness.numbers[place.inode] = 77
    assert any("became" in line for line in judge.names([S.reg]))
    judge, witness = staged()
    judge.renumbers = True
    assert judge.model.apply(open_file(S.reg, W)).errno == 0
    place = judge.model.find(S.reg)
    assert place is not None and place.inode is not None
    witness.numbers[place.inode] = 77
    assert judge.names([S.reg]) == []
    witness.numbers[place.inode] = 78
    assert any("became" in line for line in judge.names([S.reg]))


def test_two_objects_must_not_share_a_number() -> None:
    model = Model(reference({"top": 1}))
    witness = StagedWitness(model)
    one, two = model.find(S.reg), model.find(S.rootfile)
    assert one and two and one.inode and two.inode
    witness.numbers |= {one.inode: 5, two.inode: 5}
    judge = Judge(model, witness, DeviceRule(True, UNION, frozenset({LOWER, UPPER})))
    assert any("shares inode" in line for line in judge.tree("top"))


UPPER_FAULTS: dict[str, tuple[str, UpperState, str]] = {
    "copied up": (S.rootfile, UpperState(stat.S_IFREG), "copied up although nothing asked"),
    "not copied up": (S.none, UpperState(), "not copied up"),
    "whiteout over a name": (S.none, UpperState(stat.S_IFCHR, whiteout=True), "yet the upper layer holds a whiteout"),
    "no whiteout": (S.reg, UpperState(), "no whiteout in the upper layer"),
    "left behind": (S.reg, UpperState(stat.S_IFREG), "absent in the union, yet"),
    "not opaque": (S.dir, UpperState(stat.S_IFDIR), "not opaque"),
}


@pytest.mark.parametrize(("path", "state", "complaint"), UPPER_FAULTS.values(), ids=UPPER_FAULTS.keys())
def test_complains_of_the_upper_layer(path: str, state: UpperState, complaint: str) -> None:
    judge, witness = staged(unlink(S.reg), rmtree(S.dir), mkdir(S.dir), open_file(S.none, W | CREAT))
    witness.staged_upper[path] = state
    assert any(complaint in line for line in judge.names([path])), judge.names([path])


LISTING_FAULTS: dict[str, tuple[Callable[[list[Dirent]], list[Dirent]], str]] = {
    "missing": (lambda entries: entries[:-1], "is not listed"),
    "twice": (lambda entries: [*entries, entries[-1]], "is listed twice"),
    "removed": (lambda entries: [*entries, Dirent("gone", 9, 8)], "a removed name"),
    "whiteout": (lambda entries: [*entries, Dirent("gone", 9, 2)], "a whiteout"),
    "type": (lambda entries: [*entries[:-1], entries[-1]._replace(type=1)], "d_type"),
    "number": (lambda entries: [*entries[:-1], entries[-1]._replace(ino=1)], "d_ino"),
    "dot": (lambda entries: [entries[0]._replace(ino=1), *entries[1:]], "/.: d_ino"),
}


@pytest.mark.parametrize("what", LISTING_FAULTS)
def test_complains_of_a_listing(what: str) -> None:
    change, complaint = LISTING_FAULTS[what]
    judge, witness = staged()
    assert judge.listing(S.dir) == []
    witness.staged_listing[S.dir] = change(witness.true_listing(S.dir))
    assert any(complaint in line for line in judge.listing(S.dir)), judge.listing(S.dir)


def test_devices_of_a_union_without_mapped_numbers() -> None:
    rule = DeviceRule(False, UNION, frozenset({LOWER, UPPER}))
    assert not list(rule.complaints("d", True, UNION)) and not list(rule.complaints("f", False, 0x99))
    for is_directory, device in ((True, 0x99), (False, UNION), (False, LOWER), (False, UPPER)):
        assert list(rule.complaints("x", is_directory, device))


@pytest.mark.parametrize(
    ("path", "error", "fine"),
    [("loop/x", errno.ELOOP, True), ("gone/x", errno.ELOOP, False), ("loop/x", errno.EIO, False),
     ("n" * 300, errno.ENAMETOOLONG, True), ("gone/x", errno.ENOENT, True)],
)  # fmt: skip
def test_a_name_that_is_in_no_directory_is_absent_for_the_reason_that_the_model_says(
    path: str, error: int, fine: bool
) -> None:
    model = Model(Directory({"loop": Symlink("loop")}))
    witness = StagedWitness(model)
    witness.staged[path] = Observation(error)
    assert (Judge(model, witness, DeviceRule(True, UNION, frozenset())).names([path]) == []) == fine
