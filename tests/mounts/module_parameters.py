# SPDX-License-Identifier: GPL-2.0-only
"""The overlay module's parameters: defaults of mount options, and how an option that is given overrides them.

They are the whole system's, so they are only changed in a guest.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from tests.mounts.phrases import LAYERS, LOWERS, needs_option, prepared
from union.effective import PARAMETERS, parameter
from union.kernellog import in_guest
from union.scenario import Group, Trial
from union.stand import Missing, Stand


def set_parameters(stand: Stand, settings: dict[str, str]) -> None:
    """Set them until the trial is over; raises Missing outside of a guest."""
    if not in_guest():
        raise Missing("parameters of the overlay module are set in a guest only")
    for name, value in settings.items():
        before = parameter(name)
        if before is None:
            raise Missing(f"this kernel's overlay has no parameter {name}")
        path = PARAMETERS / name
        stand.undo(partial(path.write_text, before))
        path.write_text(value)


class Row(NamedTuple):
    """Parameters that are set, the options of a mount, and what it shows: None is what is as the parameters say."""

    settings: dict[str, str]
    given: str
    shown: dict[str, str | None]
    says: str | None = None
    layers: str = LAYERS
    needs: tuple[str, str] | None = None


REDIRECT, FOLLOW, INDEX = {"redirect_dir": "Y"}, {"redirect_always_follow": "Y"}, {"index": "Y"}
EXPORT, METACOPY, XINO = {"nfs_export": "Y"}, {"metacopy": "Y"}, {"xino_auto": "Y"}
ROWS: Final = (
    Row(REDIRECT, "", {"redirect_dir": None}),
    Row(REDIRECT, "redirect_dir=on", {"redirect_dir": None}),
    Row(REDIRECT, "redirect_dir=follow", {"redirect_dir": "follow"}),
    Row(REDIRECT | FOLLOW, "redirect_dir=off", {"redirect_dir": "follow"}),
    Row(REDIRECT | {"redirect_always_follow": "N"}, "redirect_dir=off", {"redirect_dir": "nofollow"}),
    Row(FOLLOW, "redirect_dir=off", {"redirect_dir": None}),
    Row(FOLLOW, "redirect_dir=nofollow", {"redirect_dir": "nofollow"}),
    Row(FOLLOW, "", {"redirect_dir": "on"}, layers=LOWERS),
    Row(INDEX, "", {"index": None}),
    Row(INDEX, "index=off", {"index": "off"}),
    Row(INDEX, "", {"index": "off"}, layers=LOWERS),
    Row(INDEX, "nfs_export=on", {"index": None, "nfs_export": "on"}),
    Row(XINO, "", {"xino": None}),
    Row(METACOPY, "", {"metacopy": None, "redirect_dir": "on"}),
    Row(METACOPY, "metacopy=off", {"metacopy": "off", "redirect_dir": None}),
    Row(METACOPY, "redirect_dir=nofollow", {"metacopy": "off"}, "disabling metacopy due to redirect_dir=nofollow"),
    Row(METACOPY, "redirect_dir=nofollow", {"metacopy": "off"}, "disabling metacopy due to", LOWERS),
    Row(METACOPY, "nfs_export=on", {"metacopy": "off", "nfs_export": "on"}, "disabling metacopy due to nfs_export=on"),
    Row(METACOPY, "userxattr", {"metacopy": "off", "redirect_dir": None}),
    Row(METACOPY | REDIRECT, "userxattr", {"metacopy": "off", "redirect_dir": "nofollow"}),
    Row(EXPORT, "", {"nfs_export": None, "index": "on"}),
    Row(EXPORT, "index=off", {"nfs_export": "off", "index": None}, "disabling nfs_export due to index=off"),
    Row(EXPORT, "metacopy=on", {"nfs_export": "off", "metacopy": "on"}, "disabling nfs_export due to metacopy=on"),
    Row(EXPORT, "redirect_dir=on", {"nfs_export": "off"}, "falling back to nfs_export=off", LOWERS),
    Row(EXPORT, "redirect_dir=nofollow", {"nfs_export": None}, layers=LOWERS),
    Row(
        EXPORT | METACOPY, "verity=on", {"nfs_export": "off", "metacopy": None},
        "disabling nfs_export due to verity=on", needs=("verity", "on"),
    ),
    Row(
        EXPORT, "xino=nofollow", {"nfs_export": "off", "xino": "nofollow", "index": "on"},
        "disabling nfs_export due to xino=nofollow", needs=("xino", "nofollow"),
    ),
)  # fmt: skip


def defaults(row: Row) -> Trial:
    """The mount shows what is in effect, as far as it is not the default that was set."""
    settings = " ".join(f"{name}={value}" for name, value in row.settings.items())
    where = " on two lowers" if row.layers == LOWERS else ""

    def work(stand: Stand) -> None:
        if row.needs:
            needs_option(*row.needs)
        prepared(stand)
        set_parameters(stand, {"redirect_always_follow": "N", **row.settings})
        if row.says:
            stand.warns(row.says)
        stand.mount(",".join(filter(None, (row.layers, row.given))))
        shown = stand.shown()
        stand.same(f"with {settings}", {key: shown.get(key) for key in row.shown}, row.shown)

    return Trial(f"{settings}: {row.given or 'no option'}{where}", work)


def obsolete(stand: Stand) -> None:
    """check_copy_up can be read and set, and does nothing."""
    set_parameters(stand, {"check_copy_up": "N"})
    stand.warns('"check_copy_up" module option is obsolete')
    path = PARAMETERS / "check_copy_up"
    path.write_text("Y")
    stand.same("value", path.read_text(), "N\n")


GROUPS = (
    Group(
        "module-parameters",
        "Set the module's parameters, mount with options beside, and see what is in effect.",
        trials=(*map(defaults, ROWS), Trial("check_copy_up", obsolete)),
    ),
)
