# SPDX-License-Identifier: GPL-2.0-only
"""Remounting and rotating a real union: the model follows, and the judge notices when one of them goes alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.tree import Directory, File, HardLink, Symlink
from mount_union import Union, mount_union
from report.events import Checked, Event
from tests.harness.isolated import isolated, needs_overlay
from union import syscalls
from union.configuration import Configuration, Places
from union.errors import SetupError
from union.layers import rotate
from union.names import Name
from union.operations import CREAT, Held, Operation, R, W, link, mkdir, open_file, rename, rmdir, rmtree, unlink
from union.overlay import MountRefused
from union.plan import Share, Turn
from union.scenario import Group, Scenario

TOP = Name("top")
LOWER = Directory(
    {
        "file": File(b"content"),
        "other": File(b"other"),
        "one": File(b"linked"),
        "two": HardLink("one"),
        "three": HardLink("one"),
        "link": Symlink("file"),
        "dir": Directory({"inner": File(b"inside"), "sub": Directory({})}),
    }
)
GROUP = Group("top", "names to rotate", (Scenario("looks", lambda _: (open_file(TOP / "file", R),)),), lowers=(LOWER,))
SHARE = Share((Turn("top", GROUP, (1,)),), rotating=True)

CONFIGURATIONS = {
    "plain": Configuration(rotations=3),
    "index": Configuration(rotations=3, verify=True),
    "xino": Configuration(rotations=3, xino="on"),
    "samefs": Configuration(rotations=3, samefs=True),
    "samefs and index": Configuration(rotations=3, samefs=True, verify=True),
    "a filesystem each": Configuration(rotations=3, maxfs=4),
    "metacopy": Configuration(rotations=3, meta=True),
    "nested": Configuration(rotations=3, kind="ovov", verify=True),
    "no rotation": Configuration(rotations=0),
}


def union_of(stack: ExitStack, configuration: Configuration, at: Path, told: list[Event] | None = None) -> Union:
    """A mounted union of `LOWER`, undone with the stack; what it tells is added to `told`."""
    events = [] if told is None else told
    return stack.enter_context(mount_union(configuration, SHARE, at, lambda event: events.append(event)))


def perform(union: Union, *operations: Operation, cycle: bool = True) -> list[str]:
    """Operations that succeed as the model says, each followed by what its kind asks for; all complaints."""
    found = []
    for operation in operations:
        predicted = union.judge.model.apply(operation)
        assert operation.perform(union.judge.witness.root, Held()) == predicted
        assert not predicted.errno
        found += union.judge.names(operation.names())
        found += union.cycler.after(operation) if cycle else []
    return found


def looked_at(union: Union) -> list[str]:
    """Complaints about all but the root itself: each new upper layer brings another one, with other times."""
    return [*union.judge.tree(TOP), *union.judge.names(["f"]), *union.judge.listing("")]


def changes() -> Sequence[Operation]:
    """One of each kind, on names that lower has and on new ones."""
    return (
        open_file(TOP / "file", W, writes=b"C"),
        open_file(TOP / "new", W | CREAT, writes=b"new"),
        mkdir(TOP / "made"),
        rename(TOP / "other", TOP / "moved"),
        link(TOP / "new", TOP / "made/new"),
        unlink(TOP / "link"),
        rmtree(TOP / "dir"),
        mkdir(TOP / "dir"),
        rename(TOP / "made", TOP / "dir/made"),
        open_file(TOP / "dir/made/new", W, writes=b"N"),
        rename(TOP / "moved", TOP / "other"),
    )


@needs_overlay
@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
@isolated
def test_the_model_follows_through_all_rotations(configuration: Configuration, tmp_path: Path) -> None:
    with ExitStack() as stack:
        told: list[Event] = []
        union = union_of(stack, configuration, tmp_path, told)
        assert looked_at(union) == []
        for operation in changes():
            assert perform(union, operation) == []
            assert looked_at(union) == [], operation
        assert union.cycler.remounts == 6
        assert union.cycler.rotations == configuration.rotations
        union.finish(())
        assert [event.complaints for event in told if isinstance(event, Checked)] == [(), ()]


@needs_overlay
@isolated
def test_the_layers_grow_newest_first_and_stop_growing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=2), tmp_path)
        (lower,) = union.overlay.stack.lowerdirs
        uppers = [union.overlay.stack.upperdir]
        for _ in range(3):
            union.cycler.remount()
            uppers.append(union.overlay.stack.upperdir)
        assert [upper.parent.name for upper in uppers] == ["0", "1", "2", "2"]
        assert union.overlay.stack.lowerdirs == (uppers[1], uppers[0], lower)
        shown = union.overlay.effective_options()
        key = "lowerdir+" if "lowerdir+" in shown else "lowerdir"
        assert shown[key] == f"{uppers[1]}:{uppers[0]}:{lower}"
        assert (shown["upperdir"], shown["workdir"]) == (str(uppers[2]), str(uppers[2].with_name("w")))
        assert (union.cycler.remounts, union.cycler.rotations) == (3, 2)
        assert union.judge.witness.upperdir == str(uppers[2])


@needs_overlay
@isolated
def test_the_first_layers_have_a_filesystem_each(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=3, maxfs=2), tmp_path)
        seen = [union.overlay.stack.upper]
        for _ in range(3):
            union.cycler.remount()
            seen.append(union.overlay.stack.upper)
        home = union.overlay.stack.home
        assert [layer.source for layer in seen] == ["0_layer", "1_layer", home.source, home.source]
        assert len({layer.device for layer in seen}) == 3
        assert union.overlay.stack.rotated == (seen[2], seen[1], seen[0])
        assert looked_at(union) == []


@needs_overlay
@isolated
def test_the_sample_file_comes_back_with_each_new_layer(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=2), tmp_path)
        for expected in (True, True, False):  # the last remount brings no new layer
            assert perform(union, unlink(Name("f"))) == []
            assert not (tmp_path / "f").exists()
            union.cycler.remount()
            assert (tmp_path / "f").exists() == expected
            assert looked_at(union) == []


@needs_overlay
@pytest.mark.parametrize("verify", [False, True], ids=["without index", "index"])
@isolated
def test_hard_links_of_lower(verify: bool, tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=2, verify=verify), tmp_path)
        assert perform(union, open_file(TOP / "one", W, writes=b"L")) == []
        same = b"Linked" if verify else b"linked"
        assert (tmp_path / "top/two").read_bytes() == same
        assert os.stat(tmp_path / "top/two").st_nlink == 3
        for _ in range(3):
            union.cycler.remount()
            assert looked_at(union) == []
            # The index stays behind with its layer: the other names are lower's again, each group by itself.
            assert (tmp_path / "top/two").read_bytes() == b"linked"
            assert perform(union, link(TOP / "one", TOP / f"more{union.cycler.remounts}"), cycle=False) == []
            assert perform(union, unlink(TOP / "two"), rename(TOP / "three", TOP / "two"), cycle=False) == []
            assert perform(union, link(TOP / "two", TOP / "three"), cycle=False) == []
            assert looked_at(union) == []


@needs_overlay
@isolated
def test_which_operations_remount_and_rotate(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=5), tmp_path)
        counts = []
        for operation in (
            open_file(TOP / "file", W, writes=b"C"),
            mkdir(TOP / "made"),
            link(TOP / "file", TOP / "linked"),
            rename(TOP / "made", TOP / "again"),
            rename(TOP / "again", TOP / "made", cycle=False),
            rmdir(TOP / "made"),
        ):
            assert perform(union, operation) == []
            counts.append((union.cycler.remounts, union.cycler.rotations))
        assert counts == [(0, 0), (1, 1), (2, 1), (3, 2), (3, 2), (3, 2)]


@needs_overlay
@isolated
def test_a_rotation_of_the_model_alone_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=2), tmp_path)
        assert perform(union, open_file(TOP / "file", W, writes=b"C"), unlink(Name("f"))) == []
        assert looked_at(union) == []
        union.judge.model.rotated()
        found = looked_at(union)
        assert any(line.startswith("top/file: copied up although") for line in found)
        assert any(line.startswith("f: ENOENT although it must exist") for line in found)


@needs_overlay
@isolated
def test_a_rotation_of_the_mount_alone_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        configuration = Configuration(rotations=2)
        union = union_of(stack, configuration, tmp_path)
        assert perform(union, open_file(TOP / "file", W, writes=b"C"), unlink(Name("f"))) == []
        mount_rotated(union, stack, configuration)
        found = looked_at(union)
        assert any(line.startswith("top/file: not copied up") for line in found)
        assert any(line.startswith("/: lists f, a removed name") for line in found)


@needs_overlay
@isolated
def test_a_layer_that_is_left_out_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        configuration = Configuration(rotations=2)
        union = union_of(stack, configuration, tmp_path)
        assert perform(union, open_file(TOP / "file", W, writes=b"C"), unlink(TOP / "link")) == []
        union.judge.model.rotated()
        mount_rotated(union, stack, configuration, left_out=1)
        found = looked_at(union)
        assert any("b'content' instead of b'Content'" in line for line in found)
        assert any(line.startswith("top: lists link, a removed name") for line in found)


def mount_rotated(union: Union, stack: ExitStack, configuration: Configuration, left_out: int = 0) -> None:
    """What `Cycler.remount` does to the mount and to the witness, and not to the model."""
    union.overlay.unmount()
    syscalls.drop_caches()
    union.overlay.stack = rotate(stack, union.overlay.stack, configuration)
    if left_out:
        below = union.overlay.stack.lowerdirs[left_out:]
        union.overlay.stack = replace(union.overlay.stack, lowerdirs=below)
    union.overlay.mount()
    devices = union.cycler.devices(union.overlay)
    union.judge.remounted(devices, str(union.overlay.stack.upperdir), rotated=True)


@needs_overlay
@isolated
def test_a_remount_that_is_refused_says_why(tmp_path: Path) -> None:
    with ExitStack() as stack:
        configuration = Configuration(rotations=1, places=Places(options=(("volatile", ""),)))
        union = union_of(stack, configuration, tmp_path)
        union.cycler.remount()  # on a new upper layer, which is not marked yet
        with pytest.raises(MountRefused, match="volatile"):
            union.cycler.remount()


@needs_overlay
@isolated
def test_a_busy_union_is_not_remounted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        union = union_of(stack, Configuration(rotations=1), tmp_path)
        with (tmp_path / "top/file").open(), pytest.raises(SetupError, match="busy, held by our"):
            union.cycler.remount()
        assert (union.cycler.remounts, union.cycler.rotations) == (0, 0)
        assert looked_at(union) == []


FORGETFUL: dict[str, tuple[Configuration, list[bool]]] = {
    "tmpfs alone": (Configuration(rotations=1), []),
    "a lower overlay": (Configuration(rotations=1, kind="ovov"), [False]),
    "an image": (Configuration(rotations=1, lower_fs="ext4"), [True]),
    "a lower overlay on an image": (Configuration(rotations=1, kind="ovov", lower_fs="ext4"), [True]),
}


@needs_overlay
@pytest.mark.parametrize(("configuration", "with_pages"), FORGETFUL.values(), ids=FORGETFUL.keys())
@isolated
def test_caches_are_dropped_wherever_a_layer_has_any(
    configuration: Configuration, with_pages: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr(syscalls, "drop_caches", lambda *, pages=True: dropped.append(pages))
    with ExitStack() as stack:
        union_of(stack, configuration, tmp_path).cycler.remount()
    assert dropped == with_pages
