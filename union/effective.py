# SPDX-License-Identifier: GPL-2.0-only
"""The mount options of a run and what follows from them: asked for, given by the user, or the module's default.

As the classical suite does it (parity 1.6): an option that the user gives wins over the parameter of the
overlay module; what a run needs and neither has is added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from union.configuration import Configuration, Option
from union.errors import Unsupported, UsageError

PARAMETERS: Final = Path("/sys/module/overlay/parameters")


@dataclass(frozen=True, slots=True)
class Effective:
    """`options` are what the union is mounted with; the flags say what must hold then."""

    options: tuple[Option, ...]
    redirects: bool  # directories of the lower can be renamed
    index: bool  # hard-link groups of the lower survive copy-up
    xino: bool  # inode numbers are mapped: one st_dev for all objects
    metacopy: bool
    nested_options: tuple[Option, ...] = ()  # of the lower overlay in a nested run

    @property
    def index_all(self) -> bool:
        """Whether every object that is copied up has an index entry, for file handles."""
        return ("nfs_export", "on") in self.options

    @property
    def renumbers(self) -> bool:
        """Whether st_ino may change on copy-up (D2): also when it is the user's option, and nothing is detached."""
        return ("xino", "nofollow") in self.options

    @property
    def namespace(self) -> str:
        """Where the overlay keeps its xattrs."""
        return "user" if ("userxattr", "") in self.options else "trusted"

    def shown(self, configuration: Configuration) -> Configuration:
        """The configuration with what is implied, for a banner that tells it."""
        if configuration.plain or configuration.fuse:
            return configuration
        return replace(
            configuration,
            xdev=not self.redirects,
            xino=configuration.xino if configuration.xino != "off" or not self.xino else "on",
            meta=self.metacopy,
            verify=configuration.verify or self.index,
        )


def effective(configuration: Configuration, more: tuple[Option, ...] = ()) -> Effective:
    """What `configuration` and the mount options `more` come to on the running kernel.

    Raises UsageError when the user's options contradict each other, Unsupported when the kernel lacks a
    feature that was asked for: nothing is left out silently.
    """
    given = {**dict(configuration.places.options), **dict(more)}
    if configuration.plain or configuration.fuse:
        # A FUSE overlay knows none of these options; whether it renames directories is for the user to say.
        redirects = configuration.plain or not configuration.xdev
        return Effective(tuple(given.items()), redirects, index=False, xino=False, metacopy=False)
    metacopy = _metacopy(configuration, given, dict(more))
    index = _index(configuration, given)
    redirects = _redirects(configuration, given)
    xino = _xino(configuration, given)
    options = tuple(given.items())
    return Effective(options, redirects, index, xino, metacopy, _nested(configuration, options))


def _nested(configuration: Configuration, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """File handles of the lower overlay, for the index of the upper one, need its nfs_export (parity 2.2)."""
    if not configuration.verify:
        return tuple((key, "on" if value == "nofollow" else value) for key, value in options)
    kept = [(key, "on" if value == "nofollow" else value) for key, value in options if key != "metacopy"]
    return (*kept, ("metacopy", "off"), ("nfs_export", "on"))


def _metacopy(configuration: Configuration, given: dict[str, str], more: dict[str, str]) -> bool:
    """A group that cannot do with metacopy wins over --meta; what the user gives is for the kernel to refuse."""
    on, off = given.get("metacopy") == "on", given.get("metacopy") == "off" or given.get("nfs_export") == "on"
    _contradiction(on and off, "metacopy=on", "metacopy=off or nfs_export=on")
    without = more.get("metacopy") == "off" or more.get("nfs_export") == "on"
    if configuration.meta and not (on or without or given.get("metacopy") == "off"):
        if parameter("metacopy") is None:
            raise Unsupported("--meta: this kernel's overlay has no metacopy")
        given["metacopy"] = "on"
        return True
    return on or (not off and parameter("metacopy") == "Y")


def _index(configuration: Configuration, given: dict[str, str]) -> bool:
    on = given.get("index") == "on" or given.get("nfs_export") == "on"
    off = given.get("index") == "off"
    _contradiction(on and off, "index=on or nfs_export=on", "index=off")
    if configuration.verify and not (on or off) and parameter("index") == "N":
        given["index"] = "on"
        return True
    return on or (not off and parameter("index") == "Y")


def _redirects(configuration: Configuration, given: dict[str, str]) -> bool:
    if "redirect_dir" in given or "userxattr" in given:
        return given.get("redirect_dir") == "on" and not configuration.xdev
    if configuration.xdev:
        return False
    default = parameter("redirect_dir")
    if default == "N":
        given["redirect_dir"] = "on"
    return default is not None


def _xino(configuration: Configuration, given: dict[str, str]) -> bool:
    wanted = given.get("xino")
    if configuration.xino == "off":
        return wanted in ("on", "auto", "nofollow") or (wanted is None and parameter("xino_auto") == "Y")
    if parameter("xino_auto") is None:
        raise Unsupported("--xino: this kernel's overlay has no xino")
    given["xino"] = configuration.xino
    return True


def _contradiction(found: bool, one: str, other: str) -> None:
    if found:
        raise UsageError(f"the mount options contradict each other: {one} and {other}")


def parameter(name: str) -> str | None:
    """The value of a parameter of the overlay module, None if the kernel does not have it."""
    try:
        return (PARAMETERS / name).read_text().strip()
    except FileNotFoundError:
        return None
