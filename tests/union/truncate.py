# SPDX-License-Identifier: GPL-2.0-only
"""truncate(2) of lower files to every size around their own."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.reference import C0, FIRST_SET
from tests.union.phrases import holds
from union.names import Names
from union.operations import Operation, size, truncate
from union.scenario import Group, Scenario

SIZES = range(29)


def every_size(n: Names) -> Sequence[Operation]:
    """A lower file for each size: what is cut off is gone, what is added reads as zeroes."""
    operations: list[Operation] = []
    for length in SIZES:
        file = ~n[FIRST_SET + length].reg
        operations += (
            size(file, len(C0)),
            truncate(file, length),
            size(file, length),
            holds(file, C0[:length].ljust(length, b"\0")),
        )
    return operations


GROUPS = (
    Group(
        "truncate",
        "Cut or grow lower files of 12 bytes.",
        (Scenario("lower files to 0 to 28 bytes", every_size),),
    ),
)
