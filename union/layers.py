# SPDX-License-Identifier: GPL-2.0-only
"""The stack of layers that a union is mounted from (parity 2.1, 2.2).

Everything made here goes on the caller's ExitStack and is undone in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from datasets.reference import SAMPLE, SAMPLE_NAME
from datasets.tree import Directory, write
from union import filesystems
from union.configuration import Configuration
from union.errors import SetupError
from union.filesystems import Layer, make_read_only
from union.workspace import claim, scratch_directory

LOWER_NAME: Final = "lower_layer"  # mount sources of the classical suite: its clean-up knows them too
UPPER_NAME: Final = "upper_layer"
NESTED_NAME: Final = "nested_layer"
SERVED: Final = "fuse"  # a lower that is served by a daemon of ours
DEFAULT: Final = Configuration()


@dataclass(frozen=True, slots=True)
class LayerStack:
    """What an overlay is mounted from, and where.

    `lower` is the filesystem of the lowest layer, `home` that of the upper layers and `upper` that of the present
    one, number `number`, which may have one of its own. `lowerdirs` are the lower layers, the topmost first;
    `rotated` are the filesystems of those that were upper layers before. `scratch` holds what we made.
    """

    lower: Layer
    home: Layer
    upper: Layer
    lowerdirs: tuple[Path, ...]
    upperdir: Path
    workdir: Path
    mountpoint: Path
    scratch: Path
    number: int = 0
    rotated: tuple[Layer, ...] = ()

    @property
    def filesystems(self) -> tuple[Layer, ...]:
        """Of all layers, the upper one's first."""
        return (self.upper, *self.rotated, self.lower)

    @property
    def one_filesystem(self) -> bool:
        """Whether all layers are on the same one."""
        return len({layer.device for layer in self.filesystems}) == 1

    def describe(self) -> str:
        """One line for a summary."""
        rotated = f", {len(self.rotated)} rotated" if self.rotated else ""
        several = f" in {len(self.lowerdirs)} layers" if len(self.lowerdirs) > 1 + len(self.rotated) else ""
        where = " of the user's" if not self.lower.ours else ""
        one = " on one filesystem" if self.one_filesystem else ""
        return f"lower {self.lower.fstype}{where}{several}{rotated}, upper {self.upper.fstype}{one}"


@dataclass(frozen=True, slots=True)
class _Roots:
    """Directories that exist and where the layers go: the lower layer's root, that of the upper layers, the union."""

    lower: Path
    upper: Path
    mountpoint: Path
    scratch: Path


