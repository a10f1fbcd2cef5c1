# SPDX-License-Identifier: GPL-2.0-only
"""UUIDs: the overlay's own, and those of its layers, by which file handles of them are told apart."""

from __future__ import annotations

import os
from errno import ESTALE
from pathlib import Path
from typing import Final, NamedTuple

from datasets.layers import PRIVATE
from datasets.tree import IMMUTABLE, Directory, File
from tests.mounts.phrases import LAYERS, effective, prepared
from union import namecalls
from union.scenario import Group, Trial
from union.stand import Stand

UUID: Final = f"{PRIVATE}uuid"
IMPURE: Final = f"{PRIVATE}impure"
UUID_AT: Final = 5  # in an origin, behind version, magic, length, flags and type
SAME: Final = ("-O", "^has_journal", "-U", "12345678-1234-1234-1234-123456789abc")


def stored(stand: Stand) -> bytes | None:
    """The UUID in the upper's root, None if there is none."""
    path = stand.path("u")
    return os.getxattr(path, UUID) if UUID in os.listxattr(path) else None


def fsid(path: str) -> int:
    """What statfs(2) says of it."""
    return os.statvfs(path).f_fsid


NONE: Final = ("-O", "^has_journal", "-U", "clear")


class Mode(NamedTuple):
    """A value of uuid, whether the upper is impure or has a UUID before, and what follows."""

    label: str
    value: str
    before: tuple[str, ...]
    shown: str
    own: bool  # there is a UUID, and the fsid is the overlay's own


MODES: Final = (
    Mode("uuid=on for a new upper", "on", (), "on", True),
    Mode("uuid=on for an impure upper", "on", (IMPURE,), "on", True),
    Mode("uuid=on for an upper with a uuid", "on", (UUID,), "on", True),
    Mode("uuid=auto for a new upper", "auto", (), "on", True),
    Mode("uuid=auto for an impure upper", "auto", (IMPURE,), "null", False),
    Mode("uuid=auto for an upper with a uuid", "auto", (UUID,), "auto", True),
    Mode("uuid=auto for an impure upper with a uuid", "auto", (UUID, IMPURE), "auto", True),
    Mode("uuid=null for a new upper", "null", (), "null", False),
    Mode("uuid=off for a new upper", "off", (), "off", False),
)


def mode(row: Mode) -> Trial:
    """As documented: what is shown, whether a UUID is stored, kept, and told as the fsid."""

    def work(stand: Stand) -> None:
        prepared(stand)
        if IMPURE in row.before:
            os.setxattr(stand.path("u"), IMPURE, b"y")
        if UUID in row.before:
            os.setxattr(stand.path("u"), UUID, bytes(range(16)))
        at = stand.mount(f"{LAYERS},uuid={row.value}")
        effective(stand, "uuid", row.shown)
        stand.same("there is a uuid", stored(stand) is not None, row.own)
        stand.same("fsid of its own", fsid(at) != fsid(stand.path("u")), row.own)
        if UUID in row.before:
            stand.same("uuid", stored(stand), bytes(range(16)))
        before = fsid(at)
        stand.again(f"{LAYERS},uuid=auto")
        if row.own:
            stand.same("fsid after a remount", fsid(at), before)

    return Trial(row.label, work)


def unusable(stand: Stand) -> None:
    """A stored UUID of another size is not used and not replaced."""
    prepared(stand)
    os.setxattr(stand.path("u"), UUID, b"short")
    stand.warns("failed to get uuid", "falling back to uuid=null")
    at = stand.mount(f"{LAYERS},uuid=on")
    effective(stand, "uuid", "null")
    stand.same("stored", stored(stand), b"short")
    stand.same("fsid", fsid(at), fsid(stand.path("u")))


def not_stored(stand: Stand) -> None:
    """An upper whose root cannot be marked has no UUID of its own."""
    prepared(stand)
    namecalls.set_flags(stand.path("u"), IMMUTABLE)
    stand.undo(lambda: namecalls.set_flags(stand.path("u"), 0))
    stand.warns("failed to set uuid", "falling back to uuid=null")
    at = stand.mount(f"{LAYERS},uuid=on")
    effective(stand, "uuid", "null")
    stand.same("stored", stored(stand), None)
    stand.same("fsid", fsid(at), fsid(stand.path("u")))


def lower_only(stand: Stand) -> None:
    """Without an upper and a UUID the fsid is that of the topmost layer."""
    prepared(stand)
    stand.filesystem("t")
    at = stand.mount("lowerdir={t}:{l},uuid=null")
    stand.same("fsid", fsid(at), fsid(stand.path("t")))


