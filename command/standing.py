# SPDX-License-Identifier: GPL-2.0-only
"""`-s` leaves a mounted union standing for the user to look at, `-c` takes it down (parity 1.2, 2.5).

Both work in the caller's mount namespace, and `-c` also after unionmount-testsuite. Only mounts whose source
is one of the suite's names are ever taken down, whoever made them.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from command.options import Options
from datasets.reference import CLASSICAL, reference
from union import overlay as overlays
from union import syscalls
from union.configuration import Places
from union.effective import effective
from union.errors import SetupError, Unsupported, UsageError
from union.filesystems import READ_ONLY
from union.layers import build_layers
from union.mountinfo import Mount, mounts
from union.substitutes import kind_of
from union.workspace import SCRATCH_PREFIX

BASE, LOWER, UPPER, MNT = Path("/base"), Path("/lower"), Path("/upper"), Path("/mnt")
DAEMON_LIMIT = 10.0  # seconds that a FUSE overlay's program gets to end once it is unmounted
_LAYER = re.compile(r".*_layer")


def set_up(options: Options) -> int:
    """Build the classical dataset, mount the union and leave both standing; prints where."""
    configuration = options.configuration
    if configuration.detach:
        raise UsageError("--set-up leaves a union standing that nothing was done to: add --detach=off")
    if os.geteuid() != 0:
        raise Unsupported(f"mounting needs root, this is uid {os.geteuid()}")
    settings = effective(configuration)
    mountpoint = configuration.places.mountpoint or MNT
    with ExitStack() as stack:
        layers = build_layers(stack, [reference(CLASSICAL)], configuration, mountpoint)
        if configuration.nested:
            layers = overlays.nest(stack, layers, settings.nested_options)
        kind_of(configuration)(layers, settings.options, configuration.fuse or overlays.SOURCE).mount()
        print(f"{layers.mountpoint}: {layers.describe()}; ./run -c takes it down")
        stack.pop_all()  # nothing is undone
    return 0


def clean_up(options: Options) -> int:
    """Take down what a set-up or the classical suite left, what was mounted last first; nothing is no error."""
    os.sync()
    standing = list(mounts())
    known = _Known(options.configuration.places, standing)
    for mount in reversed(standing):
        if not known.ours(mount):
            continue
        try:
            if syscalls.mount_id(mount.point) != mount.id:
                raise SetupError(f"{mount.point}: another mount lies on ours; unmount it first")
            with _daemons_gone(mount):
                syscalls.umount(mount.point)
        except OSError as error:
            raise SetupError(f"cannot unmount {mount.point}: {error.strerror}") from error
        if _is_scratch(mount):
            Path(mount.point).rmdir()
    return 0


@contextmanager
def _daemons_gone(mount: Mount) -> Iterator[None]:
    """Wait at the end of the block until the programs that serve a FUSE mount are gone: they hold its layers."""
    serving = []
    if mount.fstype.startswith("fuse."):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it may end at any moment
                if os.fsencode(mount.point) in path.read_bytes().split(b"\0"):
                    serving.append(os.pidfd_open(int(path.parent.name)))
    try:
        yield
        for process in serving:
            select.select([process], [], [], DAEMON_LIMIT)
    finally:
        for process in serving:
            os.close(process)


class _Known:
    """The directories that the suites mount on, and what of a list of mounts is theirs."""

    def __init__(self, places: Places, standing: Sequence[Mount]) -> None:
        base = places.base
        self.scratch = [Path(mount.point) for mount in standing if _is_scratch(mount)]
        self.lower = places.lower or (base / "l" if base else LOWER)
        self.upper = base or UPPER
        self.roots = {self.lower, self.upper, base or BASE}
        self.union = places.mountpoint or (base / "m" if base else MNT)

    def ours(self, mount: Mount) -> bool:
        """Whether it is a layer or a union of ours: by its source and by where it is."""
        point = Path(mount.point)
        if any(point.is_relative_to(scratch) for scratch in self.scratch):
            return True
        if _LAYER.fullmatch(mount.source):
            return point in self.roots or point.parent in self.roots or point == self.union
        if point == self.lower:
            return mount.source.startswith("/dev/loop") and mount.fstype in READ_ONLY
        if _has_upper_in(mount, self.scratch):  # wherever the user had it mounted
            return True
        return (point == self.union or point.parent in self.roots) and self._is_union(mount)

    def _is_union(self, mount: Mount) -> bool:
        """A union over one of the layers: an overlay of somebody else's on the same directory is none."""
        if mount.fstype.startswith("fuse."):
            return mount.source == mount.fstype.removeprefix("fuse.")
        return _has_upper_in(mount, [self.upper])


def _has_upper_in(mount: Mount, roots: Sequence[Path]) -> bool:
    upper = Path(dict(mount.options).get("upperdir") or "/nowhere")
    return mount.fstype == "overlay" and any(upper.is_relative_to(root) for root in roots)


def _is_scratch(mount: Mount) -> bool:
    return mount.fstype == "tmpfs" and mount.source == SCRATCH_PREFIX.rstrip("-")
