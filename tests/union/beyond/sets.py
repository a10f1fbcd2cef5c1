# SPDX-License-Identifier: GPL-2.0-only
"""Trees of these families: one directory per scenario, as the classical suite has one set of names."""

from __future__ import annotations

from collections.abc import Callable

from datasets.reference import FIRST_SET
from datasets.tree import Directory, Node
from union.names import Name, NumberedSet


def own(n: NumberedSet) -> Name:
    """The scenario's own directory."""
    return n.top / f"set{n.number}"


def sets(count: int, tree: Callable[[], Directory]) -> Directory:
    """The top directory of a group of `count` scenarios, each with a tree of its own."""
    entries: dict[str, Node] = {f"set{number}": tree() for number in range(FIRST_SET, FIRST_SET + count)}
    return Directory(entries)
