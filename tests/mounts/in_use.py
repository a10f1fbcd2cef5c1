# SPDX-License-Identifier: GPL-2.0-only
"""Layers that another overlay uses: a warning without an index, EBUSY with one; and overlays on overlays."""

from __future__ import annotations

import os
from errno import EBUSY, EINVAL, ELOOP
from pathlib import Path
from typing import Final, NamedTuple

from datasets.tree import Directory, File
from tests.mounts.phrases import LAYERS, prepared
from union.scenario import Group, Trial
from union.stand import Stand
from union.syscalls import MS_RDONLY


class Shared(NamedTuple):
    """What of the first overlay the second one has too, and how the kernel names it."""

    label: str
    options: str
    name: str


SHARED: Final = (
    Shared("the upper", "lowerdir={l},upperdir={u},workdir={w2}", "upperdir"),
    Shared("the work directory", "lowerdir={l},upperdir={u2},workdir={w}", "workdir"),
    Shared("both", "lowerdir={l},upperdir={u},workdir={w}", "upperdir"),
    Shared("its upper as a lower", "lowerdir={u},upperdir={u2},workdir={w2}", "lowerdir"),
    Shared("its work directory as a lower", "lowerdir={w},upperdir={u2},workdir={w2}", "lowerdir"),
    Shared("below its upper as a lower", "lowerdir={u/in},upperdir={u2},workdir={w2}", "lowerdir"),
    Shared("below its upper as an upper", "lowerdir={l},upperdir={u/in},workdir={w2}", "upperdir"),
    Shared("below its upper as a work directory", "lowerdir={l},upperdir={u2},workdir={u/in}", "workdir"),
    Shared("below its work directory", "lowerdir={l},upperdir={u2},workdir={w/in}", "workdir"),
)


def shared(row: Shared) -> Trial:
    """Refused with an index, taken with a warning without; taken in silence when the first one is gone."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.layers(u2=Directory(), w2=Directory())
        for name in ("u/in", "w/in"):
            (stand.root / name).mkdir()
        stand.mount(f"{LAYERS},index=off")
        in_use = f"{row.name} is in-use as upperdir/workdir of another mount"
        stand.refuses(EBUSY, f"{row.options},index=on", "n", says=f"{in_use}, mount with '-o index=off' to override")
        stand.warns(f"{in_use}, accessing files from both mounts will result in undefined behavior")
        stand.mount(f"{row.options},index=off", "n")
        stand.unmount("n")
        stand.unmount()
        stand.mount(f"{row.options},index=on", "n")

    return Trial(row.label, work)


def lower_shared(stand: Stand) -> None:
    """Any number of overlays has the same lower, with an index too."""
    prepared(stand)
    for number in range(3):
        stand.layers(**{f"u{number}": Directory(), f"w{number}": Directory()})
        at = stand.mount(f"lowerdir={{l}},upperdir={{u{number}}},workdir={{w{number}}},index=on", f"m{number}")
        Path(at, "f").write_bytes(str(number).encode())
    stand.same("contents", [Path(stand.path(f"m{n}/f")).read_bytes() for n in range(3)], [b"0", b"1", b"2"])


def upper_within_lower(stand: Stand) -> None:
    """An upper below its lower can be mounted, but not be looked up in the overlay."""
    stand.layers(l=Directory({"f": File(b"lower"), "u": Directory(), "w": Directory()}))
    at = stand.mount("lowerdir={l},upperdir={l/u},workdir={l/w}")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.fails(ELOOP, os.stat, f"{at}/u")
    stand.fails(ELOOP, os.listdir, f"{at}/w")


def two_deep(stand: Stand) -> None:
    """An overlay can be the lower of another, and not more than that."""
    prepared(stand)
    stand.mount(LAYERS)
    stand.layers(u2=Directory(), w2=Directory(), u3=Directory(), w3=Directory())
    at = stand.mount("lowerdir={m},upperdir={u2},workdir={w2}", "n")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    says = "maximum fs stacking depth exceeded"
    stand.refuses(EINVAL, "lowerdir={n},upperdir={u3},workdir={w3}", "o", says=says)
    stand.refuses(EINVAL, "lowerdir={n}:{k}", "o", says=says)
    stand.refuses(EINVAL, "lowerdir={k}:{n}", "o", says=says)
    stand.mount("lowerdir={m}:{k}", "o")


def nested_upper(stand: Stand) -> None:
    """An overlay is no upper, whether its own upper is writable or not."""
    prepared(stand)
    (stand.root / "u/in").mkdir()
    for flags in (0, MS_RDONLY):
        stand.mount(LAYERS, flags=flags)
        stand.refuses(EINVAL, "lowerdir={k},upperdir={m},workdir={m/in}", "n")
        stand.unmount()


GROUPS = (
    Group(
        "layers-in-use",
        "Mount with a layer that another overlay has as its own.",
        trials=(
            *map(shared, SHARED),
            Trial("the same lower of several", lower_shared),
            Trial("an upper within its lower", upper_within_lower),
            Trial("overlays on overlays", two_deep),
            Trial("an overlay as an upper", nested_upper),
        ),
    ),
)
