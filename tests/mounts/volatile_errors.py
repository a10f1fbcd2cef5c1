# SPDX-License-Identifier: GPL-2.0-only
"""Volatile overlays over an upper that failed to write something: a sync must not pretend that all is well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path

from datasets.tree import Directory, File
from union import filecalls, syscalls
from union.scenario import Group, Trial
from union.stand import Stand
from union.syscalls import MS_REMOUNT

UPPER = "lowerdir={l},upperdir={x/u},workdir={x/w}"
LOST = (EIO, ENOSPC)  # what the loop device says when its image cannot grow
DATA = bytes(range(256)) * 8192
TREE = Directory({"u": Directory(), "w": Directory(), "other": File()})


def synced(path: str) -> None:
    """syncfs(2)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        filecalls.syncfs(fd)
    finally:
        os.close(fd)


def written(path: str) -> None:
    """Write it, and fsync(2)."""
    with open(path, "wb", buffering=0) as file:
        file.write(DATA)
        os.fsync(file)


def upper(stand: Stand) -> str:
    """A filesystem x for the upper, on an image, with a lower l; its path."""
    stand.layers(l=Directory({"f": File(b"lower")}))
    return str(stand.filesystem("x", "ext4", TREE, features=("-O", "^has_journal")).root)


@contextmanager
def full(stand: Stand) -> Iterator[None]:
    """While the image cannot grow, so that the filesystem on it cannot write new blocks."""
    space = os.statvfs(stand.root)
    used = (space.f_blocks - space.f_bfree) * space.f_frsize
    syscalls.mount("none", stand.root, None, MS_REMOUNT, f"size={used}")
    try:
        yield
    finally:
        syscalls.mount("none", stand.root, None, MS_REMOUNT, f"size={space.f_blocks * space.f_frsize}")


def never_well_again(stand: Stand) -> None:
    """When the upper fails, each sync of the overlay says so from then on, also when the upper is well again."""
    path = upper(stand)
    fd = os.open(f"{stand.mount(f'{UPPER},volatile')}/f", os.O_RDWR)
    os.write(fd, DATA)
    stand.fails(0, os.fsync, fd)
    stand.fails(0, filecalls.syncfs, fd)
    with full(stand):
        stand.fails(LOST, synced, path)
    stand.fails(0, synced, path)
    for _ in range(2):
        stand.fails(LOST, os.fsync, fd)
        stand.fails(EIO, filecalls.syncfs, fd)
    os.close(fd)
    stand.fails(LOST, written, stand.path("m/new"))


def not_to_begin_with(stand: Stand) -> None:
    """While an error of the upper has been told to nobody a volatile mount is refused: it could never be told."""
    path = upper(stand)
    with full(stand):
        stand.fails(LOST, written, f"{path}/other")
    says = "Cannot mount volatile when upperdir has an unseen error. Sync upperdir fs to clear state."
    stand.refuses(EIO, f"{UPPER},volatile", says=says)
    stand.fails(LOST, synced, path)
    at = stand.mount(f"{UPPER},volatile")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.fails(0, written, f"{at}/f")


GROUPS = (
    Group(
        "volatile-errors",
        "Sync and mount volatile overlays whose upper failed to write.",
        trials=(
            Trial("an upper that fails later", never_well_again),
            Trial("an upper that has failed before", not_to_begin_with),
        ),
    ),
)
