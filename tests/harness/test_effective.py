# SPDX-License-Identifier: GPL-2.0-only
"""Mount options: what is asked for, given by the user, or a default of the module (parity 1.6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from union import effective as module
from union.configuration import Configuration, Option, Places
from union.effective import effective
from union.errors import Unsupported, UsageError

ALL_OFF = dict.fromkeys(("redirect_dir", "index", "xino_auto", "metacopy"), "N")
REDIRECT = ("redirect_dir", "on")


def run(
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[Option, ...] = (),
    parameters: Mapping[str, str] = ALL_OFF,
    **asked: object,
) -> module.Effective:
    monkeypatch.setattr(module, "parameter", parameters.get)
    return effective(Configuration(places=Places(options=given), **asked))  # type: ignore[arg-type]


ROWS: list[tuple[dict[str, object], tuple[Option, ...], dict[str, str], tuple[Option, ...], str]] = [
    ({}, (), {}, (REDIRECT,), "redirects"),
    ({}, (), {"redirect_dir": "Y"}, (), "redirects"),
    ({"xdev": True}, (), {}, (), ""),
    ({}, (("redirect_dir", "off"),), {}, (("redirect_dir", "off"),), ""),
    ({}, (("userxattr", ""),), {}, (("userxattr", ""),), ""),
    ({"xino": "nofollow"}, (), {}, (REDIRECT, ("xino", "nofollow")), "redirects xino"),
    ({"xino": "on"}, (("xino", "auto"),), {}, (("xino", "on"), REDIRECT), "redirects xino"),
    ({}, (("xino", "auto"),), {}, (("xino", "auto"), REDIRECT), "redirects xino"),
    ({}, (), {"xino_auto": "Y"}, (REDIRECT,), "redirects xino"),
    ({"verify": True}, (), {}, (("index", "on"), REDIRECT), "redirects index"),
    ({"verify": True}, (("index", "off"),), {}, (("index", "off"), REDIRECT), "redirects"),
    ({}, (("nfs_export", "on"),), {"metacopy": "Y"}, (("nfs_export", "on"), REDIRECT), "redirects index"),
    ({"meta": True}, (), {}, (("metacopy", "on"), REDIRECT), "redirects metacopy"),
    ({"kind": "no", "xino": "off"}, (), {}, (), "redirects"),
    ({"fuse": "fuse-overlayfs", "xdev": True}, (), {}, (), ""),
]


@pytest.mark.parametrize(("asked", "given", "parameters", "options", "flags"), ROWS, ids=str)
def test_automatic_options(
    asked: dict[str, object],
    given: tuple[Option, ...],
    parameters: dict[str, str],
    options: tuple[Option, ...],
    flags: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = run(monkeypatch, given, {**ALL_OFF, **parameters}, **asked)
    assert sorted(seen.options) == sorted(options)
    assert [flag for flag in ("redirects", "index", "xino", "metacopy") if getattr(seen, flag)] == flags.split()


CONTRADICTIONS: list[tuple[Option, ...]] = [
    (("index", "off"), ("nfs_export", "on")),
    (("metacopy", "on"), ("nfs_export", "on")),
]


@pytest.mark.parametrize("given", CONTRADICTIONS)
def test_a_contradiction_is_the_users_mistake(given: tuple[Option, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="contradict"):
        run(monkeypatch, given)


@pytest.mark.parametrize("asked", [{"xino": "on"}, {"meta": True}], ids=str)
def test_what_the_kernel_lacks_is_not_left_out(asked: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="overlay has no"):
        run(monkeypatch, (), {}, **asked)


def test_what_is_implied_shows_in_the_banner(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Configuration(places=Places(options=(("index", "on"), ("metacopy", "on"), ("userxattr", ""))))
    monkeypatch.setattr(module, "parameter", ALL_OFF.get)
    assert effective(asked).shown(asked).how() == "--ov --xdev --meta --verify"


def test_a_nested_lower_never_gets_nofollow(monkeypatch: pytest.MonkeyPatch) -> None:
    for verify in (False, True):
        seen = run(monkeypatch, kind="ovov", xino="nofollow", verify=verify)
        assert dict(seen.nested_options)["xino"] == "on"
        assert (("nfs_export", "on") in seen.nested_options) == verify


def test_a_missing_parameter_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARAMETERS", tmp_path)
    assert module.parameter("redirect_dir") is None


def test_numbers_may_change_when_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when xfstests has it in OVERLAY_MOUNT_OPTIONS: no detach run, but D2 holds."""
    nofollow = (("xino", "nofollow"),)
    assert run(monkeypatch, nofollow).renumbers
    assert run(monkeypatch, xino="nofollow").renumbers
    assert not run(monkeypatch).renumbers
    assert not run(monkeypatch, nofollow, xino="on").renumbers
