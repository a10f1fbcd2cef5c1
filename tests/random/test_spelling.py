# SPDX-License-Identifier: GPL-2.0-only
"""Examples as text: what is read back is what was written, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given

from datasets.strategies import stacks
from datasets.tree import Directory, File
from tests.random.operations import examples
from union.errors import UsageError
from union.example import Example
from union.names import Name
from union.operations import Rename
from union.spelling import read, spelled


@given(one=examples(stacks()))
def test_what_is_written_is_read_back(one: Example) -> None:
    assert read(spelled(one)) == one


def test_it_can_be_read_by_people() -> None:
    one = Example((Directory({"a": File(b"x" * 4096 + b"end")}),), after=(Rename(path=Name("t/a"), to=Name("t/b")),))
    assert spelled(one) == (
        "Example(\n"
        "    lowers=(Directory(entries={'a': File(content=b'x' * 4096 + b'end')}),),\n"
        "    after=(Rename(path='t/a', to='t/b'),),\n"
        ")\n"
    )


@pytest.mark.parametrize("text", ["", "1", "Example(", "Example(open('x'))", "__import__('os')", "Example(nonsense=1)"])
def test_nothing_else_is_read(text: str) -> None:
    with pytest.raises(UsageError, match="no example"):
        read(text)
