# SPDX-License-Identifier: GPL-2.0-only
"""`--table=NAME`: what was found out about a kernel, as a table for people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from tabulate import tabulate

from command import guest, native, outliving
from command.options import Options
from union.configuration import Configuration
from union.errors import Unsupported
from union.fence import AS_BEFORE
from union.fences import table as fencetable
from union.fences.table import OPERATIONS
from union.overlay import accepts
from union.workspace import enter_private_namespace

DETACH: Final = Configuration(detach=True, lower_fs="xfs", xino="nofollow", migrate="dfs", fence="shutdown")


def run(options: Options, name: str) -> int:
    """Print the table, of the running kernel if it can detach and we are root or if it was named, else of a guest."""
    here = options.kernel == "native" or (options.kernel == "auto" and not native.unsuitable(DETACH))
    if here:
        enter_private_namespace()
        return TABLES[name]()
    status, text = guest.capture(options, guest.flavour(options), [f"--table={name}", "--kernel=native"])
    sys.stdout.write(text)
    return status


def fences() -> int:
    """What each fence catches of a fixed list of operations, and what it lets pass; 1 if a migrated union asked."""
    detachable = not accepts(("xino", "nofollow"))
    rows, caught_at_last = [], 0
    for name, lower in fencetable.combinations():
        try:
            found = {row.state: row for row in fencetable.rows(name, lower, detachable=detachable)}
        except Unsupported as error:
            rows.append((name, lower, "-", "-", "-", str(error), ""))
            continue
        detached = found.get("detached")
        caught_at_last += len(detached.caught) if detached else 0
        cold = found["cold"]
        words = ", ".join(sorted(set(cold.came.values()) - {AS_BEFORE}))
        missed = ", ".join(what for what in OPERATIONS if what not in cold.caught)
        last = str(len(detached.caught)) if detached else "-"
        rows.append((name, lower, str(len(found["warm"].caught)), str(len(cold.caught)), last, words, missed))
    headers = ("fence", "lower", "warm", "cold", "detached", "what comes of it", "not caught with cold caches")
    print(f"caught of {len(OPERATIONS)} operations on a union that still needs its lower, and on a detached one\n")
    print(tabulate(rows, headers=headers, disable_numparse=True, maxcolwidths=[None] * 5 + [40, 60]))
    return 1 if caught_at_last else 0


TABLES: Final[dict[str, Callable[[], int]]] = {"fences": fences, "outliving": outliving.table}
