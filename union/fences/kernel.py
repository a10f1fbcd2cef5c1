# SPDX-License-Identifier: GPL-2.0-only
"""Fences that listen to the lower inside the kernel: what XFS counts, and calls that the function tracer sees.

They are witnesses beside the request log of a FUSE lower: the counters belong to the mail's own kind of lower, and the
tracer sees methods that send no request.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from union import syscalls
from union.errors import SetupError
from union.fence import LISTING, LOOKUP, READ, Act, CannotFence, Listening, Outcome
from union.filesystems import Layer
from union.kernellog import in_guest

COUNTED: Final = "counted"
CALLED: Final = "a call"
_COUNTERS: Final = {
    "dir": ("lookups", "creates", "removes", "listings"),
    "ig": ("inodes looked for",),
    "attr": ("xattrs read", "xattrs set", "xattrs removed", "xattrs listed"),
    "rw": ("writes", "reads"),
}
"""Of /sys/fs/xfs/DEVICE/stats/stats the lines that count what is done in somebody's name, and their first numbers."""


class _Heard(Listening):
    """What both have in common: an access is caught if anything was heard of it."""

    word: str

    def judge(self, act: Act, before: Outcome) -> str:
        """See `Fence.judge`."""
        came = super().judge(act, before)
        return self.word if self._heard() else came


class Counters(_Heard):
    """XFS keeps count of lookups, listings, reads and xattrs; nothing may be added to that."""

    name = "counters"
    what = "statistics"
    words = (COUNTED,)
    word = COUNTED
    cold = True  # what its caches answer is not counted

    def must(self) -> tuple[str, ...]:
        """A stat is not counted."""
        return (LOOKUP, LISTING, READ)

    def _raise(self, root: int) -> None:
        self._last = self._raised_at = self._read()

    def _read(self) -> Counter[str]:
        try:
            lines = Path(f"/sys/fs/xfs/{Path(self.layer.source).name}/stats/stats").read_text().splitlines()
        except OSError as error:
            raise CannotFence(f"kernel {os.uname().release} keeps no statistics of an XFS: {error}") from error
        found: Counter[str] = Counter()
        for words in map(str.split, lines):
            found.update(dict(zip(_COUNTERS.get(words[0], ()), map(int, words[1:]), strict=False)))
        return found

    def _heard(self) -> list[str]:
        before, self._last = self._last, self._read()
        return [f"{count} {kind}" for kind, count in (self._last - before).items()]

    def account(self) -> str:
        """How much there was before."""
        most = ", ".join(f"{count} {kind}" for kind, count in self._raised_at.most_common(3))
        return f"counted by XFS ({most} … before it)"


_METHODS: Final = frozenset(
    f"xfs_{method}"
    for method in (
        "vn_lookup", "vn_getattr", "vn_get_link", "vn_listxattr", "xattr_get", "get_acl", "fileattr_get", "fs_statfs",
        "file_open", "dir_open", "file_readdir", "file_read_iter", "file_llseek", "file_mmap", "file_fsync",
        "fs_fh_to_dentry",
    )
)  # fmt: skip
_CALL: Final = re.compile(r"^\s*(?P<who>.+)-(?P<pid>\d+)\s.*: (?P<function>\w+) <-(?P<caller>\S+)")


class Traced(_Heard):
    """The kernel's function tracer watches the methods of XFS: nobody may call one.

    It cannot tell one mount from another. So it is for guests, where nobody else has one of that kind; those of fuse
    are called there for the root, which may be a virtiofs.
    """

    name = "traced"
    what = "traced"
    words = (CALLED,)
    word = CALLED

    def __init__(self, layer: Layer) -> None:
        """Raises CannotFence on a kernel that is not ours alone, or has no function tracer."""
        super().__init__(layer)
        if not in_guest():
            raise CannotFence("the function tracer hears everybody's calls: traced is for guests")

    def _raise(self, root: int) -> None:
        with ExitStack() as stack:
            tracing = self._mounted(stack)
            known = (tracing / "available_filter_functions").read_text().splitlines()
            names = {line.split()[0] for line in known} & _METHODS
            if not names:
                raise SetupError("the function tracer knows no method of XFS")
            self._watched = len(names)  # not each kernel has all, or has it as a function of its own
            (tracing / "set_ftrace_filter").write_text("\n".join(names))
            (tracing / "current_tracer").write_text("function")
            (tracing / "tracing_on").write_text("1")
            self._pipe = os.open(tracing / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _mounted(self, stack: ExitStack) -> Path:
        """The tracer's files, on a mount that is gone when they were opened."""
        at = Path("/sys/kernel/tracing")
        try:
            syscalls.mount("tracefs", at, "tracefs")
            stack.callback(syscalls.detach, at)
            tracers = (at / "available_tracers").read_text().split()
        except OSError as error:
            raise CannotFence(f"kernel {os.uname().release} cannot trace: {error.strerror}") from error
        if "function" not in tracers:
            raise CannotFence(f"kernel {os.uname().release} has no function tracer")
        return at

    def _heard(self) -> list[str]:
        text = ""
        while True:
            try:
                text += os.read(self._pipe, 1 << 16).decode(errors="replace")
            except BlockingIOError:
                break
        calls = [found for found in map(_CALL.match, text.splitlines()) if found]
        return [f"{call['function']} by process {call['pid']} ({call['who']}), from {call['caller']}" for call in calls]

    def account(self) -> str:
        """What was listened to."""
        return f"traced by the kernel ({self._watched} methods of XFS)"


FENCES: Final = (Counters, Traced)
