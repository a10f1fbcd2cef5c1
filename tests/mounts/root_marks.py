# SPDX-License-Identifier: GPL-2.0-only
"""Whiteouts as xattrs in the root of a lower: never found, and not listed if the root says that it has some."""

from __future__ import annotations

import os
from errno import ENOENT
from typing import Final, NamedTuple

from datasets.tree import Directory, File
from union.scenario import Group, Trial
from union.stand import Stand


class Row(NamedTuple):
    """Where the overlay keeps its xattrs, the mark of the root of each lower, the topmost first, and what is listed."""

    label: str
    namespace: str
    marks: tuple[bytes, ...]
    names: tuple[str, ...]


HIDDEN, SHOWN = ("f",), ("f", "g")
ROWS: Final = (
    Row("the root is marked", "trusted", (b"x", b"", b""), HIDDEN),
    Row("the root is marked, with userxattr", "user", (b"x", b"", b""), HIDDEN),
    Row("the root is not marked", "trusted", (b"", b"", b""), SHOWN),
    Row("another root is marked", "trusted", (b"", b"x", b""), SHOWN),
    Row("all roots are marked", "trusted", (b"x", b"x", b"x"), HIDDEN),
    Row("the root has another mark", "trusted", (b"z", b"", b""), SHOWN),
)
WITH_UPPER: Final = "lowerdir={a}:{b}:{c},upperdir={u},workdir={w}"
LOWERS: Final = "lowerdir={a}:{b}:{c}"


def whiteouts(row: Row) -> Trial:
    """The topmost lower has a whiteout of g: with an upper and without one it is not found, marked or not.

    The mark is for listings, which do not look at the xattrs of each entry otherwise.
    """

    def work(stand: Stand) -> None:
        gone = File(xattrs={f"{row.namespace}.overlay.whiteout": b"y"})
        stand.layers(a=Directory({"g": gone}), b=Directory({"f": File(b"b")}), c=Directory({"g": File(b"c")}))
        stand.layers(u=Directory(), w=Directory())
        for name, mark in zip("abc", row.marks, strict=True):
            if mark:
                os.setxattr(stand.path(name), f"{row.namespace}.overlay.opaque", mark)
        for at, options in (("m", WITH_UPPER), ("n", LOWERS)):
            mounted = stand.mount(options + (",userxattr" if row.namespace == "user" else ""), at)
            stand.same(f"names at {at}", tuple(sorted(os.listdir(mounted))), row.names)
            stand.fails(ENOENT, os.stat, f"{mounted}/g")

    return Trial(row.label, work)


GROUPS = (
    Group(
        "root-marks",
        "Mount with a lower whose root has whiteouts as xattrs.",
        trials=tuple(map(whiteouts, ROWS)),
    ),
)
