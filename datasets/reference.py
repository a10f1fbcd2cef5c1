# SPDX-License-Identifier: GPL-2.0-only
"""The numbered sets of the classical suite: what every operation scenario is played on.

A set is nine names in a top directory, 13 objects in all. The classical suite has one top directory
`a` with 30 sets and rebuilds it for every group; we keep one top directory per group side by side, so
that one union serves a whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from datasets.tree import Directory, File, Node, Symlink

FIRST_SET: Final = 100  # sets are numbered from here on
C0: Final = b":xxx:yyy:zzz"  # content of foo<n> and rootfile<n>
C1: Final = b":aaa:bbb:ccc"  # content of dir<n>/pop/b
SAMPLE_NAME: Final = "f"  # in the root of every upper layer, written before the union is mounted
SAMPLE: Final = File(b"pure")  # a pure upper file: the sample of what such a file's st_dev is
CLASSICAL: Final[Mapping[str, int]] = {"a": 30}  # the classical suite's own lower layer

_USER: Final = 1  # uid and gid that own what an unprivileged actor may change


def reference_set(top: str, n: int) -> dict[str, Node]:
    """The nine entries of set `n` in the top directory called `top`.

    `direct_sym<n>` and `direct_dir_sym<n>` go up and back into `top`, the other symlinks stay in it.
    The names `no_foo<n>` and `no_dir<n>` are reserved: scenarios rely on their absence.
    """
    populated = Directory({
        "a": File(),
        "pop": Directory({"b": File(C1), "c": Directory()}),
    })
    return {
        f"foo{n}": File(C0, uid=_USER, gid=_USER),
        f"direct_sym{n}": Symlink(f"../{top}/foo{n}", _USER, _USER),
        f"indirect_sym{n}": Symlink(f"direct_sym{n}", _USER, _USER),
        f"pointless{n}": Symlink(f"no_foo{n}", _USER, _USER),
        f"dir{n}": populated,
        f"direct_dir_sym{n}": Symlink(f"../{top}/dir{n}"),
        f"indirect_dir_sym{n}": Symlink(f"direct_dir_sym{n}"),
        f"empty{n}": Directory(),
        f"rootfile{n}": File(C0),
    }


def reference(tops: Mapping[str, int]) -> Directory:
    """The lower root: one top directory per key, with that many sets numbered from FIRST_SET on."""
    return Directory({top: reference_top(top, sets) for top, sets in tops.items()})


def reference_top(top: str, sets: int) -> Directory:
    """What the top directory called `top` holds: `sets` numbered sets."""
    entries: dict[str, Node] = {}
    for n in range(FIRST_SET, FIRST_SET + sets):
        entries.update(reference_set(top, n))
    return Directory(entries)
