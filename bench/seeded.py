# SPDX-License-Identifier: GPL-2.0-only
"""The bugs that are put into the reference kernel on purpose: patches over its own, with a mistake each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from union.errors import SetupError, UsageError

BUGS = Path(__file__).resolve().parent.parent / "tests/harness/bugs"

_HEADER = re.compile(r"SPDX-License-Identifier: GPL-2\.0-only\n(.+)\nclauses: (D\d+(?:, D\d+)*)\n\n")


@dataclass(frozen=True)
class Bug:
    """A mistake in the reference patches: in a sentence, the clauses of the contract that it breaks, the patch."""

    name: str
    text: str
    clauses: str
    patch: Path


def bugs(directory: Path = BUGS) -> dict[str, Bug]:
    """All there are, by name. Raises SetupError for a patch without its header."""
    found = {}
    for patch in sorted(directory.glob("*.patch")):
        header = _HEADER.match(patch.read_text())
        if not header:
            raise SetupError(f"{patch}: the lines before the patch are not licence, mistake, clauses")
        found[patch.stem] = Bug(patch.stem, header[1], header[2], patch)
    return found


def named(names: Sequence[str], *more: Path) -> list[Bug]:
    """Those of these names, or all, of BUGS and the directories `more`. Raises UsageError."""
    known = {name: bug for directory in (BUGS, *more) for name, bug in bugs(directory).items()}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no bug {unknown[0]!r}; known: {', '.join(known)}")
    return [known[name] for name in names or known]
