# SPDX-License-Identifier: GPL-2.0-only
"""The operations: their reproducer lines, and that an unprivileged one gives the privilege back."""

from __future__ import annotations

import errno
import os
import shlex
import tempfile

import pytest

from tests.union import GROUPS
from union.names import Name, Names
from union.operations import (
    CREAT,
    EXCL,
    RWA,
    TRUNC,
    ChangeMode,
    Held,
    Operation,
    R,
    W,
    link,
    mkdir,
    open_dir,
    open_file,
    readlink,
    rename,
    rmtree,
    truncate,
    unlink,
)

N = Name("top/foo100")
LINES: list[tuple[Operation, str]] = [
    (open_file(N, R, reads=b"x y"), "./run --open-file /mnt/top/foo100 -r -R 'x y'"),
    (open_file(N, W | CREAT | EXCL, writes=b"q"), "./run --open-file /mnt/top/foo100 -w -c -e -W q"),
    (open_file(N, RWA | TRUNC, fails=errno.EISDIR), "./run --open-file /mnt/top/foo100 -r -w -a -t -E EISDIR"),
    (open_dir(N), "./run --open-file /mnt/top/foo100 -r -d"),
    (open_file(N, R, reads=b"a\0b"), "./run --open-file /mnt/top/foo100 -r -R 'a\\0b'"),
    (truncate(N, 4, errno.EACCES, unprivileged=True), "./run --truncate /mnt/top/foo100 4 -B -E EACCES"),
    (mkdir(N, errno.EEXIST), "./run --mkdir /mnt/top/foo100 0755 -E EEXIST"),
    (ChangeMode(path=N, mode=0o600), "./run --chmod /mnt/top/foo100 0600"),
    (rename(N, N + "-new"), "./run --rename /mnt/top/foo100 /mnt/top/foo100-new"),
    (link(N, N + "-new", errno.ENOENT), "./run --link /mnt/top/foo100 /mnt/top/foo100-new -E ENOENT"),
    (readlink(N, "../top/x"), "./run --readlink /mnt/top/foo100 -R ../top/x"),
    (unlink(N), "./run --unlink /mnt/top/foo100"),
    (rmtree(N), "- rmtree /mnt/top/foo100"),
]


@pytest.mark.parametrize(("operation", "line"), LINES, ids=[line for _, line in LINES])
def test_reproducer_lines(operation: Operation, line: str) -> None:
    assert operation.reproducer("/mnt") == line


def test_every_reproducer_is_one_printable_line_that_a_shell_splits_back() -> None:
    for group in GROUPS:
        for number in range(1, len(group.scenarios) + 1):
            for operation in group.operations(number):
                line = operation.reproducer("/mnt")
                assert line.isprintable() and shlex.split(line)


def test_slashes_go_to_the_paths_under_test_alone() -> None:
    s = Names("top", 100)
    operation = rename(~s.dir, s.empty / "x").slashed()
    assert operation.names() == ("top/dir100/", "top/empty100/x")
    assert unlink(~(s.none + "a")).slashed().path == "top/no_foo100a/"


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
def test_an_unprivileged_operation_is_refused_and_root_is_back_after_it() -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        with open(f"{root}/foo", "w") as file:
            file.write("text")
        os.chmod(f"{root}/foo", 0o644)
        refused = truncate(Name("foo"), 0, unprivileged=True).perform(root, Held())
        assert refused.errno == errno.EACCES
        assert (os.geteuid(), os.getegid()) == (0, 0)
        assert truncate(Name("foo"), 0).perform(root, Held()).errno == 0
