# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out with xino=nofollow: no name is lost for good, whatever became of the opaque mark (D6, D12)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from datasets.layers import OPAQUE
from datasets.tree import Directory, Node, Whiteout
from tests.mounts.memory_names import mknod, rmdir
from tests.mounts.out_of_memory import (
    COPY_UP,
    LOWER,
    MOVE,
    NO_MEMORY,
    both,
    chown,
    cold,
    disturbed,
    link,
    lists,
    mkdir,
    opened,
    rename,
    unlink,
)
from union.faults import Call
from union.scenario import Group, Trial
from union.witness import is_opaque

INDEX: Final = "index=on"
METACOPY: Final = "metacopy=on,redirect_dir=on"

HIDDEN: Final = {"dir": Directory({"file": Whiteout()})}

everything: Final = chown(*LOWER.entries, "dir/file")
opaque_dir: Final = both(chown("dir/file"), lists("dir"))


def attempt(call: Call) -> Call:
    """Without its result: a listing may lack a name that could not be looked up, as on any overlay. It may not stay
    so, and nothing may turn opaque for it."""

    def tried(top: str) -> None:
        call(top)

    return tried


def owner(name: str) -> Call:
    """lstat(2)."""
    return lambda top: os.lstat(f"{top}/{name}").st_uid


known_copy: Final = both(cold(chown("one")), owner("one"))


def turns_opaque(
    label: str, directory: str, before: Call, options: str = "", upper: Mapping[str, Node] | None = None
) -> Trial:
    """The listing that makes a directory opaque; if it could not, the next one does."""
    call = lists(directory)
    return disturbed(
        label,
        attempt(call),
        upper=upper,
        options=f"xino=nofollow{options}",
        before=before,
        errors=NO_MEMORY,
        settle=both(cold(), call),
        kept=lambda upper: is_opaque(f"{upper}/{directory}"),
    )


def stays_merged(label: str, before: Call) -> Trial:
    """The listing of a directory with a name that only lower has."""
    return disturbed(
        label,
        attempt(lists(".")),
        options="xino=nofollow",
        before=before,
        errors=NO_MEMORY,
        settle=both(cold(), lists(".")),
        kept=lambda upper: OPAQUE in os.listxattr(upper),
    )


def detaching(label: str, call: Call, before: Call | None = None, options: str = "") -> Trial:
    """A change with xino=nofollow."""
    errors = MOVE if METACOPY in options else COPY_UP
    return disturbed(label, call, options=f"xino=nofollow{options}", before=before, errors=errors)


GROUPS = (
    Group(
        "memory-detach",
        "Migrate with memory that runs out at each allocation.",
        trials=(
            turns_opaque("the lowest directory is listed", "dir", chown("dir/file")),
            turns_opaque("the lowest directory is listed, cold", "dir", cold(chown("dir/file"))),
            turns_opaque("a directory of directories is listed", ".", both(everything, lists("dir", "empty"))),
            turns_opaque("it is listed cold", ".", cold(everything, lists("dir", "empty"))),
            turns_opaque("a directory with whiteouts", "dir", unlink("dir/file")),
            turns_opaque(
                "a directory that was in upper", "dir", both(), upper={"dir": Directory({"file": Whiteout()})}
            ),
            turns_opaque("a directory with hard links", ".", cold(everything, lists("dir", "empty")), ",index=on"),
            stays_merged("one file is not copied up", both(chown("file", "plain", "dir/file"), lists("dir"))),
            stays_merged("one file is not copied up, cold", cold(chown("file", "plain", "dir/file"), lists("dir"))),
            detaching("copy up a file", chown("dir/file")),
            detaching("copy up data after metadata", opened("file", os.O_RDWR), chown("file"), f",{METACOPY}"),
            detaching("copy up data, cold", opened("file", os.O_RDWR), cold(chown("file")), f",{METACOPY}"),
            detaching("copy up a hard link", chown("one"), options=f",{INDEX}"),
            detaching("copy up the second hard link", chown("two"), chown("one"), f",{INDEX}"),
            detaching("copy up the second hard link, cold", chown("two"), cold(chown("one")), f",{INDEX}"),
            detaching(
                "copy up a link of a known copy", chown("two"), both(cold(chown("one")), owner("one")), f",{INDEX}"
            ),
            detaching("look up an indexed link", owner("one"), cold(chown("one")), f",{INDEX}"),
            detaching("unlink the last indexed link", unlink("two"), both(chown("one"), unlink("one")), f",{INDEX}"),
            detaching("unlink it cold", unlink("two"), cold(chown("one"), unlink("one"), chown("two")), f",{INDEX}"),
            detaching("link into an opaque directory", link("plain", "dir/new"), opaque_dir),
            detaching("link of metadata into one", link("plain", "dir/new"), opaque_dir, f",{METACOPY}"),
            detaching("rename into an opaque directory", rename("plain", "dir/new"), opaque_dir),
            detaching("rename of metadata into one", rename("plain", "dir/new"), opaque_dir, f",{METACOPY}"),
            detaching("rename out of an opaque directory", rename("dir/file", "new"), opaque_dir),
            detaching("rename an opaque directory", rename("dir", "empty/new"), opaque_dir, ",redirect_dir=on"),
            detaching("make a directory in an opaque one", mkdir("dir/new"), opaque_dir),
            detaching("make a name over a removed one", mknod("dir/file"), both(opaque_dir, unlink("dir/file"))),
            detaching("rmdir an opaque directory", rmdir("dir"), both(unlink("dir/file"), lists("dir"))),
        ),
    ),
)
