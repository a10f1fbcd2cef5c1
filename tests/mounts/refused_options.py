# SPDX-License-Identifier: GPL-2.0-only
"""Mount options that are refused: bad values, and options that exclude each other, in either order."""

from __future__ import annotations

from errno import EINVAL
from typing import Final, NamedTuple

from tests.mounts.phrases import LAYERS, LOWERS, needs_option, pairs, prepared
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name

BAD_VALUES: Final = (
    "redirect_dir=sideways", "index=maybe", "nfs_export=2", "uuid=random", "xino=always", "metacopy=yes",
    "verity=must", "fsync=never", "redirect_dir=ON", "index=on ",
)  # fmt: skip
NO_VALUE: Final = ("redirect_dir", "index", "nfs_export", "uuid", "xino", "metacopy", "upperdir", "lowerdir+")
VALUE_OF_A_FLAG: Final = ("userxattr=on", "default_permissions=1", "volatile=on", "override_creds=root")
UNKNOWN: Final = ("no_such_option", "no_such_option=1", "lowerdir++=/", "nouserxattr", "novolatile", "dirsync2")


class Pair(NamedTuple):
    """Two options that exclude each other, and how the kernel names them; `needs`: not every kernel has it."""

    one: str
    other: str
    says: str
    needs: tuple[str, str] | None = None


CONFLICTS: Final = (
    Pair("metacopy=on", "redirect_dir=nofollow", "conflicting options: metacopy=on,redirect_dir=nofollow"),
    Pair("metacopy=on", "redirect_dir=follow", "conflicting options: metacopy=on,redirect_dir=follow"),
    Pair("metacopy=on", "redirect_dir=off", "conflicting options: metacopy=on,redirect_dir="),
    Pair("nfs_export=on", "index=off", "conflicting options: nfs_export=on,index=off"),
    Pair("nfs_export=on", "metacopy=on", "conflicting options: nfs_export=on,metacopy=on"),
    Pair("userxattr", "redirect_dir=on", "conflicting options: userxattr,redirect_dir=on"),
    Pair("userxattr", "redirect_dir=follow", "conflicting options: userxattr,redirect_dir=follow"),
    Pair("userxattr", "metacopy=on", "conflicting options: userxattr,metacopy=on"),
    Pair(
        "xino=nofollow", "nfs_export=on", "conflicting options: nfs_export=on,xino=nofollow", ("xino", "nofollow")
    ),
)  # fmt: skip
# The same without an upper, where redirects are followed at most.
READ_ONLY: Final = (
    Pair("metacopy=on", "redirect_dir=nofollow", "conflicting options: metacopy=on,redirect_dir=nofollow"),
    Pair("userxattr", "metacopy=on", "conflicting options: userxattr,metacopy=on"),
    Pair("userxattr", "redirect_dir=on", "conflicting options: userxattr,redirect_dir=on"),
)


def by_both(stand: Stand, layers: str, given: str) -> None:
    """Neither mount(2) nor fsopen(2) takes the options."""
    stand.refuses(EINVAL, f"{layers},{given}")

    def fsopen() -> None:
        stand.configure(*pairs(f"{layers},{given}"), at="n")
        stand.unmount("n")

    got = attempt(fsopen)
    stand.same(f"fsopen with {given}", errno_name(got), "EINVAL")


def excludes(where: str, pair: Pair) -> Trial:
    """Refused in either order."""

    def work(stand: Stand) -> None:
        if pair.needs:
            needs_option(*pair.needs)
        prepared(stand)
        stand.warns(pair.says)
        by_both(stand, where, f"{pair.one},{pair.other}")
        by_both(stand, where, f"{pair.other},{pair.one}")

    return Trial(f"{pair.one} and {pair.other}{' on two lowers' if where == LOWERS else ''}", work)


def refused(label: str, rows: tuple[str, ...]) -> Trial:
    """Each of the options alone is refused."""

    def work(stand: Stand) -> None:
        prepared(stand)
        for given in rows:
            by_both(stand, LAYERS, given)

    return Trial(label, work)


def fsopen_says(stand: Stand) -> None:
    """The messages of a filesystem context name the option and the layer that it does not take."""
    prepared(stand)
    (stand.root / "file").touch()
    for key, value, words in (
        ("redirect_dir", "sideways", "redirect_dir"),
        ("no_such_option", "1", "no_such_option"),
        ("upperdir", "{file}", "file is not a directory"),
    ):
        said: list[str] = []
        got = attempt(lambda: stand.configure((key, value), says=said))  # noqa: B023 - called at once
        stand.same(f"{key}={value}", errno_name(got), "EINVAL")
        stand.holds(f"{said} about {words}", any(words in line for line in said))


GROUPS = (
    Group(
        "mount-refusals",
        "Mount with options that are wrong, or that exclude each other.",
        trials=(
            refused("values that no option has", BAD_VALUES),
            refused("options without their value", NO_VALUE),
            refused("flags with a value", VALUE_OF_A_FLAG),
            refused("options that nobody knows", UNKNOWN),
            *(excludes(LAYERS, pair) for pair in CONFLICTS),
            *(excludes(LOWERS, pair) for pair in READ_ONLY),
            Trial("what fsopen says of a refusal", fsopen_says),
        ),
    ),
)
