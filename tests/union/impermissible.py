# SPDX-License-Identifier: GPL-2.0-only
"""What uid 1 must not do to a file of root, whether it is copied up or not."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES

from datasets.reference import C0
from tests.union.phrases import holds
from union.names import Names
from union.operations import TRUNC, WA, Operation, W, open_file, size, touch, truncate
from union.scenario import Group, Scenario


def write(n: Names, refused: Sequence[int], access: int, content: bytes) -> Sequence[Operation]:
    """uid 1 is refused each of the opens in `refused`; root opens for `access` and writes."""
    return (
        *(open_file(~n.rootfile, flags, fails=EACCES, unprivileged=True) for flags in refused),
        holds(~n.rootfile, C0, unprivileged=True),
        holds(~n.rootfile, C0),
        open_file(~n.rootfile, access, writes=b"shark"),
        holds(~n.rootfile, content),
        holds(~n.rootfile, content, unprivileged=True),
    )


GROUPS = (
    Group(
        "impermissible",
        "Let uid 1 try what only root may do to a file of root.",
        (
            Scenario(
                "open with O_TRUNC or for writing is refused, root writes",
                lambda n: write(n, (W | TRUNC, W), W, b"sharkyyy:zzz"),
            ),
            Scenario(
                "open for writing is refused twice, root writes",
                lambda n: write(n, (W, W), W, b"sharkyyy:zzz"),
            ),
            Scenario(
                "open for appending is refused twice, root appends",
                lambda n: write(n, (WA, WA), WA, C0 + b"shark"),
            ),
            Scenario(
                "truncate is refused twice, root truncates",
                lambda n: (
                    size(~n.rootfile, len(C0)),
                    truncate(~n.rootfile, 4, EACCES, unprivileged=True),
                    truncate(~n.rootfile, 4, EACCES, unprivileged=True),
                    size(~n.rootfile, len(C0)),
                    holds(~n.rootfile, C0, unprivileged=True),
                    holds(~n.rootfile, C0),
                    truncate(~n.rootfile, 4),
                    size(~n.rootfile, 4),
                    holds(~n.rootfile, C0[:4]),
                    holds(~n.rootfile, C0[:4], unprivileged=True),
                ),
            ),
            Scenario(
                "setting the times is refused twice, root sets them",
                lambda n: (
                    touch(~n.rootfile, EACCES, unprivileged=True),
                    touch(~n.rootfile, EACCES, unprivileged=True),
                    touch(~n.rootfile),
                    holds(~n.rootfile, C0),
                ),
            ),
        ),
    ),
)
