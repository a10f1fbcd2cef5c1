# SPDX-License-Identifier: GPL-2.0-only
"""What trials about mounting share: the usual layers, and what the running kernel takes and does by default."""

from __future__ import annotations

from typing import Final

from datasets.tree import Directory, File
from union.effective import parameter
from union.stand import Missing, Stand
from union.syscalls import FsContext

LAYERS: Final = "lowerdir={l},upperdir={u},workdir={w}"
LOWERS: Final = "lowerdir={l}:{k}"
FLAGS: Final = ("userxattr", "default_permissions")  # shown without a value when they are in effect


def prepared(stand: Stand) -> None:
    """The layers l, u and w, and a second lower k."""
    stand.layers(l=Directory({"f": File(b"lower")}), k=Directory({"g": File(b"below")}), u=Directory(), w=Directory())


def default(key: str) -> str | None:
    """What is in effect when the option is not given, as the module's parameters say; None for a flag."""
    if key == "redirect_dir":
        if parameter(key) == "Y":
            return "on"
        return "follow" if parameter("redirect_always_follow") == "Y" else "nofollow"
    if key == "xino":
        return "auto" if parameter("xino_auto") == "Y" else "off"
    if key in ("index", "nfs_export", "metacopy"):
        return "on" if parameter(key) == "Y" else "off"
    return {"uuid": "auto", "verity": "off", "fsync": "auto"}.get(key)


def effective(stand: Stand, key: str, wanted: str | None, at: str = "m", why: str = "") -> None:
    """Complain unless this is what the mount shows as in effect; what is the default is not shown."""
    shown = stand.shown(at).get(key)
    stand.same(f"{key} {why}".rstrip(), shown, None if wanted == default(key) else wanted)


def pairs(options: str) -> list[tuple[str, str]]:
    """`a=b,c` option by option, for fsopen(2)."""
    return [(key, value) for key, _, value in (option.partition("=") for option in options.split(","))]


def needs_option(key: str, value: str | int = "") -> None:
    """Raises Missing unless the kernel's overlay takes the option at all."""
    with FsContext("overlay") as context:
        try:
            context.set(key, value)
        except OSError as error:
            what = f"{key} by descriptor" if isinstance(value, int) else f"{key}={value}".rstrip("=")
            raise Missing(f"this kernel's overlay has no {what}") from error