class Twins(NamedTuple):
    """Two lowers with the same UUID: the options of the mount, what is shown, and whether it is told."""

    given: str
    shown: dict[str, str]
    told: bool = True


TWINS: Final = (
    Twins("xino=auto,index=off", {"xino": "off"}),
    Twins("xino=on,index=off", {"xino": "on"}, told=False),
    Twins("index=on", {"index": "off"}),
    Twins("nfs_export=on", {"index": "off", "nfs_export": "off"}),
)


def twins(stand: Stand) -> None:
    """File handles of lowers with the same UUID cannot be told apart, so what needs them is off."""
    stand.filesystem("a", "ext4", Directory({"f": File(b"a")}), SAME)
    stand.filesystem("b", "ext4", Directory({"f": File(b"b"), "g": File(b"of b")}), SAME)
    for number, row in enumerate(TWINS):
        stand.layers(**{f"u{number}": Directory(), f"w{number}": Directory()})
        if row.told:
            stand.warns("conflicting uuid ")
        at = stand.mount(f"lowerdir={{a}}:{{b}},upperdir={{u{number}}},workdir={{w{number}}},{row.given}", f"m{number}")
        for key, value in row.shown.items():
            effective(stand, key, value, f"m{number}", f"with {row.given}")
        Path(at, "g").write_bytes(b"changed")
        stand.same("contents", (Path(at, "f").read_bytes(), Path(at, "g").read_bytes()), (b"a", b"changed"))


def twins_exported(stand: Stand) -> None:
    """Nor can two lowers with the same UUID be exported without an upper."""
    stand.filesystem("a", "ext4", Directory({"f": File(b"a")}), SAME)
    stand.filesystem("b", "ext4", Directory({"f": File(b"b")}), SAME)
    stand.warns("conflicting uuid ")
    at = stand.mount("lowerdir={a}:{b},nfs_export=on,redirect_dir=nofollow")
    effective(stand, "nfs_export", "off")
    stand.same("content", Path(at, "f").read_bytes(), b"a")


def without_any(stand: Stand) -> None:
    """A lower without a UUID does for an index as long as it is the only one."""
    for name in "ab":
        stand.filesystem(name, "ext4", Directory({name: File(b"lower")}), NONE)
    prepared(stand)
    stand.mount("lowerdir={a},upperdir={u},workdir={w},index=on")
    effective(stand, "index", "on")
    stand.unmount()
    stand.layers(u2=Directory(), w2=Directory())
    stand.warns("null uuid ")
    stand.mount("lowerdir={a}:{b},upperdir={u2},workdir={w2},index=on")
    effective(stand, "index", "off")


def told_apart(stand: Stand) -> None:
    """With UUIDs of their own, all of it works."""
    stand.filesystem("a", "ext4", Directory({"f": File(b"a")}), SAME[:2])
    stand.filesystem("b", "ext4", Directory({"g": File(b"of b")}), SAME[:2])
    prepared(stand)
    at = stand.mount("lowerdir={a}:{b},upperdir={u},workdir={w},xino=on,nfs_export=on")
    for key, value in (("xino", "on"), ("index", "on"), ("nfs_export", "on")):
        effective(stand, key, value)
    before = os.stat(f"{at}/g").st_ino
    Path(at, "g").write_bytes(b"changed")
    stand.same("inode number", os.stat(f"{at}/g").st_ino, before)
    stand.holds("origin", f"{PRIVATE}origin" in os.listxattr(stand.path("u/g")))


def without(stand: Stand) -> None:
    """With uuid=off no UUID is kept of the lower, so that a copy of it with another one would do."""
    prepared(stand)
    options = f"{LAYERS},index=on,uuid=off"
    Path(stand.mount(options), "f").write_bytes(b"changed")
    origin = os.getxattr(stand.path("u/f"), f"{PRIVATE}origin")
    stand.same("uuid in the origin", origin[UUID_AT : UUID_AT + 16], bytes(16))
    stand.same("content", Path(stand.again(options), "f").read_bytes(), b"changed")
    stand.unmount()
    stand.warns("failed to verify upper root origin")
    stand.refuses(ESTALE, f"{LAYERS},index=on,uuid=null")


GROUPS = (
    Group(
        "uuids",
        "Mount with each mode of uuid, and with lowers of the same UUID.",
        trials=(
            *map(mode, MODES),
            Trial("a uuid of another size", unusable),
            Trial("a uuid that cannot be stored", not_stored),
            Trial("fsid of two lowers", lower_only),
            Trial("two lowers with the same uuid", twins),
            Trial("two lowers with the same uuid and no upper", twins_exported),
            Trial("lowers without a uuid", without_any),
            Trial("two lowers with uuids of their own", told_apart),
            Trial("no uuid in origins", without),
        ),
    ),
)
