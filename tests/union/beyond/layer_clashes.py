# SPDX-License-Identifier: GPL-2.0-only
"""Names that are no directories, or nothing, in three lower layers, and the attributes of the topmost object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EEXIST, EISDIR, ENOTDIR

from datasets.tree import Directory, File, Node, Symlink
from tests.union.beyond.sets import own
from tests.union.beyond.several_layers import BOTTOM, GONE, MIDDLE, TOP, B, Entries, M, stacked
from tests.union.phrases import absent, holds
from union.names import Names
from union.operations import (
    Operation,
    getxattr,
    lists,
    listxattr,
    make_dir,
    make_file,
    mkdir,
    readlink,
    rename,
    rmdir,
    rmtree,
    set_times,
    shows,
    symlink,
    unlink,
)
from union.scenario import Group, Scenario

Operations = Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Clash:
    """What three layers hold as `n`, topmost first, and what the union shows for it."""

    words: str
    layers: tuple[Node | None, Node | None, Node | None]
    mark: str
    looks: str


CLASHES: tuple[Clash, ...] = (
    Clash("file in all layers", (TOP, MIDDLE, BOTTOM), "", "f 0644 0:0 x1 3"),
    Clash("file in the lower two", (None, MIDDLE, BOTTOM), "", "f 0644 0:0 x1 6"),
    Clash("file over directories", (TOP, M, B), "", "f 0644 0:0 x1 3"),
    Clash("file over a whiteout over a directory", (TOP, GONE, B), "", "f 0644 0:0 x1 3"),
    Clash("file between directories", (None, MIDDLE, B), "", "f 0644 0:0 x1 6"),
    Clash("symlink over a directory", (Symlink("gone"), M, B), "@", "l 0777 0:0 x1 4"),
    Clash("symlink over a file over a directory", (None, Symlink("gone"), BOTTOM), "@", "l 0777 0:0 x1 4"),
)

HIDDEN: tuple[tuple[str, tuple[Node | None, Node | None, Node | None]], ...] = (
    ("directory hidden in the middle", (None, GONE, B)),
    ("file hidden on top", (GONE, MIDDLE, BOTTOM)),
    ("hidden in all layers", (GONE, GONE, GONE)),
    ("hidden where nothing is", (None, GONE, None)),
)


def clashed(clash: Clash) -> Callable[[Names], Operations]:
    """Looked at, copied up, moved away, removed: what the layers below hold never shows."""

    def script(n: Names) -> Operations:
        here, path = own(n), own(n) / "n"
        follow = clash.mark != "@"
        return (
            lists(here, "n" + clash.mark, "other"),
            shows(path, clash.looks),
            set_times(path, None, 10**18, follow=follow),
            shows(path, clash.looks),
            make_dir(path, 0o755, EEXIST),
            rmdir(path, ENOTDIR),
            rename(path, here / "away"),
            absent(path),
            lists(here, "away" + clash.mark, "other"),
            make_dir(path),
            lists(path),
            rename(here / "away", path, EISDIR),
            rmdir(path),
            rename(here / "away", path),
            shows(path, clash.looks),
            unlink(path),
            absent(path),
            lists(here, "other"),
            rename(here / "other", path),
            holds(path, b"other"),
            lists(here, "n"),
        )

    return script


def hidden(n: Names) -> Operations:
    """Nothing is there, and what is made there has nothing below."""
    here, path = own(n), own(n) / "n"
    return (
        lists(here, "other"),
        absent(path),
        mkdir(path),
        lists(path),
        rmdir(path),
        rename(here / "other", path),
        holds(path, b"other"),
        rename(path, here / "other"),
        make_dir(path),
        make_file(path / "file"),
        lists(path, "file"),
        rmtree(path),
        symlink("other", path),
        readlink(path, reads="other"),
        lists(here, "n@", "other"),
    )


def attributes(n: Names) -> Operations:
    """Mode, times and xattrs are those of the topmost object, and stay so when it is copied up."""
    path = own(n) / "d"
    return (
        shows(path, "d 0750 0:0"),
        listxattr(path, "user.top", "user.common"),
        getxattr(path, "user.common", b"top"),
        shows(path / "f", "f 0640 0:0 x1 3"),
        listxattr(path / "f", "user.top"),
        make_file(path / "new"),
        listxattr(path, "user.top", "user.common"),
        shows(path, "d 0750 0:0"),
        set_times(path / "f", None, 10**18),
        listxattr(path / "f", "user.top"),
        rename(path / "f", path / "g"),
        absent(path / "f"),
        lists(path, "g", "h", "new"),
    )


def attributed(words: str, mode: int) -> Entries:
    xattrs = {f"user.{words}": b"1", "user.common": words.encode()}
    files: dict[str, Node] = {"f": File(words.encode(), mode & 0o666, xattrs={f"user.{words}": b"1"})}
    if words == "bottom":
        files["h"] = File(b"h")
    return {"d": Directory(files, mode, xattrs=xattrs, mtime=10**9 * (10**9 + mode))}


ATTRIBUTES: tuple[Entries, ...] = (attributed("top", 0o750), attributed("middle", 0o777), attributed("bottom", 0o705))


def named(*nodes: Node | None) -> list[Entries]:
    """Layers that hold the nodes as `n`, the lowest one another file too."""
    layers: list[dict[str, Node]] = [{} if node is None else {"n": node} for node in nodes]
    layers[-1]["other"] = File(b"other")
    return list(layers)


GROUPS = (
    Group(
        "layers-clash",
        "Use names that are no directories, or nothing, in three lower layers.",
        (
            *(Scenario(clash.words, clashed(clash)) for clash in CLASHES),
            *(Scenario(words, hidden) for words, _ in HIDDEN),
            Scenario("attributes of the topmost", attributes),
        ),
        lowers=stacked([
            *(named(*clash.layers) for clash in CLASHES), *(named(*nodes) for _, nodes in HIDDEN), ATTRIBUTES,
        ]),
    ),
)  # fmt: skip
