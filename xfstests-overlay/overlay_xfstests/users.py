# SPDX-License-Identifier: GPL-2.0-only
"""The users that xfstests needs, where the machine lacks them: in files that are mounted over the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from union import syscalls

USERS: Final = ("fsgqa", "fsgqa2", "123456-fsgqa")
"""Each with a group of the same name."""
_FIRST_ID: Final = 4200  # below the ids that user namespaces get, above those of people


def extended(passwd: str, group: str) -> tuple[str, str]:
    """The texts of /etc/passwd and /etc/group with all that xfstests needs; as they are if nothing is missing.

    No password opens the new accounts, but root can become them: `*` is no password that PAM would look up elsewhere.
    """
    users, groups = _records(passwd), _records(group)
    taken = {record[2] for record in (*users.values(), *groups.values())}
    number = next(n for n in range(_FIRST_ID, 1 << 16) if taken.isdisjoint(str(n + i) for i in range(len(USERS))))
    for offset, name in enumerate(USERS):
        free = str(number + offset)
        if name not in groups:
            group = _with(group, f"{name}:*:{free}:")
        if name not in users:
            gid = groups[name][2] if name in groups else free
            passwd = _with(passwd, f"{name}:*:{free}:{gid}:for xfstests:/:/bin/bash")
    return passwd, group


def provide(work: Path) -> None:
    """See to it that the users are there, in this mount namespace; `work` is a directory for the files."""
    etc = (Path("/etc/passwd"), Path("/etc/group"))
    texts = [path.read_text(errors="surrogateescape") for path in etc]
    for path, old, new in zip(etc, texts, extended(*texts), strict=True):
        if new != old:
            copy = work / path.name
            copy.write_text(new, errors="surrogateescape")
            syscalls.mount(str(copy), path, None, syscalls.MS_BIND)


def _records(text: str) -> dict[str, list[str]]:
    """The records by name; each has a number at 2."""
    return {fields[0]: fields for line in text.splitlines() if len(fields := line.split(":")) > 2}


def _with(text: str, line: str) -> str:
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"
