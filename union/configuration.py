# SPDX-License-Identifier: GPL-2.0-only
"""What a run is asked to do: one value, handed from the command line to the union."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Kind = Literal["no", "ov", "ovov"]
Xino = Literal["off", "on", "nofollow"]
MigrateWay = Literal["mail", "dfs", "none"]
Moment = Literal["both", "before", "after"]
LowerFs = Literal["tmpfs", "xfs", "ext4", "btrfs", "squashfs", "erofs", "fuse"]
UpperFs = Literal["tmpfs", "xfs", "ext4", "btrfs"]
Option = tuple[str, str]
"""A mount option: its name and its value, "" for a flag."""

FENCES = {
    "shutdown": ("xfs", "ext4", "btrfs"),
    "shutdown-flushed": ("xfs", "ext4", "btrfs"),
    "swapped": ("squashfs", "erofs"),
    "overwritten": ("squashfs", "erofs", "xfs", "ext4", "btrfs"),
    "truncated": ("squashfs", "erofs", "xfs", "ext4", "btrfs"),
    "silence": ("fuse",),
    "killed": ("fuse",),
    "aborted": ("fuse",),
    "stopped": ("fuse",),
    "failing": ("fuse",),
    "lying": ("fuse",),
    "counters": ("xfs",),
    "traced": ("xfs",),
}
"""The fences, and the kinds of lower each is for. A lower gets the first that is for it unless another is named."""


def fence_for(lower_fs: str) -> str:
    """The fence that a lower gets by itself; "" if there is none for it."""
    return next((name for name, lowers in FENCES.items() if lower_fs in lowers), "")


EVERYTHING = "*"  # leave_unlisted: no directory is listed


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of the user's that a run is to work in, and mount options (the UNIONMOUNT_* variables).

    Without `base` and `lower` everything is made on filesystems of our own.
    """

    base: Path | None = None  # holds the upper layers and, unless named, the lower layer and the mount point
    lower: Path | None = None  # the root of the lower layer
    mountpoint: Path | None = None
    options: tuple[Option, ...] = ()

    @property
    def given(self) -> bool:
        """Whether layers lie on a filesystem that is not ours: it is never fenced."""
        return self.base is not None or self.lower is not None


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of the unions of one run and what happens to them before the operations."""

    kind: Kind = "ov"
    rotations: int | None = None  # =N: remount after changes of names, with up to N rotations of the upper layer
    fuse: str | None = None  # a FUSE overlay instead of the kernel's: the name of its program
    samefs: bool = False
    lower_fs: LowerFs = "tmpfs"
    upper_fs: UpperFs = "tmpfs"
    maxfs: int = 0  # the first so many upper layers have a filesystem of their own
    xdev: bool = False  # directory renames stay off
    xino: Xino = "off"  # what was asked for
    meta: bool = False
    verify: bool = False
    slashes: bool = False  # a terminal slash on each path under test
    cold: bool = False  # caches are dropped before each scenario
    detach: bool = False  # the lower is migrated and fenced before the operations
    migrate: MigrateWay = "none"
    fence: str = ""  # how the lower is fenced, a name of union.fences; "" if it is not
    in_process: bool = False  # the fence is raised without a program
    moment: Moment = "after"  # when the operations of a detach run are replayed
    leave_uncopied: str | None = None  # a control: this file is not copied up
    leave_unlisted: str | None = None  # a control: this directory, or EVERYTHING, is never listed
    places: Places = field(default_factory=Places)

    @property
    def nested(self) -> bool:
        """Whether the lowest layer of the union is an overlay itself."""
        return self.kind == "ovov"

    @property
    def plain(self) -> bool:
        """Whether there is no union at all: the lower tree itself is what is looked at."""
        return self.kind == "no"

    @property
    def layers_are_chosen(self) -> bool:
        """Whether anything is asked for that is about its own layers and their overlay, but to detach them."""
        own = Configuration() if not self.detach else Configuration(lower_fs="xfs", xino="nofollow")
        how = {"detach": False, "migrate": "none", "fence": "", "moment": "after", "cold": False}
        return replace(self, **how, leave_uncopied=None, leave_unlisted=None) != own  # type: ignore[arg-type]

    @property
    def detached(self) -> bool:
        """Whether nothing of the lower is in use any more when the operations are replayed."""
        return self.detach and self.migrate != "none"

    def stages(self) -> tuple[Configuration, ...]:
        """The runs that it stands for: of a detach run one before the detach, on unions of its own, and one after."""
        before = replace(self, migrate="none", fence="", moment="before")
        after = replace(self, moment="after")
        if not self.detached:
            return (after,)
        return {"both": (before, after), "before": (before,), "after": (after,)}[self.moment]

    def how(self, *, rotating: bool = False) -> str:
        """The banner's words: what was asked for, in the classical suite's order (parity 1.5)."""
        words = [f"--{self.kind}" + (f"={self.rotations}" if rotating else "")]
        if self.plain:
            return words[0]
        words += [f"--maxfs={self.maxfs}"] if self.maxfs else ["--samefs"] if self.samefs else []
        words += [f"--{flag}" for flag in ("xdev",) if self.xdev]
        words += ["--xino"] if self.xino != "off" else []
        words += [f"--{flag}" for flag in ("meta", "verify") if getattr(self, flag)]
        if self.detach and self.migrate != "mail":
            words.append(f"--migrate={self.migrate}")
        if self.detach and self.fence != fence_for(self.lower_fs):
            words.append(f"--fence={self.fence}" if self.fence else "--no-fence")
        words += ["--cold"] if self.cold else []
        return " ".join(words)
