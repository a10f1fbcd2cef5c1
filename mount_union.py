# SPDX-License-Identifier: GPL-2.0-only
"""The story on one screen: layers, dataset, mount, migrate, fence; then the union is handed over."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import layers as layering
from datasets.reference import SAMPLE, SAMPLE_NAME
from report.events import Checked, Evidence, Listener
from union import overlay as overlays
from union.configuration import Configuration
from union.cycle import Cycler
from union.detach import detach, over_empty_lower, reached
from union.effective import Effective, effective
from union.fence import Fence, Listening
from union.judge import DeviceRule, Judge, Look
from union.kernellog import KernelLog
from union.layers import Foundation, Lay
from union.model import Model
from union.overlay import MountRefused, Overlay
from union.plan import NothingLeft, Share, Turn
from union.substitutes import kind_of
from union.witness import Witness


@dataclass(slots=True)
class Union:
    """A mounted union with its model and its judge, ready for the operations of its share."""

    turns: tuple[Turn, ...]
    overlay: Overlay
    judge: Judge
    cycler: Cycler
    log: KernelLog
    tell: Listener
    configuration: Configuration
    fence: Fence | None = None

    def finish(self, spoiled: Collection[str]) -> None:
        """The last look: the whole tree, then the unmount, then what the kernel said to it.

        The top directories in `spoiled` saw a failure, after which the model no longer knows them.
        """
        # After a detach everything was looked at behind the fence, and is listed once more over an empty lower.
        look = Look.GLANCE if self.configuration.fence else Look.WHOLE
        complaints = tuple(self.judge.tree(look=look, skip=spoiled))
        self.tell(Checked("D7, D8, D9", "the whole union is as the model says at the end", complaints))
        if isinstance(self.fence, Listening):
            self.tell(Checked("D9", "no request has reached the lower since", tuple(reached(self.fence))))
            self.tell(Evidence("lower requests", f"{self.fence.total} after the detach, {self.fence.account()}"))
        self.overlay.unmount()
        if self.configuration.fence and self.configuration.migrate != "none":
            over_empty_lower(self.overlay, self.judge, self.cycler, spoiled, self.tell)
        trouble = tuple(self.log.trouble())
        self.tell(Checked("-", "no kernel warning, no dentry still in use, no taint", trouble))
        self.tell(Evidence("kernel warnings", str(self.log.seen or "none")))


@contextmanager
def mount_union(
    configuration: Configuration, share: Share, mountpoint: Path, tell: Listener, lay: Lay = Foundation
) -> Iterator[Union]:
    """Build and mount the union of one share and, if the configuration says so, detach its lower.

    `lay` makes the filesystems of the layers.

    Must run in a private mount namespace; everything is undone on exit. Raises Unsupported when the kernel
    refuses the mount, NothingLeft when all of the share is skipped, SetupError when a part cannot be made.
    """
    settings = effective(configuration, share.options)
    with ExitStack() as stack:
        log = stack.enter_context(KernelLog())
        foundation = lay(stack, configuration, mountpoint)
        share = share.able(foundation.lower.root, foundation.uppers(), tell, configuration.lower_fs)
        layers = foundation.fill(share.trees(), share.upper())
        if configuration.nested:
            layers = overlays.nest(stack, layers, settings.nested_options)
        overlay = kind_of(configuration)(layers, settings.options, configuration.fuse or overlays.SOURCE)
        _mount(stack, overlay, share, tell)
        judge = _judge(configuration, settings, overlay, share)
        cycler = Cycler(stack, configuration, overlay, judge, lambda union: _devices(configuration, settings, union))
        tell(Evidence("kernel", f"{os.uname().release} ({os.uname().machine})"))
        tell(Evidence("layers", layers.describe()))
        tell(Evidence("options in effect", overlay.describe()))
        fence = detach(configuration, overlay, judge, cycler, tell) if configuration.detach else None
        yield Union(share.turns, overlay, judge, cycler, log, tell, configuration, fence)


def _mount(stack: ExitStack, overlay: Overlay, share: Share, tell: Listener) -> None:
    """Mount it until the stack is undone. What is refused only because of the share's own options is skipped."""
    try:
        stack.enter_context(overlay.mounted())
    except MountRefused as refused:
        if not share.options:
            raise
        for turn in share.turns:
            turn.skip([str(refused)], tell)
        raise NothingLeft from refused


def _judge(
    configuration: Configuration, settings: Effective, overlay: Overlay, share: Share
) -> Judge:
    """The model of what was just mounted, and the one who compares."""
    trees, populated = share.trees(), share.upper()
    upper = {} if configuration.plain else {SAMPLE_NAME: SAMPLE}
    model = Model(
        layering.populated(populated, trees) if populated else layering.merged(trees),
        populated=populated,
        upper=upper,
        redirects=settings.redirects,
        indexed=settings.index or configuration.plain,  # a plain tree keeps its hard links
        index_all=settings.index_all,
        renumbers=settings.renumbers,
    )
    if configuration.plain:
        model.detach()
    return Judge(
        model,
        Witness(str(overlay.stack.mountpoint), str(overlay.stack.upperdir), namespace=settings.namespace),
        _devices(configuration, settings, overlay),
        renumbers=settings.renumbers,
        layered=not (configuration.plain or configuration.fuse),
        origins=not configuration.fuse and (not configuration.nested or settings.index),
        unique=not configuration.fuse,  # a FUSE overlay shows the numbers of both layers as they are
    )


def _devices(configuration: Configuration, settings: Effective, overlay: Overlay) -> DeviceRule:
    """Which st_dev the objects of the mounted union may have (parity 4.2, 4.3)."""
    layers = overlay.stack
    own = os.stat(layers.mountpoint).st_dev
    # A nested overlay is a filesystem of its own, also on layers that all lie on one.
    same = layers.one_filesystem and (settings.xino or not configuration.nested)
    same = same or (settings.xino and not configuration.nested)
    one = configuration.plain or configuration.fuse is not None
    roots = [*layers.lowerdirs, layers.upperdir]
    real = frozenset(os.stat(root).st_dev for root in roots) - {own}
    shifts = settings.xino and len({layer.device for layer in layers.filesystems}) > 2
    free = configuration.nested and settings.xino and not same
    return DeviceRule(same or one, own, real, free=free, shifts=shifts)
