# SPDX-License-Identifier: GPL-2.0-only
"""`--table=outliving`: what was opened before a detach, unions mounted again, lowers unmounted (D11, D16, D17)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from tabulate import tabulate

from union.errors import Unsupported
from union.holders import ROWS
from union.kernellog import KernelLog
from union.outliving import DEATHS, KINDS, MOMENTS, RELEASES, REMOUNTS, XINO, held, releases, remounts
from union.overlay import accepts
from union.stand import Stand
from union.workspace import scratch_directory

Found = TypeVar("Found")


def table() -> int:
    """Print all three tables; 1 if the kernel complained. Raises Unsupported if it cannot detach, SetupError."""
    if refusal := accepts(XINO):
        raise Unsupported(f"kernel {os.uname().release} refuses {'='.join(XINO)}: {refusal}")
    with KernelLog() as log:
        tables = (_opened(), _mounted_again(), _unmounted())
        trouble = log.trouble()
    print("\n\n".join((f"kernel {os.uname().release}", *tables, *(f"FAILED: kernel log: {one}" for one in trouble))))
    return 1 if trouble else 0


def _on_a_stand(work: Callable[[Stand], Found]) -> Found:
    with ExitStack() as stack:
        place = scratch_directory(stack) / "t"
        place.mkdir()
        return work(Stand(stack, place))


def _opened() -> str:
    cases = [(kind, moment) for kind in KINDS for moment in MOMENTS]
    columns = [_on_a_stand(partial(held, kind=kind, moment=moment)) for kind, moment in cases]
    headers = ["opened", "use when lower is dead", *(f"{DEATHS[kind]}:\n{moment}" for kind, moment in cases)]
    return _table([[row.what, row.use, *got] for row, *got in zip(ROWS, *columns, strict=True)], headers)


def _mounted_again() -> str:
    cases = [(kind, migrated) for kind in KINDS for migrated in (True, False)]
    columns = [_on_a_stand(partial(remounts, kind=kind, migrated=migrated)) for kind, migrated in cases]
    headers = [f"{DEATHS[kind]}:\n{'migrated' if migrated else 'not migrated'}" for kind, migrated in cases]
    rows = [[lower, *(column[lower] for column in columns)] for lower in REMOUNTS]
    return _table(rows, ["mounted again over", *headers])


def _unmounted() -> str:
    cases = [(kind, dead) for kind in KINDS for dead in (False, True)]
    columns = [_on_a_stand(partial(releases, kind=kind, dead=dead)) for kind, dead in cases]
    headers = [DEATHS[kind] if dead else f"{kind.upper()}, alive" for kind, dead in cases]
    return _table([[what, *(column[what] for column in columns)] for what in RELEASES], ["the lower layer", *headers])


def _table(rows: list[list[str]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="simple")