class Foundation:
    """The filesystems of one union, made and still empty: what they can do is found out before they are filled."""

    def __init__(
        self, stack: ExitStack, configuration: Configuration = DEFAULT, mountpoint: Path | None = None
    ) -> None:
        """Make and mount them; raises SetupError for anything that cannot be made.

        Without `mountpoint` (an existing directory) and a place named by the user, the union is mounted inside
        the scratch directory. The caller must be in a private mount namespace.
        """
        self._stack = stack
        self._configuration = configuration
        try:
            self._roots = self._find_roots(mountpoint)
            self.upper = self._make_upper_root()
            self.lower = self._make_lower()
        except OSError as error:
            raise SetupError(f"cannot build the layers: {error}") from error

    def _find_roots(self, mountpoint: Path | None) -> _Roots:
        places, stack = self._configuration.places, self._stack
        if mountpoint is not None and not mountpoint.is_dir():
            raise SetupError(f"the mount point {mountpoint} is not a directory")
        scratch = scratch_directory(stack)
        if places.base is not None:
            claim(stack, places.base, "UNIONMOUNT_BASEDIR")
        samefs = self._configuration.samefs
        upper = places.base or scratch / ("samefs" if samefs else "upper")
        lower = (upper if samefs else places.lower or places.base or scratch) / "l"
        at = places.mountpoint or (places.base / "m" if places.base else mountpoint or scratch / "m")
        for path in (upper, at):
            if path != places.mountpoint:
                path.mkdir(exist_ok=True)
        return _Roots(lower, upper, at, scratch)

    def _make_upper_root(self) -> Layer:
        configuration, roots = self._configuration, self._roots
        if configuration.places.base is not None:
            return filesystems.of_the_user(roots.upper)
        if configuration.samefs:
            return filesystems.make(self._stack, configuration.lower_fs, roots.upper, roots.scratch, LOWER_NAME)
        return filesystems.make(self._stack, configuration.upper_fs, roots.upper, roots.scratch, UPPER_NAME)

    def _make_lower(self) -> Layer:
        configuration, roots = self._configuration, self._roots
        if configuration.places.lower is not None:
            claim(self._stack, configuration.places.lower, "UNIONMOUNT_LOWERDIR")
        roots.lower.mkdir()
        if configuration.places.lower is not None:
            return filesystems.of_the_user(roots.lower)
        if configuration.samefs:
            return replace(self.upper, root=roots.lower)
        if configuration.lower_fs in (*filesystems.READ_ONLY, SERVED):
            return filesystems.tmpfs(self._stack, roots.lower, LOWER_NAME)  # until its content is known
        return filesystems.make(self._stack, configuration.lower_fs, roots.lower, roots.scratch, LOWER_NAME)

    def uppers(self) -> tuple[Path, ...]:
        """The roots of a filesystem of each kind that an upper layer can be on."""
        if not self._configuration.maxfs:
            return (self.upper.root,)
        at = self._roots.scratch / "like-an-upper"
        at.mkdir(exist_ok=True)
        return (self.upper.root, filesystems.tmpfs(self._stack, at, UPPER_NAME).root)

    def fill(self, trees: Sequence[Directory], upper: Directory | None = None) -> LayerStack:
        """Write `trees`, one per lower layer and the topmost first, and make the first upper layer.

        The lower filesystem is read-only from then on if it is ours alone. The upper layer gets the sample file
        of the classical suite, and all that `upper` has. Raises SetupError.
        """
        roots = self._roots
        try:
            root, lowerdirs = self._write(trees)
            if self.lower.ours and not self._configuration.samefs and not self._configuration.plain:
                make_read_only(root)
            made = LayerStack(
                lower=self.lower,
                home=self.upper,
                upper=self.upper,
                lowerdirs=lowerdirs,
                upperdir=roots.upper,
                workdir=roots.upper,
                mountpoint=roots.mountpoint,
                scratch=roots.scratch,
            )
            return make_upper(self._stack, made, 0, self._configuration, upper)
        except OSError as error:
            raise SetupError(f"cannot build the layers: {error}") from error

    def _write(self, trees: Sequence[Directory]) -> tuple[Path, tuple[Path, ...]]:
        """Write the lower layers: the lower root and, below it or itself, the layers."""
        configuration, roots = self._configuration, self._roots
        one = trees[0] if len(trees) == 1 else Directory({str(n): tree for n, tree in enumerate(trees)})
        root = roots.lower
        write(one, root)
        if configuration.lower_fs in filesystems.READ_ONLY:
            image = roots.scratch / "packed"
            image.mkdir()
            self.lower = filesystems.packed(self._stack, configuration.lower_fs, root, image, roots.scratch, LOWER_NAME)
            root = image
        if configuration.lower_fs == SERVED:
            from union.lowerfuse import LowerFuse  # with all that a daemon needs; few runs have one

            served = roots.scratch / "served"
            served.mkdir()
            self.lower = LowerFuse(self._stack, root, served, LOWER_NAME).layer
            root = served
        return root, (root,) if len(trees) == 1 else tuple(root / str(n) for n in range(len(trees)))


Lay = Callable[[ExitStack, Configuration, Path | None], Foundation]
"""What makes the filesystems of a union: `Foundation`, or what has them already."""


def build_layers(
    stack: ExitStack,
    trees: Sequence[Directory],
    configuration: Configuration = DEFAULT,
    mountpoint: Path | None = None,
) -> LayerStack:
    """The layers of one union with the content `trees`; see `Foundation`."""
    return Foundation(stack, configuration, mountpoint).fill(trees)


def make_upper(
    stack: ExitStack,
    layers: LayerStack,
    number: int,
    configuration: Configuration,
    content: Directory | None = None,
) -> LayerStack:
    """The same stack with upper layer `number` on it, new, with its sample file and all that `content` has.

    The first `maxfs` upper layers get a tmpfs each. In a detach run the layers that will be rotated away get
    a filesystem that can be fenced. Raises OSError or SetupError.
    """
    at = layers.home.root / str(number)
    at.mkdir()
    upper = layers.home
    if number < configuration.maxfs:
        upper = filesystems.tmpfs(stack, at, f"{number}_layer")
    elif configuration.detach and number < (configuration.rotations or 0):
        upper = filesystems.make(stack, configuration.lower_fs, at, layers.scratch, f"{number}_layer")
    more = content.entries if content else {}
    write(Directory({"u": Directory({SAMPLE_NAME: SAMPLE, **more}), "w": Directory()}), at)
    return replace(layers, upper=upper, upperdir=at / "u", workdir=at / "w", number=number)


def rotate(stack: ExitStack, layers: LayerStack, configuration: Configuration) -> LayerStack:
    """The stack whose upper layer is the topmost lower one, with a new upper layer on it (parity 2.4)."""
    below = replace(
        layers,
        lowerdirs=(layers.upperdir, *layers.lowerdirs),
        rotated=(layers.upper, *layers.rotated),
    )
    return make_upper(stack, below, layers.number + 1, configuration)
