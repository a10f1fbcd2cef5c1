# SPDX-License-Identifier: GPL-2.0-only
"""The story on one screen: layers, dataset, mount, migrate, fence; then the union is handed over."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.reference import SAMPLE, SAMPLE_NAME, reference
from report.events import Checked, Evidence, Listener
from union.configuration import Configuration
from union.detach import detach, over_empty_lower
from union.judge import DeviceRule, Judge, Look
from union.kernellog import KernelLog
from union.layers import LowerFs, build_layers
from union.model import Model
from union.overlay import Overlay, mount_options
from union.witness import Witness

LAYER_KEYS = ("lowerdir", "upperdir", "workdir")


@dataclass(slots=True)
class Union:
    """A mounted union with its model and its judge, ready for operations."""

    overlay: Overlay
    judge: Judge
    log: KernelLog
    tell: Listener
    configuration: Configuration

    def finish(self, spoiled: Collection[str]) -> None:
        """The last look: the whole tree, then the unmount, then what the kernel said to it.

        The top directories in `spoiled` saw a failure, after which the model no longer knows them.
        """
        # After a detach everything was looked at behind the fence, and is listed once more over an empty lower.
        look = Look.GLANCE if self.configuration.fence else Look.WHOLE
        complaints = tuple(self.judge.tree(look=look, skip=spoiled))
        self.tell(Checked("D7, D8, D9", "the whole union is as the model says at the end", complaints))
        self.overlay.unmount()
        if self.configuration.fence and self.configuration.migrate != "none":
            over_empty_lower(self.overlay, self.judge, spoiled, self.tell)
        trouble = tuple(self.log.trouble())
        self.tell(Checked("-", "no kernel warning, no dentry still in use, no taint", trouble))
        self.tell(Evidence("kernel warnings", str(len(trouble)) if trouble else "none"))


@contextmanager
def mount_union(
    configuration: Configuration, tops: Mapping[str, int], mountpoint: Path, tell: Listener
) -> Iterator[Union]:
    """Build and mount the union that `configuration` asks for and, if it says so, detach its lower.

    `tops` gives the number of numbered sets per top directory. Must run in a private mount namespace;
    everything is undone on exit. Raises Unsupported when the kernel refuses the mount, SetupError when
    a part cannot be made.
    """
    lower_tree = reference(tops)
    with ExitStack() as stack:
        log = stack.enter_context(KernelLog())
        lower_fs: LowerFs = "xfs" if configuration.detach else "tmpfs"
        layers = build_layers(stack, lower_fs=lower_fs, tree=lower_tree, mountpoint=mountpoint)
        overlay = Overlay(layers, mount_options(configuration.xino, directory_renames=configuration.directory_renames))
        stack.enter_context(overlay.mounted())
        model = Model(lower_tree, upper={SAMPLE_NAME: SAMPLE}, redirects=configuration.directory_renames)
        devices = DeviceRule(
            same=configuration.xino != "off",
            directory=os.stat(mountpoint).st_dev,
            lower=os.stat(layers.lower.root).st_dev,
            upper=os.stat(layers.upper.root).st_dev,
        )
        witness = Witness(str(mountpoint), str(layers.upperdir))
        judge = Judge(model, witness, devices, renumbers=configuration.xino == "nofollow")
        union = Union(overlay, judge, log, tell, configuration)
        options = overlay.effective_options()
        tell(Evidence("kernel", f"{os.uname().release} ({os.uname().machine})"))
        tell(Evidence("layers", f"lower {layers.lower.fstype}, upper {layers.upper.fstype}"))
        shown = ",".join(f"{key}={value}" for key, value in options.items() if value and not key.startswith(LAYER_KEYS))
        tell(Evidence("options in effect", shown or "the kernel's defaults"))
        if configuration.detach:
            detach(configuration, overlay, union.judge, tell)
        yield union
