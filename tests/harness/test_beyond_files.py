# SPDX-License-Identifier: GPL-2.0-only
"""File data and open files: scenarios, model and plain filesystems agree, and a wrong answer is noticed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from datasets.reference import C0, reference
from datasets.tree import Directory, File, write
from tests.harness.isolated import isolated, needs_mounts, needs_xfs
from tests.union.beyond import (
    copied_ranges,
    file_handles,
    file_space,
    held_directories,
    held_files,
    mapped_files,
    open_flags,
    syncing,
    temporary_files,
    watched,
)
from union.filesystems import on_loop, tmpfs
from union.judge import difference
from union.model import Model
from union.names import Name, Names
from union.operations import (
    DIRECTORY,
    FD,
    PROGRAM,
    RW,
    TRUNC,
    Allocate,
    Blocks,
    ChangeMode,
    Decode,
    Encode,
    Events,
    HandleEvents,
    Held,
    Map,
    Operation,
    R,
    ReadByData,
    ReadMapping,
    RunToEnd,
    Step,
    Transfer,
    Value,
    W,
    Watch,
    WatchHandle,
    held_lists,
    held_looks,
    hold,
    is_same,
    open_file,
    reads,
    writes,
)
from union.scenario import Group
from union.witness import Witness
from union.workspace import scratch_directory

FAMILIES = (
    held_files,
    held_directories,
    open_flags,
    temporary_files,
    syncing,
    mapped_files,
    file_space,
    copied_ranges,
    file_handles,
    watched,
)
OVERLAY_ALONE = ("statfs", "dedupe-refused", "handle-connectable", "handle-not-exported")
GROUPS: tuple[Group, ...] = tuple(group for family in FAMILIES for group in family.GROUPS)


def stated(operation: Operation) -> tuple[Value, ...]:
    """The values that the scenario allows; None allows any."""
    if isinstance(operation, Step) and operation.on_lower is not None:
        return operation.returns, operation.on_lower
    return (operation.expected().value,)


def model_of(group: Group, *, detached: bool) -> Model:
    model = Model(Directory({group.name: group.trees(group.name)[0]}), indexed=("index", "on") in group.options)
    if detached:
        model.copy_up_all(None)
        model.detach()
    return model


def each_scenario(group: Group) -> Iterator[Sequence[Operation]]:
    for number in range(1, len(group.scenarios) + 1):
        yield group.operations(number)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_scenarios_and_model_agree_with_a_lower_and_without(group: Group) -> None:
    for detached in (False, True):
        model = model_of(group, detached=detached)
        for operations in each_scenario(group):
            for operation in operations:
                predicted = model.apply(operation)
                assert predicted.errno == operation.expected().errno, operation
                # Without a lower the union is a plain filesystem.
                allowed = stated(operation)[:1] if detached else stated(operation)
                assert predicted.value in allowed or None in allowed, (operation, predicted)
            model.release()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_what_is_held_is_never_remounted_under(group: Group) -> None:
    for operations in each_scenario(group):
        holding = False
        for operation in operations:
            holding = holding or (hasattr(operation, "held") and not operation.fails)
            remounts = operation.remounts and operation.cycle and not operation.fails
            assert not (holding and remounts), operation


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_declared_well(group: Group) -> None:
    labels = [scenario.label for scenario in group.scenarios]
    assert len(set(labels)) == len(labels)
    assert group.sentence.endswith(".")
    for operations in each_scenario(group):
        for operation in operations:
            assert all(name == group.name or name.startswith(f"{group.name}/") for name in operation.names())
            line = operation.reproducer("/mnt")
            assert line.isprintable() and shlex.split(line)


def on_a_plain_filesystem(root: Path, layer: Path) -> None:
    """Every scenario that the filesystem can carry out gives what it states; a lower plays no part."""
    for group in GROUPS:
        if group.name in OVERLAY_ALONE or any(need.probe(layer, layer) for need in group.needs):
            continue
        write(Directory({group.name: group.trees(group.name)[0]}), root / group.name)
        for operations in each_scenario(group):
            held = Held()
            for operation in operations:
                given = operation.perform(str(root / group.name), held)
                assert given.errno == operation.expected().errno, (operation, given)
                assert stated(operation)[0] in (None, given.value), (operation, given)
            held.release()


def plain(make: Callable[[ExitStack, Path, Path], object]) -> None:
    os.umask(0o022)
    with ExitStack() as stack:
        scratch = scratch_directory(stack)
        root = scratch / "plain"
        root.mkdir()
        make(stack, root, scratch)
        for name in ("probes", *(group.name for group in GROUPS)):
            (root / name).mkdir()
        on_a_plain_filesystem(root, root / "probes")


@needs_mounts
@isolated
def test_scenarios_on_a_plain_tmpfs() -> None:
    plain(lambda stack, root, _: tmpfs(stack, root, "plain"))


@needs_xfs
@isolated
def test_scenarios_on_a_plain_xfs() -> None:
    plain(lambda stack, root, scratch: on_loop(stack, "xfs", root, scratch, "plain"))


# Controls: each tampers with the files behind the model's back, and the check that follows must say so.

S = Names("top", 100)
CONTROLS: dict[str, tuple[Sequence[Operation], Callable[[Path], object], Operation]] = {
    "old data through a descriptor": (
        [hold(S.reg)],
        lambda root: (root / S.reg).write_bytes(b"tampered"),
        reads(S.reg, C0),
    ),
    "another object under the name": (
        [hold(S.reg)],
        lambda root: (root / S.rootfile).rename(root / S.reg),
        is_same(S.reg),
    ),
    "a listing that lacks a name": (
        [hold(S.dir, DIRECTORY)],
        lambda root: (root / S.dir / "a").unlink(),
        held_lists(S.dir, "a", "pop"),
    ),
    "a mode that moved": (
        [hold(S.reg, RW)],
        lambda root: (root / S.reg).chmod(0o600),
        held_looks(S.reg, "file 0644, 12 bytes, 1 links"),
    ),
    "a mapping that follows the file": (
        [hold(S.reg), Map(path=S.reg, held=FD, mapping="map", length=len(C0))],
        lambda root: (root / S.reg).write_bytes(C0[::-1]),
        ReadMapping(path=S.reg, mapping="map"),
    ),
    "a hole that was filled": (
        [hold(S.reg, RW), writes(S.reg, bytes(1 << 16)), Allocate(path=S.reg, held=FD, mode=3, at=0, length=1 << 16)],
        lambda root: (root / S.reg).write_bytes(bytes(1 << 16)),
        Blocks(path=S.reg, returns="sparse"),
    ),
    "data that only the extents lack": (
        [open_file(S.reg, W, writes=b"x" * (1 << 16))],
        lambda root: (root / S.reg).write_bytes(b"x" * (1 << 10) + bytes(63 << 10)),
        ReadByData(path=S.reg),
    ),
    "a copy that is too short": (
        [hold(S.reg, R, "one"), hold(S.rootfile, RW, "two")],
        lambda root: os.truncate(root / S.reg, 4),
        Transfer(path=S.rootfile, how="sendfile", source="one", target="two", length=8),
    ),
    "a handle of what is gone": (
        [Encode(path=S.reg, handle="handle")],
        lambda root: (root / S.reg).unlink(),
        Decode(path=S.reg, handle="handle", held="fd"),
    ),
    "an event that nothing caused": (
        [Watch(path=S.reg, held="watch")],
        lambda root: (root / S.reg).chmod(0o600),
        Events(path=S.reg, held="watch"),
    ),
    "an event by handle that nothing caused": (
        [WatchHandle(path=S.reg, held="watch")],
        lambda root: (root / S.reg).write_bytes(C0),
        HandleEvents(path=S.reg, held="watch"),
    ),
    "a program that ends otherwise": (
        [open_file(S.reg, W | TRUNC, writes=PROGRAM), ChangeMode(path=S.reg, mode=0o755)],
        lambda root: (root / S.reg).write_bytes(b"#!/bin/true\n"),
        RunToEnd(path=S.reg),
    ),
}


def differs(tmp_path: Path, before: Sequence[Operation], tamper: Callable[[Path], object], check: Operation) -> bool:
    write(reference({"top": 1}), tmp_path)
    model, held = Model(reference({"top": 1})), Held()
    try:
        for operation in before:
            assert model.apply(operation).errno == operation.perform(str(tmp_path), held).errno == 0
        tamper(tmp_path)
        return model.apply(check) != check.perform(str(tmp_path), held)
    finally:
        held.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="the dataset has files of other owners")
@pytest.mark.parametrize("control", CONTROLS)
def test_a_wrong_answer_is_noticed(control: str, tmp_path: Path) -> None:
    before, tamper, check = CONTROLS[control]
    (tmp_path / "right").mkdir()
    assert not differs(tmp_path / "right", before, lambda root: None, check)
    (tmp_path / "wrong").mkdir()
    assert differs(tmp_path / "wrong", before, tamper, check)


def test_a_reproducer_of_a_step_names_what_it_goes_on_from() -> None:
    line = reads(Name("top/foo"), b"x" * 100, "reader", at=4).reproducer("/mnt")
    assert line == "- read-held /mnt/top/foo held=reader at=4"
    assert hold(Name("top/foo"), R, "reader").reproducer("/mnt") == "- hold /mnt/top/foo held=reader"


def test_the_whole_of_a_large_file_is_compared(tmp_path: Path) -> None:
    content = b"x" * (1 << 20)
    write(Directory({"file": File(content), "exact": File(content[: 64 << 10])}), tmp_path)
    witness = Witness(str(tmp_path), str(tmp_path))
    assert (witness.observe("file").content, witness.observe("exact").content) == (content, content[: 64 << 10])
    with open(tmp_path / "file", "r+b") as file:
        file.seek((1 << 20) - 1)
        file.write(b"y")
    told = difference(witness.observe("file").content or b"", content)
    assert told == "of 1048576 bytes instead of 1048576, from byte 1048575 on b'y' instead of b'x'"
    assert difference(b"a", b"b") == "b'a' instead of b'b'"
