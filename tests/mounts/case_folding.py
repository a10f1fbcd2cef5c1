# SPDX-License-Identifier: GPL-2.0-only
"""Layers whose directories ignore case: all of them must, in the same encoding, and the overlay does then.

There are directories only: Linux 7.2 finds nothing else in such layers (EREMOTE), since files do not have the flag.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, ENOENT, EREMOTE, ESTALE
from pathlib import Path
from typing import Final

from datasets.tree import Directory, File, write
from tests.mounts.phrases import prepared
from union import namecalls
from union.errors import SetupError
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt

FOLDED: Final = 0x40000000  # FS_CASEFOLD_FL
LAYERS: Final = "lowerdir={c/l},upperdir={c/u},workdir={c/w}"


def folding(stand: Stand, name: str, options: str = "casefold") -> None:
    """A tmpfs on which l, k, u and w ignore case, and p does not. Raises Missing."""
    try:
        stand.filesystem(name, options=options)
    except SetupError as error:
        raise Missing(f"no tmpfs that ignores case: {error}") from error
    for directory in "lkuwp":
        (stand.root / name / directory).mkdir()
        if directory != "p":
            namecalls.set_flags(stand.path(f"{name}/{directory}"), FOLDED)
    write(Directory({"Dir": Directory({"In": Directory({"Deep": Directory()})})}), stand.root / name / "l")
    below = Directory({"Below": Directory(), "in": Directory({"deeper": Directory()})})
    write(Directory({"dIR": below}), stand.root / name / "k")


def taken(stand: Stand) -> None:
    """Raises Missing unless the kernel takes such layers at all."""
    if attempt(stand.mount, LAYERS) == EINVAL:
        raise Missing("this kernel's overlay takes no layers that ignore case")


def folded(path: str) -> list[str]:
    """What is listed, in small letters: a name that is copied up gets the spelling by which it was looked up."""
    return sorted(name.lower() for name in os.listdir(path))


def names(stand: Stand) -> None:
    """Any spelling finds the directory, which is listed as it was made."""
    folding(stand, "c")
    taken(stand)
    at = stand.path("m")
    stand.same("names within", os.listdir(f"{at}/dIR/iN"), ["Deep"])
    stand.same("names", os.listdir(at), ["Dir"])
    stand.fails(EEXIST, os.mkdir, f"{at}/DIR")
    stand.fails(ENOENT, os.stat, f"{at}/dirt")
    os.chmod(f"{at}/DIR/IN", 0o700)
    stand.same("copied up", (folded(stand.path("c/u")), folded(stand.path("c/u/dir"))), (["dir"], ["in"]))


def merged(stand: Stand) -> None:
    """Layers are merged by names that differ in case, listed as the topmost has them."""
    folding(stand, "c")
    taken(stand)
    stand.unmount()
    at = stand.mount("lowerdir={c/l}:{c/k}")
    stand.same("names", os.listdir(at), ["Dir"])
    stand.same("names in the directory", sorted(os.listdir(f"{at}/DIR")), ["Below", "In"])
    stand.same("further below", sorted(os.listdir(f"{at}/DIR/IN")), ["Deep", "deeper"])


def made(stand: Stand) -> None:
    """A directory that is made ignores case too."""
    folding(stand, "c")
    taken(stand)
    at = stand.path("m")
    os.mkdir(f"{at}/New")
    os.mkdir(f"{at}/NEW/Sub")
    os.mkdir(f"{at}/dir/Sub")
    stand.same("names", folded(at), ["dir", "new"])
    stand.holds("found by another spelling", os.path.isdir(f"{at}/new/sUB") and os.path.isdir(f"{at}/DIR/suB"))
    os.rename(f"{at}/new/sub", f"{at}/DIR/Moved")
    os.rmdir(f"{at}/NEW")
    stand.same("names in the other", folded(f"{at}/dir"), ["in", "moved", "sub"])
    stand.same("names at last", folded(at), ["dir"])


MIXED: Final = (
    "lowerdir={c/l},upperdir={u},workdir={w}",
    "lowerdir={l},upperdir={c/u},workdir={c/w}",
    "lowerdir={c/l},upperdir={c/u},workdir={c/p}",
    "lowerdir={c/l},upperdir={c/p},workdir={c/w}",
    "lowerdir={c/l}:{c/p}",
    "lowerdir={c/p}:{c/l}",
)


def mixed(stand: Stand) -> None:
    """Directories that ignore case and such that do not are not stacked."""
    folding(stand, "c")
    prepared(stand)
    taken(stand)
    stand.unmount()
    for options in MIXED:
        stand.refuses(EINVAL, options, says="is inconsistent")


def on_the_same(stand: Stand) -> None:
    """Directories that do not ignore case, of a filesystem that could."""
    folding(stand, "c")
    for name in ("u", "w"):
        (stand.root / f"c/p{name}").mkdir()
    write(Directory({"File": File(b"lower")}), stand.root / "c/p")
    options = "lowerdir={c/p},upperdir={c/pu},workdir={c/pw}"
    if attempt(stand.mount, options) == EINVAL:
        raise Missing("this kernel's overlay takes no filesystem that could ignore case")
    stand.fails(ENOENT, os.stat, stand.path("m/file"))
    stand.same("content", Path(stand.path("m/File")).read_bytes(), b"lower")


def strict(stand: Stand) -> None:
    """A filesystem that refuses names which are no text is no layer."""
    folding(stand, "c")
    folding(stand, "s", "casefold,strict_encoding")
    taken(stand)
    stand.unmount()
    for options in (LAYERS.replace("{c/", "{s/"), "lowerdir={s/l}:{s/k}"):
        stand.refuses(EINVAL, options, says="strict encoding not supported")


def other_version(stand: Stand) -> None:
    """Layers of another version of Unicode are not stacked."""
    folding(stand, "c")
    folding(stand, "o", "casefold=utf8-11.0.0")
    taken(stand)
    stand.unmount()
    for options in ("lowerdir={o/l},upperdir={c/u},workdir={c/w}", "lowerdir={c/l}:{o/l}", "lowerdir={o/l}:{c/l}"):
        stand.refuses(EINVAL, options, says="all layers must have the same encoding")


def two_alike(stand: Stand) -> None:
    """Two filesystems with the same encoding are."""
    folding(stand, "c")
    folding(stand, "o")
    taken(stand)
    stand.unmount()
    at = stand.mount("lowerdir={o/k},upperdir={c/u},workdir={c/w}")
    stand.same("names", sorted(os.listdir(f"{at}/DIR")), ["Below", "in"])


def changed_below(stand: Stand) -> None:
    """Directories of a layer that do not ignore case, or do no more, are not shown and not worked in."""
    folding(stand, "c")
    (stand.root / "c/l/Plain").mkdir()
    namecalls.set_flags(stand.path("c/l/Plain"), 0)
    taken(stand)
    stand.warns("child wrong casefold", "wrong inherited casefold", "parent wrong casefold")
    stand.fails(EREMOTE, os.stat, stand.path("m/Plain"))
    namecalls.set_flags(stand.path("c/w/work"), 0)
    stand.fails(EINVAL, os.chmod, stand.path("m/Dir"), 0o700)
    namecalls.set_flags(stand.path("c/u"), 0)
    stand.fails(ESTALE, os.stat, stand.path("m/other"))


GROUPS = (
    Group(
        "case-folding",
        "Mount with layers that ignore case.",
        trials=(
            Trial("names in any spelling", names),
            Trial("layers merged by name", merged),
            Trial("a directory that is made", made),
            Trial("layers that do not all ignore case", mixed),
            Trial("plain directories beside", on_the_same),
            Trial("directories that do not ignore case any more", changed_below),
            Trial("strict encoding", strict),
            Trial("another version of unicode", other_version),
            Trial("two filesystems alike", two_alike),
        ),
    ),
)
