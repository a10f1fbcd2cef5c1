# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's configuration: nothing but what the fragment asks for, and all of that."""

from __future__ import annotations

import re
from pathlib import Path

from kernel.errors import BuildError

_OPTION = re.compile(r"^(?:(CONFIG_\w+)=.*|# (CONFIG_\w+) is not set)$")


def requested(fragment: str) -> dict[str, str]:
    """The options that a fragment sets: name -> line; an option turned off is `# CONFIG_X is not set`."""
    found = {}
    for line in fragment.splitlines():
        if match := _OPTION.match(line.strip()):
            found[match[1] or match[2]] = line.strip()
    return found


def dropped(fragment: str, config: str) -> list[str]:
    """Options of `fragment` that `config`, a finished `.config`, does not have as asked for."""
    result = requested(config)
    lost = []
    for name, line in requested(fragment).items():
        # An option that does not exist, or whose dependencies are off, is off without being mentioned.
        if result.get(name, f"# {name} is not set") != line:
            lost.append(name)
    return lost


def verify(fragment: str, config: Path, log: Path) -> None:
    """Raise `BuildError` naming the options of `fragment` that the file `config` has lost."""
    lost = dropped(fragment, config.read_text())
    if lost:
        raise BuildError(f"this kernel's configuration drops {', '.join(lost)}", log)
