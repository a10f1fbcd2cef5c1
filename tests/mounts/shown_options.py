# SPDX-License-Identifier: GPL-2.0-only
"""Mount options that are taken: what the kernel shows of them afterwards, given by mount(2) and by fsopen(2)."""

from __future__ import annotations

from typing import Final, NamedTuple

from datasets.tree import Directory
from tests.mounts.phrases import LAYERS, LOWERS, default, effective, needs_option, pairs, prepared
from union.effective import parameter
from union.scenario import Group, Trial
from union.stand import Stand


class Row(NamedTuple):
    """Options, and what is in effect of which ones. `needs` is the one that not every kernel has, `says` is logged."""

    given: str
    wanted: dict[str, str | None]
    needs: tuple[str, str] | None = None
    says: str = ""


OFF: Final = "follow or nofollow"  # what redirect_dir=off means is a parameter of the module
DEFAULT: Final = "the default"

ONE_FILESYSTEM: Final = (
    Row("redirect_dir=on", {"redirect_dir": "on", "metacopy": DEFAULT}),
    Row("redirect_dir=follow", {"redirect_dir": "follow"}),
    Row("redirect_dir=nofollow", {"redirect_dir": "nofollow"}),
    Row("redirect_dir=off", {"redirect_dir": OFF}),
    Row("redirect_dir=on,redirect_dir=nofollow", {"redirect_dir": "nofollow"}),
    Row("index=on", {"index": "on", "nfs_export": DEFAULT}),
    Row("index=off", {"index": "off"}),
    Row("index=on,index=off", {"index": "off"}),
    Row("nfs_export=on", {"nfs_export": "on", "index": "on", "metacopy": "off"}),
    Row("nfs_export=on,index=on", {"nfs_export": "on", "index": "on"}),
    Row("nfs_export=off,index=on", {"nfs_export": "off", "index": "on"}),
    Row("metacopy=on", {"metacopy": "on", "redirect_dir": "on"}),
    Row("metacopy=on,redirect_dir=on", {"metacopy": "on", "redirect_dir": "on"}),
    Row("metacopy=off,redirect_dir=nofollow", {"metacopy": "off", "redirect_dir": "nofollow"}),
    Row("uuid=on", {"uuid": "on"}),
    Row("uuid=null", {"uuid": "null"}),
    Row("uuid=off", {"uuid": "off"}),
    Row("userxattr", {"userxattr": "", "redirect_dir": "nofollow", "metacopy": "off"}),
    Row("userxattr,redirect_dir=nofollow", {"userxattr": "", "redirect_dir": "nofollow"}),
    Row("userxattr,index=on", {"userxattr": "", "index": "on"}),
    Row("default_permissions", {"default_permissions": ""}),
    Row("verity=on", {"verity": "on"}, ("verity", "on")),
    Row("verity=require", {"verity": "require"}, ("verity", "on")),
    Row("verity=off", {"verity": "off"}, ("verity", "on")),
    Row("fsync=strict", {"fsync": "strict"}, ("fsync", "strict")),
    Row("fsync=auto", {"fsync": "auto"}, ("fsync", "strict")),
    Row("override_creds", {"override_creds": None}, ("override_creds", "")),  # whose they are is not shown
    Row("nooverride_creds", {"nooverride_creds": None}, ("override_creds", "")),
    Row("xino=auto", {"xino": DEFAULT}),  # of no use on one filesystem: not shown
    Row("xino=on", {"xino": DEFAULT}),
    Row("xino=nofollow", {"xino": "nofollow"}, ("xino", "nofollow")),
)
TWO_FILESYSTEMS: Final = (
    Row("xino=off", {"xino": "off"}),
    Row("xino=auto", {"xino": "auto"}),
    Row("xino=on", {"xino": "on"}),
    Row("xino=nofollow", {"xino": "nofollow"}, ("xino", "nofollow")),
    Row("xino=on,index=on,redirect_dir=on", {"xino": "on", "index": "on", "redirect_dir": "on"}),
)
EXPORT: Final = 'NFS export requires "redirect_dir=nofollow" on non-upper mount, falling back to nfs_export=off'
# Without an upper there is nothing to index, to redirect, or to store a UUID in.
READ_ONLY: Final = (
    Row("index=on", {"index": "off"}, says='option "index=on" is useless in a non-upper mount, ignore'),
    Row("redirect_dir=follow", {"redirect_dir": "on"}),
    Row("redirect_dir=nofollow", {"redirect_dir": "nofollow"}),
    Row("metacopy=on", {"metacopy": "on", "redirect_dir": "on"}),
    Row("metacopy=on,redirect_dir=follow", {"metacopy": "on", "redirect_dir": "on"}),
    Row("nfs_export=on,redirect_dir=nofollow", {"nfs_export": "on"}),
    Row("nfs_export=on,redirect_dir=on", {"nfs_export": "off", "redirect_dir": "on"}, says=EXPORT),
    Row("uuid=on", {"uuid": "null"}, says="falling back to uuid=null"),
    Row("volatile", {"volatile": None, "fsync": "auto"}, says='option "volatile" is meaningless in a non-upper mount'),
    Row("workdir={w}", {"workdir": None}, says="is useless in a non-upper mount, ignore"),
    Row("userxattr", {"userxattr": "", "redirect_dir": "nofollow"}),
)


