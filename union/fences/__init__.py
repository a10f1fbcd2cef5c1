# SPDX-License-Identifier: GPL-2.0-only
"""All fences by name."""

from __future__ import annotations

from union.fence import Fence
from union.fences import disk
from union.fences.disk import Shutdown
from union.filesystems import Layer


def kinds() -> dict[str, type[Fence]]:
    """The class of each name in `configuration.FENCES`."""
    from union.fences import fuse, kernel  # with all that a daemon needs; few runs have one

    return {kind.name: kind for kind in (*disk.FENCES, *fuse.FENCES, *kernel.FENCES)}


def make(name: str, layer: Layer, *, in_process: bool = False) -> Fence:
    """The fence of this name for the layer; `in_process` as for a Shutdown. Raises CannotFence."""
    if name == Shutdown.name:
        return Shutdown(layer, in_process=in_process)
    return kinds()[name](layer)
