# SPDX-License-Identifier: GPL-2.0-only
"""Data-only lower layers: what gives files their data by absolute redirect, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from datasets.layers import METACOPY, REDIRECT
from datasets.tree import Directory, File, Node, Special, Symlink, Whiteout
from tests.mounts.marked import hollow, layers, names, open_for_writing, read, xattr
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt

DATA: Final = b"content of a data layer"
AT: Final = b"/pool/blob"
READ_ONLY: Final = "lowerdir={l}::{d}::{e},metacopy=on"
WRITABLE: Final = f"{READ_ONLY},redirect_dir=on,upperdir={{u}},workdir={{w}}"


def pool(blob: Node | None, name: str = "blob") -> Directory:
    """A data layer with this at /pool/blob."""
    return Directory({"pool": Directory({} if blob is None else {name: blob})})


def prepared(stand: Stand, d: Directory | None = None, e: Directory | None = None, redirect: bytes | None = AT) -> None:
    """The layers l with /f, whose data is at `redirect`, the data layers d and e, u and w."""
    lower = Directory({"f": replace(hollow(len(DATA), redirect, mode=0o604), uid=3), "plain": File(b"plain")})
    layers(stand, l=lower, d=d or pool(File(DATA)), e=e or Directory())


def composed(stand: Stand) -> None:
    lower = stand.path("l")
    os.setxattr(f"{lower}/f", "user.lower", b"1")
    prepared_data = stand.path("d/pool/blob")
    os.setxattr(prepared_data, "user.data", b"1")
    os.chmod(prepared_data, 0o400)
    at = stand.mount(READ_ONLY)
    found = os.stat(f"{at}/f")
    stand.same("mode, owner and size", (found.st_mode & 0o7777, found.st_uid, found.st_size), (0o604, 3, len(DATA)))
    stand.same("content", read(f"{at}/f"), DATA)
    stand.same("xattrs", os.listxattr(f"{at}/f"), ["user.lower"])
    stand.same("inode number", found.st_ino, os.stat(f"{lower}/f").st_ino)


def invisible(stand: Stand) -> None:
    at = stand.mount(READ_ONLY)
    stand.same("listing", names(at), {"f", "plain"})
    stand.fails(errno.ENOENT, os.stat, f"{at}/pool")
    stand.same("plain file", read(f"{at}/plain"), b"plain")


def space_used(stand: Stand) -> None:
    """stat(2) looks for no data, see ovl_getattr(): it guesses until the file is opened."""
    size = 100_000
    os.truncate(stand.path("l/f"), size)
    at = stand.mount(READ_ONLY)
    block = os.stat(f"{at}/f").st_blksize
    stand.same("blocks before the data is found", os.stat(f"{at}/f").st_blocks, -(-size // block) * block // 512)
    fd = os.open(f"{at}/f", os.O_RDONLY)
    try:
        blocks = os.stat(stand.path("d/pool/blob")).st_blocks
        stand.same("blocks when it is open", os.fstat(fd).st_blocks, blocks)
    finally:
        os.close(fd)


def written(stand: Stand) -> None:
    at = stand.mount(WRITABLE)
    with open(f"{at}/f", "r+b") as file:
        file.write(b"C")
    stand.same("content", read(f"{at}/f"), b"C" + DATA[1:])
    stand.same("content in upper", read(stand.path("u/f")), b"C" + DATA[1:])
    stand.same("metacopy mark in upper", xattr(stand.path("u/f"), METACOPY), None)
    stand.same("the data layer", read(stand.path("d/pool/blob")), DATA)


def copied_metadata(stand: Stand) -> None:
    at = stand.mount(WRITABLE)
    os.chmod(f"{at}/f", 0o640)
    upper = stand.path("u/f")
    stand.same("metacopy mark in upper", xattr(upper, METACOPY), b"")
    stand.same("no data in upper", os.stat(upper).st_blocks, 0)
    stand.same("content", read(f"{at}/f"), DATA)
    stand.again(WRITABLE)
    stand.same("content when mounted again", read(f"{at}/f"), DATA)
    stand.same("mode when mounted again", stat.S_IMODE(os.stat(f"{at}/f").st_mode), 0o640)
    open_for_writing(f"{at}/f")
    stand.same("content in upper", read(upper), DATA)


def renamed(stand: Stand) -> None:
    at = stand.mount(WRITABLE)
    os.mkdir(f"{at}/dir")
    os.rename(f"{at}/f", f"{at}/dir/g")
    os.link(f"{at}/dir/g", f"{at}/h")
    for _ in range(2):
        for name in ("dir/g", "h"):
            stand.same(f"content of {name}", read(f"{at}/{name}"), DATA)
        stand.fails(errno.ENOENT, os.stat, f"{at}/f")
        stand.again(WRITABLE)


def data_is_missing(stand: Stand) -> None:
    """Every change needs the data first; what looks at metadata alone does not."""
    os.unlink(stand.path("d/pool/blob"))
    at = stand.mount(WRITABLE)
    file = f"{at}/f"
    stand.same("size", os.stat(file).st_size, len(DATA))
    stand.same("xattrs", os.listxattr(file), [])
    os.mkdir(f"{at}/pure")
    for call, *arguments in (
        (open_for_writing, file),
        (os.truncate, file, 3),
        (os.chmod, file, 0o600),
        (os.chown, file, 1, 1),
        (os.setxattr, file, "user.any", b"1"),
        (os.utime, file, (1, 1)),
        (os.rename, file, f"{at}/pure/g"),
        (os.link, file, f"{at}/pure/g"),
    ):
        stand.fails(errno.ENOENT, call, *arguments)
    stand.fails(0, os.rename, f"{at}/plain", file)
    stand.same("upper", names(stand.path("u")), {"f", "pure", "plain"})


def data_comes_back(stand: Stand) -> None:
    """What was not found is looked for again: nothing negative is kept."""
    away, blob = stand.path("away"), stand.path("d/pool/blob")
    os.rename(blob, away)
    at = stand.mount(READ_ONLY)
    stand.fails(errno.ENOENT, read, f"{at}/f")
    os.rename(away, blob)
    stand.same("content", read(f"{at}/f"), DATA)


def hollow_upper(stand: Stand) -> None:
    """A file needs metadata of a lower layer: what is in upper alone leads to no data layer."""
    path = stand.path("u/g")
    with open(path, "wb") as file:
        file.truncate(len(DATA))
    os.setxattr(path, METACOPY, b"")
    os.setxattr(path, REDIRECT, AT)
    at = stand.mount(WRITABLE)
    stand.fails(errno.EIO, os.stat, f"{at}/g")


def by_options(stand: Stand) -> None:
    pairs = (("lowerdir+", "{l}"), ("datadir+", "{d}"), ("datadir+", "{e}"), ("metacopy", "on"))
    at = stand.configure(*pairs)
    stand.same("content", read(f"{at}/f"), DATA)
    stand.same("listing", names(at), {"f", "plain"})


def without_metacopy(stand: Stand) -> None:
    """Since Linux 6.16 a data-only layer is enough; every other copy of metadata is refused then."""
    layers(
        stand,
        l=Directory({"plain": hollow(5), "moved": hollow(5, b"plain")}),
        k=Directory({"plain": File(b"plain"), "f": hollow(len(DATA), AT)}),
        d=pool(File(DATA)),
    )
    options = "lowerdir={l}:{k}::{d},metacopy=off"
    if attempt(stand.mount, options) == errno.EINVAL:
        raise Missing("data-only layers need metacopy=on before Linux 6.16")
    at = stand.path("m")
    stand.same("content", read(f"{at}/f"), DATA)
    stand.fails(errno.EPERM, os.stat, f"{at}/plain")
    stand.fails(errno.EPERM, os.stat, f"{at}/moved")


def several_copies(stand: Stand) -> None:
    """Metadata over metadata over data: the redirect of the lower one counts."""
    layers(
        stand,
        k=Directory({"f": hollow(len(DATA), mode=0o600), "g": hollow(len(DATA), b"/f", mode=0o606)}),
        l=Directory({"f": hollow(len(DATA), AT, mode=0o640)}),
        d=pool(File(DATA)),
    )
    at = stand.mount("lowerdir={k}:{l}::{d},metacopy=on")
    for name, mode in (("f", 0o600), ("g", 0o606)):
        stand.same(f"content of {name}", read(f"{at}/{name}"), DATA)
        stand.same(f"mode of {name}", stat.S_IMODE(os.stat(f"{at}/{name}").st_mode), mode)


def user_marks(stand: Stand) -> None:
    """With userxattr the marks are user.overlay.*; data-only layers need no privilege then."""
    marks = {"user.overlay.metacopy": b"", "user.overlay.redirect": AT}
    layers(stand, l=Directory({"f": File(bytes(len(DATA)), xattrs=marks)}), d=pool(File(DATA)))
    options = "lowerdir={l}::{d},userxattr"
    if attempt(stand.mount, options) == errno.EINVAL:
        raise Missing("data-only layers need metacopy=on, which excludes userxattr, before Linux 6.16")
    at = stand.path("m")
    stand.same("content", read(f"{at}/f"), DATA)
    stand.same("xattrs", os.listxattr(f"{at}/f"), [])


def found(label: str, d: Directory, e: Directory, wanted: bytes | int, redirect: bytes = AT) -> Trial:
    """What the data layers d and e, in this order, make of `redirect`: content, or the errno of opening."""

    def work(stand: Stand) -> None:
        prepared(stand, d, e, redirect)
        at = stand.mount(READ_ONLY)
        stand.same("size", os.stat(f"{at}/f").st_size, len(DATA))
        if isinstance(wanted, int):
            stand.fails(wanted, read, f"{at}/f")
        else:
            stand.same("content", read(f"{at}/f"), wanted)

    return Trial(label, work)


def unfound(label: str, redirect: bytes | None, number: int) -> Trial:
    """A mark that leads to no data layer: the name itself cannot be looked up."""

    def work(stand: Stand) -> None:
        prepared(stand, pool(File(DATA), "f"), redirect=redirect)
        at = stand.mount(READ_ONLY)
        stand.fails(number, os.stat, f"{at}/f")
        stand.same("plain file", read(f"{at}/plain"), b"plain")

    return Trial(label, work)


def trial(label: str, work: Callable[[Stand], None]) -> Trial:
    """On the layers of `prepared`."""

    def prepare_and_work(stand: Stand) -> None:
        prepared(stand)
        work(stand)

    return Trial(label, prepare_and_work, work.__code__.co_firstlineno)


GOOD, OTHER, NONE = pool(File(DATA)), pool(File(DATA.upper())), Directory()
FOUND = (
    found("the first data layer that has the file gives it", GOOD, OTHER, DATA),
    found("a data layer without the directory is passed over", NONE, GOOD, DATA),
    found("a data layer without the file is passed over", pool(None), GOOD, DATA),
    found("a directory is no data", pool(Directory()), GOOD, DATA),
    found("a symlink is no data", pool(Symlink("/pool/other")), GOOD, DATA),
    found("a whiteout in a data layer hides nothing", pool(Whiteout()), GOOD, DATA),
    found("a file where the redirect has a directory", Directory({"pool": File(b"")}), GOOD, DATA),
    found("no data layer has the file", NONE, pool(None), errno.ENOENT),
    found("there is only a directory", NONE, pool(Directory()), errno.ENOENT),
    found("there is only a fifo", NONE, pool(Special(stat.S_IFIFO)), errno.ENOENT),
    found("there is only a symlink", NONE, pool(Symlink("blob2")), errno.ENOENT),
    found("a symlink on the way", NONE, Directory({"p": GOOD.entries["pool"], "pool": Symlink("p")}), errno.ELOOP),
    found("a redirect out of the layer", GOOD, GOOD, errno.EXDEV, b"/../d/pool/blob"),
    found("a mark in a data layer is not followed", pool(hollow(len(DATA))), NONE, bytes(len(DATA))),
)
UNFOUND = (
    unfound("a copy of metadata without redirect", None, errno.EIO),
    unfound("a relative redirect", b"blob", errno.EIO),
    unfound("an empty redirect", b"", errno.EINVAL),
    unfound("a redirect with an empty name in it", b"/pool//blob", errno.EINVAL),
    unfound("a redirect that ends with a slash", b"/pool/", errno.EINVAL),
)

GROUPS = (
    Group(
        "data-layers",
        "Files whose data is in a data-only layer.",
        trials=(
            trial("metadata of the lower, data of the data layer", composed),
            trial("names of a data layer are not shown", invisible),
            trial("blocks are guessed until the data is found", space_used),
            trial("writing copies the data up", written),
            trial("chmod copies metadata up, and the redirect", copied_metadata),
            trial("renamed and linked", renamed),
            trial("without its data a file is not copied up", data_is_missing),
            trial("data that comes back is found", data_comes_back),
            trial("an upper copy of metadata leads to no data layer", hollow_upper),
            trial("layers by lowerdir+ and datadir+", by_options),
            Trial("no metacopy=on is needed", without_metacopy),
            Trial("metadata in two layers", several_copies),
            Trial("marks of userxattr", user_marks),
        ),
    ),
    Group("data-redirects", "What a redirect into data-only layers finds.", trials=(*FOUND, *UNFOUND)),
)
