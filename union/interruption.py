# SPDX-License-Identifier: GPL-2.0-only
"""A migration that is interrupted, by a power cut, a kill or a full upper layer, and resumed to the same end (D12)."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from datasets.reference import SAMPLE_NAME
from datasets.tree import Directory
from union import filecalls, migrate, syscalls
from union.arena import Arena
from union.configuration import Configuration, Option
from union.errors import SetupError
from union.example import TOP, Played
from union.fences.disk import Shutdown
from union.kernellog import KernelLog
from union.layers import LayerStack
from union.overlay import Overlay
from union.portrait import Portrait, differences, portrait

How = Literal["power", "killed", "full"]
HOWS: Final[tuple[How, ...]] = ("power", "killed", "full")
XINO: Final = ("xino", "nofollow")
_FILLER: Final = ".filler"
Step = tuple[str, Callable[[int], object]]
"""Its words, and what it does to the union whose root is open under this descriptor."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The tree of `lowers`, the topmost first, is migrated for `steps` steps, or all if there are not so many.

    Then, by `how`: the filesystem of the upper layer is shut down without its log; or the process is killed in the
    next step; or there was no room any more from that step on. With `synced` all was written out before the last step
    of a power cut, so that the log holds a part of it.
    """

    lowers: tuple[Directory, ...]
    steps: int
    how: How = "power"
    synced: bool = False
    options: tuple[Option, ...] = ()

    @property
    def detaches(self) -> bool:
        """Like an example: it needs a kernel that can."""
        return True

    def configuration(self) -> Configuration:
        """The union: what loses power has a log."""
        upper = "xfs" if self.how != "killed" else "tmpfs"
        return Configuration(lower_fs="xfs", upper_fs=upper, xino="nofollow")  # type: ignore[arg-type]


def play(one: Interrupted, arena: Arena) -> Played:
    """Play it: the union must show the same tree right after it, when it is migrated to the end, and fenced.

    Raises HarnessError for what is our own fault, or when the kernel refuses.
    """
    played = _Interruption(one)
    with ExitStack() as stack:
        log = stack.enter_context(KernelLog())
        pitch = arena.lay(stack, one.configuration(), None)
        layers = pitch.fill([Directory({TOP: tree}) for tree in one.lowers])
        overlay = Overlay(layers, (XINO, *one.options))
        stack.enter_context(overlay.mounted())
        played.run(overlay, arena)
        played.complaints += [f"kernel log: {line}" for line in log.trouble()]
    return Played(tuple(played.complaints), tuple(played.said), len(played.said))


class _Interruption:
    def __init__(self, one: Interrupted) -> None:
        self._one = one
        self.complaints: list[str] = []
        self.said: list[str] = []

    def run(self, overlay: Overlay, arena: Arena) -> None:
        """From the mounted union to the fenced one."""
        with _opened(overlay) as root:
            filecalls.syncfs(root)  # what a power cut takes is to be of the migration
        wanted = portrait(str(overlay.stack.mountpoint))
        steps = list(steps_of(wanted))[: self._one.steps]
        self.said += [words for words, _ in steps]
        {"power": self._lose_power, "killed": self._be_killed, "full": self._fill_up}[self._one.how](
            overlay, arena, steps
        )
        self._same(overlay, wanted, "after it was interrupted")
        if self.complaints:
            return
        migration = migrate.dfs(overlay.stack.mountpoint, overlay.stack.upperdir, namespace=_namespace(self._one))
        left = [one for one in migration.leftovers if one.path != migrate.ROOT]
        self.complaints += [f"D12: resumed, {one.path}: {one.reason}" for one in left]
        if migration.in_upper != migration.objects:
            self.complaints.append(f"D12: resumed, {migration.in_upper} of {migration.objects} objects are in upper")
        self._same(overlay, wanted, "migrated to the end")
        fence = Shutdown(arena.lower, in_process=True)
        fence.fence()
        fence.self_test(cold=True)
        self._same(overlay, wanted, "behind the fence")

    def _same(self, overlay: Overlay, wanted: Portrait, when: str) -> None:
        try:
            now = portrait(str(overlay.stack.mountpoint))
        except OSError as error:
            self.complaints.append(f"D12: {when}: {error}")
            return
        if now != wanted:
            self.complaints.append(f"D12: {when}: {differences(now, wanted)}")

    def _lose_power(self, overlay: Overlay, arena: Arena, steps: list[Step]) -> None:
        with _opened(overlay) as root:
            for number, (_, step) in enumerate(steps):
                if self._one.synced and number == len(steps) - 1:
                    filecalls.syncfs(root)
                step(root)
        self.said.append("upper is shut down and recovered")
        Shutdown(overlay.stack.upper, in_process=True).fence()
        overlay.unmount()
        arena.recover_upper()
        overlay.mount()

    def _be_killed(self, overlay: Overlay, arena: Arena, steps: list[Step]) -> None:
        """A child takes the steps and all that would come after them; it is killed as soon as it has taken these."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            _migrate_and_tell(overlay, theirs)
        os.close(theirs)
        for _ in steps:
            if not os.read(ours, 1):
                break
        os.kill(pid, signal.SIGKILL)
        os.close(ours)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise SetupError("the migrator failed before it was killed")
        self.said.append("the migrator is killed")

    def _fill_up(self, overlay: Overlay, arena: Arena, steps: list[Step]) -> None:
        """From the next step on upper has no room, which is no reason not to list (D15); then it has some again."""
        with _opened(overlay) as root:
            for _, step in steps:
                step(root)
            filler = _fill(overlay.stack)
            self.said.append("upper is full")
            try:
                for words, step in list(steps_of(portrait(str(overlay.stack.mountpoint))))[len(steps) :]:
                    try:
                        step(root)
                    except OSError as error:
                        self.said.append(f"{words}: {error.strerror}")
                        if error.errno != errno.ENOSPC or words.startswith("list "):
                            self.complaints.append(f"D12, D15: {words}, with a full upper: {error}")
            finally:
                filler.unlink()