def shows(where: str, row: Row, lower_apart: bool) -> Trial:
    """Mounted with the row's options beside `where`, this is in effect, and nothing else is shown."""

    def work(stand: Stand) -> None:
        if row.needs:
            needs_option(*row.needs)
        if row.says:
            stand.warns(row.says)
        prepared(stand)
        stand.layers(u2=Directory(), w2=Directory())
        if lower_apart:
            stand.filesystem("a")
        layers = where.replace("{l}", "{a}") if lower_apart else where
        stand.mount(f"{layers},{row.given}")
        stand.configure(*pairs(f"{layers.replace('{u}', '{u2}').replace('{w}', '{w2}')},{row.given}"), at="n")
        for at in ("m", "n"):
            for key, value in row.wanted.items():
                effective(stand, key, _resolved(key, value), at, f"with {row.given} at {at}")

    kind = "two lowers" if where == LOWERS else "two filesystems" if lower_apart else "one filesystem"
    return Trial(f"{row.given} on {kind}", work)


def _resolved(key: str, value: str | None) -> str | None:
    if value == OFF:
        return "follow" if parameter("redirect_always_follow") == "Y" else "nofollow"
    return default(key) if value == DEFAULT else value


def volatile(stand: Stand) -> None:
    """`volatile`, shown as fsync=volatile by a kernel that has that option."""
    prepared(stand)
    stand.mount(f"{LAYERS},volatile")
    shown = stand.shown()
    stand.holds("volatile or fsync=volatile is shown", "volatile" in shown or shown.get("fsync") == "volatile")


def spelled_as_fsync(stand: Stand) -> None:
    """The last one of `volatile` and `fsync` wins."""
    needs_option("fsync", "volatile")
    prepared(stand)
    for options, wanted in (
        ("fsync=volatile,fsync=auto", "auto"),
        ("volatile,fsync=strict", "strict"),
        ("fsync=strict,volatile", "volatile"),
    ):
        stand.mount(f"{LAYERS},{options}")
        effective(stand, "fsync", wanted, why=f"with {options}")
        stand.unmount()


GROUPS = (
    Group(
        "mount-options",
        "Mount with an option and see what is shown of it.",
        trials=(
            *(shows(LAYERS, row, False) for row in ONE_FILESYSTEM),
            *(shows(LAYERS, row, True) for row in TWO_FILESYSTEMS),
            *(shows(LOWERS, row, False) for row in READ_ONLY),
            Trial("volatile", volatile),
            Trial("volatile and fsync together", spelled_as_fsync),
        ),
    ),
)
