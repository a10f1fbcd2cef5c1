# SPDX-License-Identifier: GPL-2.0-only
"""docs/parity.md: every subtest of unionmount-testsuite and the scenario that stands for it.

python -m tests.union.parity_table > docs/parity.md
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOENT, ENOTEMPTY
from fnmatch import fnmatchcase

from tests.union import PARITY
from tests.union.choice import default_groups
from union.operations import Link, OpenFile, Operation, Rename
from union.scenario import Group

UPSTREAM = (  # group, subtests, operations
    ("open-plain", 5, 18),
    ("open-trunc", 5, 18),
    ("open-creat", 5, 18),
    ("open-creat-trunc", 5, 18),
    ("open-creat-excl", 5, 10),
    ("open-creat-excl-trunc", 5, 10),
    ("noent-plain", 5, 10),
    ("noent-trunc", 5, 10),
    ("noent-creat", 5, 18),
    ("noent-creat-trunc", 5, 18),
    ("noent-creat-excl", 5, 19),
    ("noent-creat-excl-trunc", 5, 19),
    ("sym1-plain", 5, 18),
    ("sym1-trunc", 5, 18),
    ("sym1-creat", 5, 18),
    ("sym1-creat-excl", 5, 10),
    ("sym2-plain", 5, 18),
    ("sym2-trunc", 5, 18),
    ("sym2-creat", 5, 18),
    ("sym2-creat-excl", 5, 10),
    ("symx-plain", 5, 10),
    ("symx-trunc", 5, 5),
    ("symx-creat", 5, 10),
    ("symx-creat-excl", 5, 5),
    ("symx-creat-trunc", 5, 10),
    ("truncate", 1, 57),
    ("dir-open", 6, 21),
    ("dir-weird-open", 10, 20),
    ("dir-open-dir", 6, 21),
    ("dir-sym1-open", 5, 18),
    ("dir-sym1-weird-open", 10, 20),
    ("dir-sym2-open", 5, 18),
    ("dir-sym2-weird-open", 10, 20),
    ("readlink", 10, 10),
    ("mkdir", 11, 36),
    ("rmdir", 16, 96),
    ("rmtree", 1, 1),
    ("rmtree-new", 1, 2),
    ("hard-link", 11, 37),
    ("hard-link-dir", 8, 28),
    ("hard-link-sym", 10, 35),
    ("unlink", 10, 46),
    ("rename-file", 10, 49),
    ("rename-hard-link", 1, 8),
    ("rename-new-dir", 12, 68),
    ("rename-new-pop-dir", 19, 141),
    ("rename-mass", 2, 16),
    ("rename-mass-2", 2, 20),
    ("rename-mass-3", 2, 38),
    ("rename-mass-4", 2, 45),
    ("rename-mass-5", 2, 86),
    ("rename-mass-dir", 5, 106),
    ("rename-mass-sym", 6, 109),
    ("impermissible", 5, 32),
    ("rename-dir", 2, 10),
    ("rename-empty-dir", 10, 48),
    ("rename-pop-dir", 11, 60),
    ("rename-move-dir", 12, 89),
    ("rename-exdev", 4, 16),
    ("dir-weird-open-dir", 10, 20),
)

# How many operations ours has more, and why.
ADDED = (
    ("symx-trunc:*", 1, "looks at the target too"),
    ("symx-creat-excl:*", 1, "looks at the target too"),
    ("truncate:1", 59, "each size is an operation, the empty file is read too"),
    ("rename-new-pop-dir:12", 1, "looks at the target too"),
    ("impermissible:4", 3, "each size is an operation"),
)

REMARKS = (
    ("readlink:9", "the operations of 8"),
    ("readlink:10", "the operations of 7"),
    ("unlink:9", "the operations of 8"),
    ("unlink:10", "the operations of 7"),
    ("rename-new-dir:6", "looks at the old and the new name, upstream twice at the new one"),
    ("impermissible:5", "the times are compared by the harness"),
    ("dir-weird-open-dir:*", "only by name"),
    ("rename-exdev:*", "only with directory renames off"),
)

# Here upstream opens the children of what was renamed and reads nothing.
UNREAD = ("rename-dir", "rename-pop-dir", "rename-move-dir", "rename-exdev")

HEAD = """\
<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Generated: python -m tests.union.parity_table > docs/parity.md -->

# Parity with unionmount-testsuite

Every subtest of unionmount-testsuite (*upstream*: `master` at f48a57d) and the scenario that stands for it.
Groups have upstream's names and order, scenarios upstream's numbers; `./run --ov rename-file:3` runs one.
"""

DIFFERENCES = """\
## What differs everywhere

