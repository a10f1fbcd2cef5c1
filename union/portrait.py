# SPDX-License-Identifier: GPL-2.0-only
"""What a whole union shows, as a value: two portraits are equal if a user sees the same tree."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from union.syscalls import DT_DIR
from union.witness import Witness

Portrait = dict[str, "Seen"]
"""Every name by its path relative to the root; the root itself is `""`."""


class Seen(NamedTuple):
    """One name: the errno of looking at it, its mode, owner, device number, content or target, and xattrs."""

    error: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    data: bytes | str | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


def portrait(root: str) -> Portrait:
    """Look at every object below `root`, and at each listing; raises OSError for a directory that cannot be listed."""
    witness = Witness(root, "")
    found = {"": seen(witness, "")}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for entry in witness.listing(directory):
            if entry.name not in (".", ".."):
                path = f"{directory}/{entry.name}" if directory else entry.name
                found[path] = seen(witness, path)
                if entry.type == DT_DIR:
                    waiting.append(path)
    return found


def seen(witness: Witness, path: str) -> Seen:
    """One name of the witness's union."""
    observed = witness.observe(path)
    status = observed.status
    if status is None:
        return Seen(observed.error)
    rdev = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    data = observed.content if observed.target is None else observed.target
    return Seen(0, status.st_mode, status.st_uid, status.st_gid, rdev, data, tuple(sorted(observed.xattrs.items())))


def differences(got: Portrait, wanted: Portrait) -> str:
    """In words: the names in which the two differ."""
    words = []
    for path in sorted({*got, *wanted}):
        if got.get(path) != wanted.get(path):
            words.append(f"{path or os.curdir}: {got.get(path, 'missing')} instead of {wanted.get(path, 'missing')}")
    return "; ".join(words)
