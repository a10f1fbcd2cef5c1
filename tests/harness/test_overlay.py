# SPDX-License-Identifier: GPL-2.0-only
"""Mounting an overlay: options in effect, refusals in the kernel's words, awkward paths, busy mounts."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from dataclasses import replace

import pytest

from datasets.reference import reference
from tests.harness.isolated import isolated, needs_overlay
from union import overlay, syscalls
from union.configuration import Configuration, Option, Xino
from union.effective import effective
from union.errors import SetupError, Unsupported
from union.filesystems import Layer, make
from union.layers import LayerStack, build_layers
from union.overlay import MountRefused, Overlay, accepts, not_in_effect

TREE = reference({"top": 1})


def layers(stack: ExitStack) -> LayerStack:
    return build_layers(stack, [TREE], Configuration(lower_fs="tmpfs"))


def settings(xino: Xino = "off") -> tuple[Option, ...]:
    return effective(Configuration(xino=xino)).options


def moved(made: LayerStack, name: str) -> LayerStack:
    """The same stack with all of its layers in directories below `name` on the upper filesystem."""
    base = made.home.root / name
    for part in ("l/inside", "u", "w"):
        (base / part).mkdir(parents=True)
    lower: Layer = replace(made.lower, root=base / "l")
    return replace(made, lower=lower, lowerdirs=(lower.root,), upperdir=base / "u", workdir=base / "w")


def without_lower_plus(self: Overlay, *_args: object) -> None:
    raise overlay._NoLowerPlus


@needs_overlay
@isolated
def test_the_union_shows_both_layers_and_goes_away() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        union = Overlay(made, settings())
        with union.mounted():
            assert sorted(os.listdir(made.mountpoint)) == ["f", "top"]
            (made.mountpoint / "top/new").touch()
            options = union.effective_options()
            assert options["lowerdir+" if "lowerdir+" in options else "lowerdir"] == str(made.lower.root)
            assert (options["upperdir"], options["workdir"]) == (str(made.upperdir), str(made.workdir))
        assert os.listdir(made.mountpoint) == []
        assert (made.upperdir / "top/new").exists()
        union.unmount()  # a second time: nothing to do
        with pytest.raises(SetupError, match="no overlay of ours"):
            union.effective_options()


AWKWARD = ["a,b", "a:b", "a=b", "a b", "back\\slash", "tab\tnewline\n", "d" * 200 + "/" + "e" * 200]


@needs_overlay
@pytest.mark.parametrize("old_kernel", [False, True], ids=["lowerdir+", "mount string"])
@pytest.mark.parametrize("name", AWKWARD, ids=[ascii(name[:12]) for name in AWKWARD])
@isolated
def test_awkward_and_long_paths(name: str, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_kernel:
        monkeypatch.setattr(Overlay, "_mount_with_context", without_lower_plus)
    with ExitStack() as stack:
        made = moved(layers(stack), name)
        with Overlay(made, [("redirect_dir", "on")]).mounted() as union:
            assert union.effective_options()["upperdir"]
            (made.mountpoint / "inside/new").touch()
            assert (made.upperdir / "inside/new").exists()


@needs_overlay
@isolated
def test_a_refusal_has_errno_and_the_kernels_words() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        for options in ([("xino", "bogus")], [("metacopy", "on"), ("redirect_dir", "off")]):
            union = Overlay(made, options)
            with pytest.raises(MountRefused) as caught:
                union.mount()
            assert isinstance(caught.value, Unsupported)
            assert isinstance(caught.value, OSError)
            assert caught.value.errno == errno.EINVAL
            assert any(options[0][0] in line for line in caught.value.kernel_says)
            assert caught.value.kernel_says[0] in str(caught.value)
            assert union.mount_id is None


@needs_overlay
@pytest.mark.parametrize(
    ("option", "shown"),
    [
        (("xino", "on"), "off"),
        (("index", "on"), "off"),
        (("nfs_export", "on"), "off"),
        (("metacopy", "on"), "off"),
        (("redirect_dir", "on"), "nofollow"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
@isolated
def test_a_silent_fall_back_is_a_refusal(
    option: tuple[str, str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        made = layers(stack)
        monkeypatch.setattr(Overlay, "effective_options", lambda self: {option[0]: shown})
        with pytest.raises(MountRefused, match=rf"not in effect.*{option[0]}={shown}"):
            Overlay(made, [option]).mount()
        assert os.listdir(made.mountpoint) == []


@needs_overlay
@isolated
def test_an_upper_without_file_handles_gives_no_index() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        at = made.scratch / "ramfs"
        at.mkdir()
        upper = make(stack, "ramfs", at, made.scratch, "upper")
        for name in ("u", "w"):
            (at / name).mkdir()
        lesser = replace(made, upper=upper, upperdir=at / "u", workdir=at / "w")
        with Overlay(lesser, [("redirect_dir", "nofollow")]).mounted():
            pass
        with pytest.raises(MountRefused, match="index=on was accepted but is not in effect"):
            Overlay(lesser, [("index", "on"), ("redirect_dir", "nofollow")]).mount()


@needs_overlay
@isolated
def test_a_busy_union_is_an_error_that_says_who() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        with Overlay(made).mounted() as union:
            held = r"busy, held by our fd/\d+ .*/f"
            with (made.mountpoint / "f").open(), pytest.raises(SetupError, match=held):
                union.unmount()
            assert union.effective_options()


@needs_overlay
@isolated
def test_a_busy_union_does_not_hide_what_went_wrong_first() -> None:
    with ExitStack() as stack:
        union = Overlay(layers(stack))
        with pytest.raises(KeyboardInterrupt), union.mounted():
            held = (union.stack.mountpoint / "f").open()
            raise KeyboardInterrupt
        held.close()
        union.unmount()


@needs_overlay
@isolated
def test_only_our_own_mount_is_unmounted() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        with Overlay(made).mounted() as union:
            syscalls.mount("other", made.mountpoint, "tmpfs")
            with pytest.raises(SetupError, match="not our overlay"):
                union.unmount()
            syscalls.umount(made.mountpoint)


@needs_overlay
@isolated
def test_a_remount_keeps_everything() -> None:
    with ExitStack() as stack:
        made = layers(stack)
        with Overlay(made, settings("on")).mounted() as union:
            (made.mountpoint / "top/new").write_text("kept")
            (made.mountpoint / "top/foo100").unlink()
            union.unmount()
            syscalls.drop_caches()
            union.mount()
            assert (made.mountpoint / "top/new").read_text() == "kept"
            assert not (made.mountpoint / "top/foo100").exists()
            assert union.effective_options()["xino"] == "on"


@needs_overlay
@isolated
def test_accepting_is_found_out_by_doing() -> None:
    assert accepts(("xino", "on")) is None
    assert accepts(("redirect_dir", "on")) is None
    refusal = accepts(("no_such_option", "on"))
    assert refusal is not None
    assert refusal.errno == errno.EINVAL
    assert "no_such_option" in str(refusal)


@needs_overlay
@isolated
def test_accepted_but_not_in_effect_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overlay, "effective_options", lambda self: {"rw": "", "index": "off"})
    refusal = accepts(("index", "on"))
    assert refusal is not None
    assert "index=off" in str(refusal)


def test_an_option_not_shown_is_in_effect_only_as_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "parameter", {"redirect_dir": "Y", "index": "N", "xino_auto": "N"}.get)
    wanted: list[Option] = [("redirect_dir", "on"), ("index", "off"), ("xino", "off"), ("lowerdir", "/x")]
    assert not_in_effect(wanted, {"rw": ""}) == []
    assert len(not_in_effect([("index", "on"), ("xino", "nofollow"), ("nonsense", "")], {"rw": ""})) == 3
    assert not_in_effect([("volatile", "")], {"fsync": "volatile"}) == []