* Each group has a top directory of its own, named after the group, where upstream rebuilds `a` for every
  group. Targets of symlinks differ accordingly: `../rename-file/foo100`.
* The errno must be the one stated. Upstream lets pass any errno where ENOTEMPTY is expected, and EEXIST where
  any error is (except for opens).
* A rename or link whose source is absent is issued. Upstream's own lstat fails first and the kernel is not
  asked.
* Every successful read-only open of a file compares the content.
* A tree is removed by what its directories list. Upstream removes what it believes to be there, each name
  twice, and does not list.
* A scenario of `rename-mass*` goes on where the one before it ended; picked by number it brings those along.
"""

SHADOWED = """\
## Upstream's subtests that never run

Upstream has 375 subtest functions. `rename-new-dir` defines 11 and 12 twice and the later definition wins, so
373 can be reached. The two others, as they read:

| lost | what it does | here |
|---|---|---|
| first 11 | rename a new, empty directory onto an empty lower one; it is there | no scenario, for the numbers \
to stay; `rename-new-pop-dir:7` and `rename-pop-dir:7` do it with populated ones |
| first 12 | rename a new, empty directory onto a populated lower one, ENOTEMPTY; then expects, wrongly, that a \
child of the target is absent | `rename-new-dir:7`, without the wrong expectation |
"""


def added(group: Group, number: int) -> int:
    """How many more operations than upstream's subtest the scenario has."""
    return sum(more for pattern, more, _ in ADDED if fnmatchcase(f"{group.name}:{number}", pattern))


def remarks(group: Group, number: int) -> Iterator[str]:
    """Where the scenario is stricter than the subtest or differs from it."""
    selector = f"{group.name}:{number}"
    yield from (why for pattern, _, why in ADDED if fnmatchcase(selector, pattern))
    yield from (why for pattern, why in REMARKS if fnmatchcase(selector, pattern))
    operations = group.operations(number)
    if any(isinstance(operation, Rename | Link) and operation.fails == ENOENT for operation in operations):
        yield "absent source"
    if any(operation.fails == ENOTEMPTY for operation in operations):
        yield "exact errno"
    if group.name in UNREAD and any(_reads(operation) for operation in operations):
        yield "reads a child"


def _reads(operation: Operation) -> bool:
    return isinstance(operation, OpenFile) and operation.reads is not None


def row(group: Group, number: int) -> str:
    """The line of one subtest."""
    ours = len(group.operations(number))
    theirs = ours - added(group, number)
    count = str(ours) if ours == theirs else f"{theirs} → {ours}"
    label = group.scenarios[number - 1].label.replace("|", "\\|")
    cells = (
        f"`{group.name}` {number}",
        f"`{group.name}:{number}`",
        label,
        count,
        "; ".join(remarks(group, number)),
    )
    return f"| {' | '.join(cells)} |"


def totals() -> str:
    """How much there is, per default list and in all."""
    return "\n".join(
        (
            "| list | groups | subtests | operations upstream | operations here |",
            "|---|---|---|---|---|",
            _total("directory renames on", _parity(True)),
            _total("directory renames off (`--xdev`)", _parity(False)),
            _total("all that can be reached", PARITY),
        )
    )


def _parity(directory_renames: bool) -> tuple[Group, ...]:
    """The default run less what the classical suite has not."""
    return tuple(group for group in default_groups(directory_renames) if group in PARITY)


def _total(words: str, groups: tuple[Group, ...]) -> str:
    scenarios = [(group, number + 1) for group in groups for number in range(len(group.scenarios))]
    ours = sum(len(group.operations(number)) for group, number in scenarios)
    theirs = ours - sum(added(group, number) for group, number in scenarios)
    return f"| {words} | {len(groups)} | {len(scenarios)} | {theirs} | {ours} |"


def table() -> str:
    """All subtests, a line each."""
    return "\n".join(
        (
            "## Subtests",
            "",
            "Operations: upstream's number and ours where they differ. Remarks: *absent source*: a rename or link of",
            "an absent name reaches the kernel; *exact errno*: ENOTEMPTY is insisted on; *reads a child*: the content",
            "of what is opened below a renamed directory is compared.",
            "",
            "| upstream | selector | scenario | operations | remarks |",
            "|---|---|---|---|---|",
            *(row(group, number + 1) for group in PARITY for number in range(len(group.scenarios))),
        )
    )


def render() -> str:
    """The whole page."""
    return "\n".join((HEAD, totals(), "", DIFFERENCES, table(), "", SHADOWED))


if __name__ == "__main__":
    print(render(), end="")
