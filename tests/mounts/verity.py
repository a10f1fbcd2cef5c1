# SPDX-License-Identifier: GPL-2.0-only
"""fs-verity (verity=on, verity=require): data must have the digest that its metadata asks for.

See "fs-verity support" in overlayfs.rst: what does not match is EIO when it is opened, and stat(2) needs no data.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets.layers import METACOPY
from datasets.tree import Directory, File
from tests.mounts.marked import hollow, layers, open_for_writing, read, xattr
from union import filecalls, syscalls
from union.marks import digest_mark, enable_verity, measure_verity
from union.scenario import Group, Trial
from union.stand import Missing, Stand

TEXT: Final = b"measured content"
MODES: Final = ("off", "on", "require")
FEATURE: Final = Path("/sys/fs/ext4/features/verity")


def with_verity(stand: Stand, *names: str, **files: File) -> None:
    """An ext4 on v that holds these files; those of `names` get fs-verity. Raises Missing where there is none."""
    if not syscalls.knows_filesystem("ext4") or not FEATURE.exists():
        raise Missing("the kernel's ext4 has no fs-verity")
    stand.filesystem("v", "ext4", Directory(files), features=("-O", "verity", "-b", "4096"))
    for name in names:
        enable_verity(stand.path(f"v/{name}"))


def forget(stand: Stand) -> None:
    """Nothing of v is in memory any more: the overlay itself must have the digests loaded."""
    fd = os.open(stand.path("v"), os.O_RDONLY)
    try:
        filecalls.syncfs(fd)
    finally:
        os.close(fd)
    syscalls.drop_caches()


@dataclass(frozen=True, slots=True)
class Case:
    """A copy of metadata with this mark, over data with fs-verity or not: the errno of opening it, by mode."""

    name: str
    mark: bytes
    measured: bool
    numbers: tuple[int, int, int]


def cases(digest: bytes) -> tuple[Case, ...]:
    """All of them, given the digest of the data."""
    fine, wanted, wrong = (0, 0, 0), (0, 0, errno.EIO), (0, errno.EIO, errno.EIO)
    return (
        Case("right", digest_mark(digest), True, fine),
        Case("none-asked", b"", True, wanted),
        Case("none-asked-none-there", b"", False, wanted),
        Case("none-there", digest_mark(digest), False, wrong),
        Case("another-digest", digest_mark(bytes(len(digest))), True, wrong),
        Case("another-algorithm", digest_mark(digest, algorithm=2), True, wrong),
        Case("no-algorithm", digest_mark(digest, algorithm=0), True, wanted),
        Case("shorter", digest_mark(digest[:16]), True, wrong),
        Case("newer-version", digest_mark(digest, version=1), True, wrong),
        Case("length-does-not-match", digest_mark(digest, more=1), True, wrong),
    )


def opens(mode: str) -> Trial:
    """What can be opened of data-only files with this mode, cold and once more."""

    def work(stand: Stand) -> None:
        with_verity(stand, "measured", measured=File(TEXT), unmeasured=File(TEXT))
        table = cases(measure_verity(stand.path("v/measured")))
        marked = {
            case.name: hollow(len(TEXT), b"/measured" if case.measured else b"/unmeasured", case.mark) for case in table
        }
        layers(stand, l=Directory({**marked, "plain": File(TEXT)}))
        forget(stand)
        at = stand.mount(f"lowerdir={{l}}::{{v}},metacopy=on,verity={mode}")
        for case in table:
            stand.same(f"size of {case.name}", os.stat(f"{at}/{case.name}").st_size, len(TEXT))
            for _ in range(2):
                stand.fails(case.numbers[MODES.index(mode)], read, f"{at}/{case.name}")
        for name in ("right", "plain"):
            stand.same(f"content of {name}", read(f"{at}/{name}"), TEXT)

    return Trial(f"data that verity={mode} lets open", work)


WRITABLE: Final = "lowerdir={v},upperdir={u},workdir={w},redirect_dir=on,metacopy=on,verity="


def copied(mode: str) -> Trial:
    """A copy of metadata asks for the digest of its data; where one must be and is not, the data is copied too."""

    def work(stand: Stand) -> None:
        with_verity(stand, "measured", measured=File(TEXT), unmeasured=File(TEXT))
        layers(stand)
        digest = measure_verity(stand.path("v/measured"))
        forget(stand)
        at = stand.mount(WRITABLE + mode)
        for name in ("measured", "unmeasured"):
            os.chmod(f"{at}/{name}", 0o600)
            stand.same(f"content of {name}", read(f"{at}/{name}"), TEXT)
        marks = [xattr(stand.path(f"u/{name}"), METACOPY) for name in ("measured", "unmeasured")]
        stand.same("marks", marks, [b"" if mode == "off" else digest_mark(digest), None if mode == "require" else b""])
        stand.again(WRITABLE + mode)
        stand.same("content when mounted again", read(f"{at}/measured"), TEXT)
        open_for_writing(f"{at}/measured")
        stand.same("content in upper", read(stand.path("u/measured")), TEXT)
        stand.same("mark in the end", xattr(stand.path("u/measured"), METACOPY), None)

    return Trial(f"copies of metadata with verity={mode}", work)


def replaced(stand: Stand) -> None:
    """Lower data that was replaced, by other content or by the same without fs-verity, cannot be opened."""
    with_verity(stand, "a", "b", a=File(TEXT), b=File(TEXT))
    layers(stand)
    at = stand.mount(WRITABLE + "on")
    for name in ("a", "b"):
        os.chmod(f"{at}/{name}", 0o600)
    stand.unmount()
    for name, text in (("a", TEXT.upper()), ("b", TEXT)):
        os.unlink(stand.path(f"v/{name}"))
        Path(stand.path(f"v/{name}")).write_bytes(text)
    enable_verity(stand.path("v/a"))
    stand.mount(WRITABLE + "on")
    for name in ("a", "b"):
        stand.same(f"mode of {name}", os.stat(f"{at}/{name}").st_mode & 0o777, 0o600)
        stand.fails(errno.EIO, read, f"{at}/{name}")
        stand.fails(errno.EIO, open_for_writing, f"{at}/{name}")
    stand.again(WRITABLE + "off")
    stand.same("content with verity=off", read(f"{at}/a"), TEXT.upper())


def mark_changes(stand: Stand) -> None:
    """A digest that its metadata asked for when it was looked up, and does not ask for when it is opened."""
    with_verity(stand, "measured", measured=File(TEXT))
    right = digest_mark(measure_verity(stand.path("v/measured")))
    for mode, number in (("on", 0), ("require", errno.EIO)):
        stand.layers(**{mode: Directory({"f": hollow(len(TEXT), b"/measured", right)})})
        at = stand.mount(f"lowerdir={{{mode}}}::{{v}},metacopy=on,verity={mode}", f"m-{mode}")
        os.stat(f"{at}/f")
        os.setxattr(stand.path(f"{mode}/f"), METACOPY, b"")
        stand.fails(number, read, f"{at}/f")


GROUPS = (
    Group(
        "verity",
        "Data that must have the digest of its metadata.",
        trials=(
            *map(opens, MODES),
            *map(copied, MODES),
            Trial("data that was replaced", replaced),
            Trial("a mark that changes", mark_changes),
        ),
    ),
)