def _namespace(one: Interrupted) -> str:
    return "user" if ("userxattr", "") in one.options else "trusted"


@contextmanager
def _opened(overlay: Overlay) -> Iterator[int]:
    """The root of a union, open for a while."""
    root = os.open(overlay.stack.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield root
    finally:
        os.close(root)


def steps_of(tree: Portrait) -> Iterator[Step]:
    """Copy up each object, a directory before what is in it; then list each directory after what is in it."""
    names = sorted(name for name in tree if name not in ("", SAMPLE_NAME))
    for name in names:
        yield f"copy up {name}", _copy(name, stat.S_IFMT(tree[name].mode) >> 12)
    for name in [*sorted((name for name in names if stat.S_ISDIR(tree[name].mode)), reverse=True), "."]:
        yield f"list {name}", _list(name)


def _copy(name: str, kind: int) -> Callable[[int], object]:
    return lambda root: migrate.copy_up(name, kind, root)


def _list(name: str) -> Callable[[int], object]:
    def work(root: int) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
        try:
            syscalls.getdents(fd)
        finally:
            os.close(fd)

    return work


def _migrate_and_tell(overlay: Overlay, pipe: int) -> None:
    """In a child: take all steps, and tell of each."""
    status = 1
    try:
        with _opened(overlay) as root:
            for _, step in steps_of(portrait(str(overlay.stack.mountpoint))):
                step(root)
                os.write(pipe, b".")
        status = 0
    except BrokenPipeError:  # killed soon
        status = 0
    finally:
        os._exit(status)


def _fill(layers: LayerStack) -> Path:
    """A file that takes all room on the filesystem of the upper layer."""
    filler = layers.upper.root / _FILLER
    fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        size, at = 64 << 20, 0
        while size >= 4096:
            try:
                os.posix_fallocate(fd, at, size)
                at += size
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise SetupError(f"upper cannot be filled: {error}") from error
                size //= 2
    finally:
        os.close(fd)
    return filler
