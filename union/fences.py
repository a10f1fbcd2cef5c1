# SPDX-License-Identifier: GPL-2.0-only
"""All fences by name."""

from __future__ import annotations

from union import diskfences
from union.diskfences import Shutdown
from union.fence import Fence
from union.filesystems import Layer


def kinds() -> dict[str, type[Fence]]:
    """The class of each name in `configuration.FENCES`."""
    from union import fusefences, kernelfences  # with all that a daemon needs; few runs have one

    return {kind.name: kind for kind in (*diskfences.FENCES, *fusefences.FENCES, *kernelfences.FENCES)}


def make(name: str, layer: Layer, *, in_process: bool = False) -> Fence:
    """The fence of this name for the layer; `in_process` as for a Shutdown. Raises CannotFence."""
    if name == Shutdown.name:
        return Shutdown(layer, in_process=in_process)
    return kinds()[name](layer)
