# SPDX-License-Identifier: GPL-2.0-only
"""A history of one union: operations, listings, remounts, rotations, migrations, and the fence once it is detached.

What each step does to the model is said once, in `foresee`: whoever draws a history needs no kernel for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from datasets.layers import merged
from datasets.reference import SAMPLE, SAMPLE_NAME
from datasets.tree import Directory
from union.configuration import Configuration, Option, Xino
from union.coverage import list_level_by_level, list_whole
from union.example import TOP
from union.inodes import DirectoryInode, Place
from union.model import Model
from union.namecalls import RENAME_EXCHANGE
from union.operations import Link, ListDirectory, Operation, RenameFlags, TwoNames
from union.rules.common import Refusal


@dataclass(frozen=True, slots=True)
class ListStart:
    """Read the first `entries` of the directory, `.` and `..` among them, and no more."""

    path: str
    entries: int

    def __str__(self) -> str:
        return f"list the first {self.entries} entries of {self.path}"


@dataclass(frozen=True, slots=True)
class ListRest:
    """Read the directory from behind its first `entries` to its end, in a file that was not at its beginning."""

    path: str
    entries: int

    def __str__(self) -> str:
        return f"list {self.path} from behind its first {self.entries} entries"


@dataclass(frozen=True, slots=True)
class ListAround:
    """Read the first `entries` of the directory, do the operation, read on to the end."""

    path: str
    entries: int
    meanwhile: Operation

    def __str__(self) -> str:
        return f"list {self.path}, and behind its first {self.entries} entries:"


@dataclass(frozen=True, slots=True)
class ListAll:
    """List all directories, each before those in it, as find(1) does."""

    def __str__(self) -> str:
        return "list all directories from the root down"


@dataclass(frozen=True, slots=True)
class Migrate:
    """Copy everything up and list each directory after those in it."""

    def __str__(self) -> str:
        return "migrate"


@dataclass(frozen=True, slots=True)
class DropCaches:
    """Drop all caches of the system."""

    def __str__(self) -> str:
        return "drop caches"


@dataclass(frozen=True, slots=True)
class Remount:
    """Unmount, mount again; with `rotates` the upper layer is the topmost lower one then, below a new one."""

    rotates: bool = False

    def __str__(self) -> str:
        return "mount again on a new upper layer" if self.rotates else "mount again"


@dataclass(frozen=True, slots=True)
class Fence:
    """Make the lower unusable, unless something still needs it; as a control also `unready`."""

    unready: bool = False

    def __str__(self) -> str:
        return "fence"


@dataclass(frozen=True, slots=True)
class Forge:
    """A control: change the mark of a directory in the upper layer behind the back of the union."""

    path: str
    opaque: bool

    def __str__(self) -> str:
        return f"{'mark' if self.opaque else 'unmark'} {self.path}"


Special = ListStart | ListRest | ListAround | ListAll | Migrate | DropCaches | Remount | Fence | Forge
Step = Operation | Special
SPECIAL: Final[tuple[type[Special], ...]] = Special.__args__


@dataclass(frozen=True, slots=True)
class History:
    """`lowers` are the trees of the lower layers, the topmost first; `options` are further mount options.

    With another `xino` no directory ever turns opaque, and nothing is fenced.
    """

    lowers: tuple[Directory, ...]
    steps: tuple[Step, ...] = ()
    options: tuple[Option, ...] = ()
    xino: Xino = "nofollow"

    @property
    def detaches(self) -> bool:
        """Whether the lower can get out of use."""
        return self.xino == "nofollow"

    def configuration(self) -> Configuration:
        """The union that it is about, before anything is done to it."""
        rotations = sum(step.rotates for step in self.steps if isinstance(step, Remount))
        return Configuration(lower_fs="xfs", xino=self.xino, rotations=rotations or None, in_process=True)

    def model(self) -> Model:
        """The model of the same."""
        trees = [Directory({TOP: tree}) for tree in self.lowers]
        return Model(
            merged(trees),
            upper={SAMPLE_NAME: SAMPLE},
            redirects=("redirect_dir", "off") not in self.options,
            indexed=("index", "on") in self.options,
            renumbers=self.detaches,
        )


def foresee(model: Model, step: Step) -> None:
    """Take the model over a step as our kernels do it.

    They refuse to move what needs a lower into a directory that does not (D19). Whether a part of a listing turns
    a directory opaque is left open: it does not here.
    """
    match step:
        case ListAround(meanwhile=operation):
            foresee(model, operation)
        case ListAll():
            list_level_by_level(model)
        case Migrate():
            model.copy_up_all(None)
            model.detach()
        case Remount(rotates):
            if rotates:
                model.rotated()
            model.remounted()
        case Operation():
            _foresee_operation(model, step)


def _foresee_operation(model: Model, operation: Operation) -> None:
    if isinstance(operation, TwoNames) and crosses(model, operation):
        return
    fine = model.apply(operation).errno == 0
    model.release()
    if fine and isinstance(operation, ListDirectory):
        list_whole(model, listed(model, operation))


def listed(model: Model, operation: ListDirectory) -> DirectoryInode:
    """The directory that it lists, where it can."""
    _, inode = model.existing(operation, follow=True)
    assert isinstance(inode, DirectoryInode)
    return inode


def crosses(model: Model, operation: TwoNames) -> bool:
    """Whether it moves what needs its lower into another directory, which does not."""
    if isinstance(operation, Link):
        return False
    try:
        old, new = (model.walk_to(str(name), 0, follow=False) for name in operation.names())
    except Refusal:
        return False
    exchanged = isinstance(operation, RenameFlags) and operation.flags == RENAME_EXCHANGE
    return _border(old, new) or (exchanged and _border(new, old))


def _border(what: Place, to: Place) -> bool:
    needs = isinstance(what.inode, DirectoryInode) and what.inode.lower is not None
    return needs and what.parent is not to.parent and to.parent.lower is None
