# SPDX-License-Identifier: GPL-2.0-only
"""Overlays of the root of a user namespace, who may not use trusted xattrs, and whose rights an overlay has."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from errno import EINVAL, EIO, EPERM
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets.tree import Directory, File
from tests.mounts.phrases import LAYERS, LOWERS, default, needs_option
from union import mountinfo, syscalls
from union.elsewhere import NoNamespace, as_root_of_a_namespace
from union.kernellog import in_guest
from union.scenario import Group, Trial
from union.stand import Missing, Stand, attempt, errno_name
from union.syscalls import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, FsContext, without_capabilities


def layers(stand: Stand) -> None:
    """The usual layers, and a directory to rename."""
    stand.layers(
        l=Directory({"f": File(b"lower"), "d": Directory({"in": File()})}), k=Directory(), u=Directory(), w=Directory()
    )
    (stand.root / "m").mkdir()


def inside(work: Callable[[], Any]) -> Any:
    """The result of the work as root of a user namespace; Missing if there can be none."""
    try:
        return as_root_of_a_namespace(work)
    except NoNamespace as reason:
        raise Missing(f"no user namespace: {reason}") from reason


class Row(NamedTuple):
    """Options, the errno of the mount, and what is shown after it. `needs` is what not every kernel has."""

    given: str
    errno: int = 0
    wanted: tuple[tuple[str, str | None], ...] = ()
    layers: str = LAYERS
    says: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None


TRUSTED: Final = "requires permission to access trusted xattrs"
ROWS: Final = (
    Row("userxattr", wanted=(("userxattr", ""), ("redirect_dir", "nofollow"))),
    Row("userxattr,redirect_dir=nofollow", wanted=(("redirect_dir", "nofollow"),)),
    Row("userxattr,index=on", wanted=(("index", "off"),), says=("does not support file handles, falling back to",)),
    Row("userxattr,volatile"),
    Row("userxattr,redirect_dir=on", EINVAL, says=("conflicting options: userxattr,redirect_dir=on",)),
    Row("userxattr,metacopy=on", EINVAL, says=("conflicting options: userxattr,metacopy=on",)),
    Row("redirect_dir=on", EPERM, says=(f"redirect_dir {TRUSTED}",)),
    Row("redirect_dir=follow", EPERM, says=(f"redirect_dir {TRUSTED}",)),
    Row("metacopy=on", EPERM, says=(f"metacopy {TRUSTED}",)),
    Row("verity=on", EPERM, needs=("verity", "on"), says=(f"verity {TRUSTED}",)),
    Row("redirect_dir=on", EPERM, layers=LOWERS, says=(f"redirect_dir {TRUSTED}",)),
    Row("default_permissions", EPERM, layers="lowerdir={l}::{k}", says=("lower data-only dirs require permission",)),
    Row("redirect_dir=nofollow", layers=LOWERS, wanted=(("redirect_dir", "nofollow"),)),
)


def mounted(stand: Stand, options: str) -> tuple[int, dict[str, str], int]:
    """In the namespace: the errno of the mount, what it shows, and the errno of changing a file in it."""
    got = attempt(syscalls.mount, "overlay", stand.path("m"), "overlay", 0, stand.spell(options))
    if got:
        return got, {}, 0
    found = mountinfo.find(syscalls.mount_id(stand.path("m")))
    write = attempt(Path(stand.path("m/f")).write_bytes, b"changed")
    return 0, dict(found.options) if found else {}, write


def with_options(row: Row) -> Trial:
    """Mounted, or refused, by the root of a user namespace."""

    def work(stand: Stand) -> None:
        if row.needs:
            needs_option(*row.needs)
        layers(stand)
        stand.warns(*row.says)
        number, shown, write = inside(lambda: mounted(stand, f"{row.layers},{row.given}"))
        stand.same(f"mount with {row.given}", errno_name(number), errno_name(row.errno))
        for key, value in row.wanted:
            stand.same(f"{key} with {row.given}", shown.get(key), None if value == default(key) else value)
        if not number and row.layers == LAYERS:
            stand.same("write", errno_name(write), "success")
            stand.same("upper", Path(stand.path("u/f")).read_bytes(), b"changed")

    where = {LAYERS: "with an upper", LOWERS: "of two lowers"}.get(row.layers, "with a layer of data")
    return Trial(f"{row.given} {where}", work)


def private_xattrs(stand: Stand) -> None:
    """With userxattr the overlay keeps its marks where the user may, and hides them."""
    layers(stand)

    def work() -> tuple[list[str], list[str]]:
        syscalls.mount("overlay", stand.path("m"), "overlay", 0, stand.spell(f"{LAYERS},userxattr"))
        os.unlink(stand.path("m/d/in"))
        os.rmdir(stand.path("m/d"))
        os.mkdir(stand.path("m/d"))
        return os.listdir(stand.path("m/d")), os.listxattr(stand.path("m/d"))

    stand.same("names and xattrs", inside(work), ([], []))
    stand.same("opaque", os.getxattr(stand.path("u/d"), "user.overlay.opaque"), b"y")


def without_userxattr(stand: Stand) -> None:
    """Without userxattr there are no marks at all, and the kernel tells what to try."""
    layers(stand)
    stand.warns("failed to set xattr on upper", "try mounting with 'userxattr' option", "falling back to uuid=null")
    number, shown, write = inside(lambda: mounted(stand, f"{LAYERS},redirect_dir=nofollow"))
    stand.same("mount and write", (errno_name(number), errno_name(write)), ("success", "success"))
    stand.same("uuid", shown.get("uuid"), "null")


def nofollow_without_userxattr(stand: Stand) -> None:
    """Without marks there is no detaching."""
    needs_option("xino", "nofollow")
    layers(stand)
    stand.warns(
        "failed to set xattr on upper", "falling back to uuid=null",
        "try mounting with 'userxattr' option", "xino=nofollow requires xattr support on upper fs.",
    )  # fmt: skip
    number, _, _ = inside(lambda: mounted(stand, f"{LAYERS},redirect_dir=nofollow,xino=nofollow"))
    stand.same("mount", errno_name(number), "EINVAL")


def context_from_there(stand: Stand, then: Callable[[FsContext], None]) -> None:
    """Do this with a filesystem context that was opened in a user namespace."""
    ours, theirs = socket.socketpair()

    def work() -> None:
        with FsContext("overlay") as context:
            for key, value in (("lowerdir", "{l}"), ("upperdir", "{u}"), ("workdir", "{w}"), ("userxattr", "")):
                context.set(key, stand.spell(value))
            socket.send_fds(theirs, [b"c"], [context.fileno()])

    with ours, theirs:
        inside(work)
        with FsContext.received("overlay", socket.recv_fds(ours, 1, 1)[1][0]) as context:
            then(context)


def created_elsewhere(stand: Stand) -> None:
    """A context is of no use to who is not in the user namespace that it was opened in."""
    if not in_guest():
        raise Missing("some kernels, 6.18 for one, warn about it, and that taints them: done in a guest")
    layers(stand)
    context_from_there(stand, lambda context: stand.fails((EINVAL, EIO), context.create))  # EIO: older kernels


def credentials_elsewhere(stand: Stand) -> None:
    """Nor can the rights of somebody outside be given to it; to take them away is allowed."""
    needs_option("override_creds")
    layers(stand)

    def work(context: FsContext) -> None:
        stand.fails(EINVAL, context.set, "override_creds")
        stand.fails(0, context.set, "nooverride_creds")

    context_from_there(stand, work)


def rights(options: Sequence[str], wanted: str) -> Trial:
    """Whether the overlay may look into a lower directory of another user: with the rights it was told to have."""

    def work(stand: Stand) -> None:
        needs_option("override_creds")
        stand.layers(l=Directory({"d": Directory({"f": File(b"secret")}, mode=0o700, uid=7)}), k=Directory())
        with FsContext("overlay") as context:
            context.set("lowerdir", stand.spell("{l}:{k}"))

            def give() -> None:
                for option in options:
                    context.set(option)

            with without_capabilities(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
                give()
            stand.attach(context)
        stand.same("listing", errno_name(attempt(os.listdir, stand.path("m/d"))), wanted)

    return Trial(f"rights after {' and '.join(options) or 'nothing'}", work)


GROUPS = (
    Group(
        "user-namespaces",
        "Mount as root of a user namespace, and with a context from one.",
        trials=(
            *map(with_options, ROWS),
            Trial("marks with userxattr", private_xattrs),
            Trial("no marks without userxattr", without_userxattr),
            Trial("xino=nofollow without userxattr", nofollow_without_userxattr),
            Trial("a context of another namespace", created_elsewhere),
            rights((), "success"),
            rights(("override_creds",), "EACCES"),
            rights(("override_creds", "nooverride_creds"), "success"),
            Trial("rights for a context of another namespace", credentials_elsewhere),
        ),
    ),
)
