# SPDX-License-Identifier: GPL-2.0-only
"""What each fence catches out of a fixed list of operations: on a union that was not migrated, and on one that was.

A fence shows something only about what it catches. So each is raised below a union that still needs its lower, with
warm caches and with cold ones; and then below a migrated one, where it must find nothing to catch (D9).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from datasets.tree import Directory, File, Symlink
from union import fences, migrate, syscalls
from union.configuration import FENCES, Configuration
from union.errors import SetupError
from union.fence import AS_BEFORE, Outcome, outcome
from union.layers import build_layers
from union.overlay import Overlay

State = Literal["warm", "cold", "detached"]
STATES: Final[tuple[State, ...]] = ("warm", "cold", "detached")
Act = Callable[[str], object]


def _listing(path: str) -> Act:
    return lambda root: sorted(os.listdir(f"{root}/{path}"))


def _read(path: str) -> Act:
    def act(root: str) -> bytes:
        with open(f"{root}/{path}", "rb", buffering=0) as file:
            return file.read()

    return act


def _append(root: str) -> int:
    with open(f"{root}/deep/er/append", "ab", buffering=0) as file:
        return file.write(b"more")


OPERATIONS: Final[dict[str, Act]] = {
    "stat": lambda root: os.lstat(f"{root}/file"),
    "stat deeper": lambda root: os.lstat(f"{root}/deep/er/file"),
    "access": lambda root: os.access(f"{root}/deep/er/file", os.R_OK),
    "list": _listing("."),
    "list deeper": _listing("deep/er"),
    "read": _read("file"),
    "read deeper": _read("deep/er/file"),
    "look up a missing name": lambda root: os.lstat(f"{root}/missing"),
    "look one up deeper": lambda root: os.lstat(f"{root}/deep/er/missing"),
    "readlink": lambda root: os.readlink(f"{root}/deep/link"),
    "getxattr": lambda root: os.getxattr(f"{root}/deep/er/file", "user.x"),
    "statfs": lambda root: os.statvfs(root).f_namemax,
    "create": lambda root: os.close(os.open(f"{root}/deep/er/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "mkdir": lambda root: os.mkdir(f"{root}/deep/er/newer"),
    "append": _append,
    "chmod": lambda root: os.chmod(f"{root}/deep/er/chmod", 0o600),
    "rename": lambda root: os.rename(f"{root}/deep/er/old", f"{root}/deep/er/renamed"),
    "unlink": lambda root: os.unlink(f"{root}/deep/er/gone"),
    "rmdir": lambda root: os.rmdir(f"{root}/deep/empty"),
}
"""What is done, in this order; each name is touched by one of those that change something."""

_DEEPEST: Final = {name: File(name.encode() * 3000) for name in ("append", "chmod", "old", "gone")}
TREE: Final = Directory({
    "file": File(b"top" * 3000),
    "deep": Directory({
        "link": Symlink("er/file"),
        "empty": Directory(),
        "er": Directory({"file": File(b"deep" * 3000, xattrs={"user.x": b"value"}), **_DEEPEST}),
    }),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one fence did in one state: of each of OPERATIONS what came of it, AS_BEFORE if it was not caught."""

    fence: str
    lower: str
    state: State
    came: dict[str, str]
    evidence: str

    @property
    def caught(self) -> list[str]:
        """The operations that it caught."""
        return [name for name, came in self.came.items() if came != AS_BEFORE]


def combinations() -> list[tuple[str, str]]:
    """Each fence with each kind of lower that it is for."""
    return [(name, lower) for name, lowers in FENCES.items() for lower in lowers]


def rows(name: str, lower: str, *, detachable: bool) -> Iterator[Row]:
    """The rows of one fence below a `lower`; the last only if the kernel has xino=nofollow, which `detachable` says.

    Raises SetupError when the self-test does not bite, CannotFence or SetupError for what this kernel lacks.
    """
    wanted = _undisturbed(lower)
    for state in STATES:
        if detachable or state != "detached":
            yield _row(name, lower, state, wanted)


def _undisturbed(lower: str) -> dict[str, Outcome]:
    """What the operations give without a fence."""
    with ExitStack() as stack:
        overlay = _mounted(stack, lower, "on")
        root = str(overlay.stack.mountpoint)
        return {what: outcome(partial(act, root)) for what, act in OPERATIONS.items()}


def _mounted(stack: ExitStack, lower: str, xino: str) -> Overlay:
    layers = build_layers(stack, [TREE], Configuration(lower_fs=lower))  # type: ignore[arg-type]
    overlay = Overlay(layers, (("xino", xino),))
    stack.enter_context(overlay.mounted())
    return overlay


def _row(name: str, lower: str, state: State, wanted: dict[str, Outcome]) -> Row:
    with ExitStack() as stack:
        overlay = _mounted(stack, lower, "nofollow" if state == "detached" else "on")
        root = overlay.stack.mountpoint
        if state == "detached":
            migration = migrate.dfs(root, overlay.stack.upperdir)
            if left := [one.path for one in migration.leftovers if one.path != migrate.ROOT]:
                raise SetupError(f"not migrated: {', '.join(left)}")
        _warm_up(str(root))
        fence = fences.make(name, overlay.stack.lower)
        fence.fence()
        if state == "cold":
            syscalls.drop_caches()
        came = {what: fence.judge(partial(act, str(root)), wanted[what]) for what, act in OPERATIONS.items()}
        return Row(name, lower, state, came, fence.self_test(cold=state == "cold"))


def _warm_up(root: str) -> None:
    for what in ("stat deeper", "list", "list deeper", "read", "read deeper", "readlink", "getxattr"):
        OPERATIONS[what](root)
    for name in ("missing", "deep/er/missing", *(f"deep/er/{name}" for name in _DEEPEST), "deep/empty"):
        os.access(f"{root}/{name}", os.R_OK)
