# SPDX-License-Identifier: GPL-2.0-only
"""Memory runs out during copy-up: nothing is copied up half, and the next attempt works."""

from __future__ import annotations

import os
from typing import Final

from datasets.tree import IMMUTABLE, NOATIME, Directory, File
from tests.mounts.out_of_memory import TEXT, both, chown, cold, disturbed, opened
from union import namecalls
from union.scenario import Group, When

W, TRUNC = os.O_WRONLY, os.O_WRONLY | os.O_TRUNC
METACOPY: Final = "metacopy=on,redirect_dir=on"
INDEX: Final = "index=on"
EXPORT: Final = "index=on,nfs_export=on"

LONG: Final = Directory({"a" * 60: Directory({"b" * 60: Directory({"c" * 60: File(TEXT)})})})
BOTTOM: Final = f"{'a' * 60}/{'b' * 60}/{'c' * 60}"
FLAGGED: Final = Directory({"file": File(TEXT, flags=IMMUTABLE | NOATIME)})


def clear_flags(top: str) -> None:
    """chattr = of the file."""
    namecalls.set_flags(f"{top}/file", 0)


GROUPS = (
    Group(
        "memory-copy-up",
        "Copy up with memory that runs out at each allocation.",
        when=When.WITHOUT_DETACH,
        trials=(
            disturbed("a file with xattrs and an ACL", chown("file")),
            disturbed("a file's data", opened("file", W)),
            disturbed("a file's data, truncated", opened("file", TRUNC)),
            disturbed("a symlink", chown("link")),
            disturbed("a fifo", chown("fifo")),
            disturbed("a device", chown("device")),
            disturbed("an empty directory", chown("empty")),
            disturbed("a directory with a default ACL", chown("dir")),
            disturbed("a file in a directory", chown("dir/file")),
            disturbed("a file below long names", chown(BOTTOM), LONG),
            disturbed("a file in a merge directory", chown("dir/file"), upper={"dir": Directory()}),
            disturbed("a hard link", chown("one")),
            disturbed("a hard link into the index", chown("one"), options=INDEX),
            disturbed("the second hard link of an index", chown("two"), options=INDEX, before=chown("one")),
            disturbed("the second of an index, cold", chown("two"), options=INDEX, before=cold(chown("one"))),
            disturbed("a file into the index", chown("file"), options=EXPORT),
            disturbed("a directory into the index", chown("dir"), options=EXPORT),
            disturbed("metadata", chown("file"), options=METACOPY),
            disturbed("metadata, then data", both(chown("file"), opened("file", W)), options=METACOPY),
            disturbed("data after metadata", opened("file", W), options=METACOPY, before=chown("file")),
            disturbed("data after metadata, cold", opened("file", W), options=METACOPY, before=cold(chown("file"))),
            disturbed("metadata of a hard link", chown("two"), options=f"{METACOPY},{INDEX}", before=chown("one")),
            disturbed("inode flags", clear_flags, FLAGGED, kept=lambda up: namecalls.get_flags(f"{up}/file") & 0xB0),
            disturbed("with fsync=strict", chown("dir/file"), options="fsync=strict"),
            disturbed("with userxattr", chown("dir/file"), options="userxattr"),
            disturbed("with xino=on", chown("dir/file"), options="xino=on"),
        ),
    ),
)
