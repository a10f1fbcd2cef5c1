# SPDX-License-Identifier: GPL-2.0-only
"""Mount options that are taken: what the kernel shows of them afterwards."""

from __future__ import annotations

from datasets.tree import Directory, File
from union.scenario import Group, Trial
from union.stand import Stand

LAYERS = "lowerdir={l},upperdir={u},workdir={w}"


def prepared(stand: Stand) -> None:
    """The layers l, u and w."""
    stand.layers(l=Directory({"f": File(b"lower")}), u=Directory(), w=Directory())


def shows(given: str, **wanted: str | None) -> Trial:
    """Mounted with `given`, the overlay shows these options (None: not at all)."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.mount(f"{LAYERS},{given}")
        shown = stand.shown()
        for key, value in wanted.items():
            stand.same(f"{key} of {given}", shown.get(key), value)

    return Trial(f"mounted with {given}", work)


GROUPS = (
    Group(
        "mount-options",
        "Mount with an option and see what is shown of it.",
        trials=(
            shows("redirect_dir=on", redirect_dir="on"),
            shows("index=on", index="on"),
        ),
    ),
)
