# SPDX-License-Identifier: GPL-2.0-only
"""The environment variables of the classical suite (parity 1.4); an empty one counts as unset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from union.configuration import Option, Places
from union.errors import UsageError

NAMES = ("BASEDIR", "LOWERDIR", "MNTPOINT", "MNTOPTIONS")
PREFIX = "UNIONMOUNT_"

Variables = tuple[tuple[str, str], ...]


def variables(environment: Mapping[str, str]) -> Variables:
    """Those that are set, by their full names."""
    names = (PREFIX + name for name in NAMES)
    return tuple((name, environment[name]) for name in names if environment.get(name))


def dump(found: Variables) -> str:
    """The first thing a run prints when any is set: xfstests finds out by it that we know them (parity 1.8)."""
    return "".join(["Environment variables:\n", *(f"{name}='{value}'\n" for name, value in found), "\n"])


def places(environment: Mapping[str, str]) -> tuple[Places, Variables]:
    """What the variables say, and those that are set; raises UsageError for a relative path."""
    found = variables(environment)
    values = {name.removeprefix(PREFIX): value for name, value in found}
    paths = {name: Path(values[name]) for name in NAMES[:3] if name in values}
    for name, path in paths.items():
        if not path.is_absolute():
            raise UsageError(f"{PREFIX}{name}={path}: not an absolute path")
    where = Places(
        base=paths.get("BASEDIR"),
        lower=paths.get("LOWERDIR"),
        mountpoint=paths.get("MNTPOINT"),
        options=_options(values.get("MNTOPTIONS", "")),
    )
    return where, found


def _options(text: str) -> tuple[Option, ...]:
    """Mount options, with or without leading `-o`s; the last of a kind wins, `rw` is what every mount is."""
    words = [word.removeprefix("-o") for word in text.split()]
    pairs = (option.partition("=")[::2] for word in words for option in word.split(",") if option)
    return tuple({key: value for key, value in pairs if key != "rw"}.items())
