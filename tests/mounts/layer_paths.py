# SPDX-License-Identifier: GPL-2.0-only
"""Layers by path and by descriptor: how their names are spelled and shown, and which are refused."""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from datasets.tree import Directory, File
from tests.mounts.phrases import LAYERS, needs_option, prepared
from union import mountinfo, syscalls
from union.scenario import Group, Trial
from union.stand import Stand, attempt, errno_name

LIMIT: Final = 500  # lower layers, documented nowhere but in the refusal
PATH_MAX: Final = 4096
ODD_NAMES: Final = ("a:b", "a,b", "a\\b", "a b", "a=b", "::", ",", "\\", "\\,:", "\u00e4")


class Refusal(NamedTuple):
    """Layers that are refused: by mount(2) with this errno and, if it says anything, these words."""

    label: str
    options: str
    errno: int = EINVAL
    says: str | None = None


SEPARATE: Final = "workdir and upperdir must be separate subtrees"
REFUSED: Final = (
    Refusal("no lower", "upperdir={u},workdir={w}", says="missing 'lowerdir'"),
    Refusal("an empty lower", "lowerdir=,upperdir={u},workdir={w}", says="missing 'lowerdir'"),
    Refusal("a lower that is taken back", "lowerdir={l},lowerdir=,upperdir={u},workdir={w}", says="missing 'lowerdir'"),
    Refusal("one lower and no upper", "lowerdir={l}", says="at least 2 lowerdir are needed while upperdir nonexistent"),
    Refusal("an upper without a work directory", "lowerdir={l},upperdir={u}", says="missing 'workdir'"),
    Refusal("a work directory alone", "workdir={w}", says="missing 'lowerdir'"),
    Refusal("a lower that does not exist", "lowerdir={x},upperdir={u},workdir={w}", ENOENT, "failed to resolve"),
    Refusal("an upper that does not exist", "lowerdir={l},upperdir={x},workdir={w}", ENOENT, "failed to resolve"),
    Refusal("a work directory that does not exist", "lowerdir={l},upperdir={u},workdir={x}", ENOENT),
    Refusal("a way through a file", "lowerdir={l/f/g},upperdir={u},workdir={w}", ENOTDIR),
    Refusal("a lower that is a file", "lowerdir={l/f},upperdir={u},workdir={w}", EINVAL, "is not a directory"),
    Refusal("an upper that is a file", "lowerdir={l},upperdir={l/f},workdir={w}", EINVAL, "is not a directory"),
    Refusal("a work directory that is a file", "lowerdir={l},upperdir={u},workdir={l/f}", EINVAL, "is not a directory"),
    Refusal("a dangling symlink", "lowerdir={nowhere},upperdir={u},workdir={w}", ENOENT),
    Refusal("a work directory that is the upper", "lowerdir={l},upperdir={u},workdir={u}", says=SEPARATE),
    Refusal("a work directory below the upper", "lowerdir={l},upperdir={u},workdir={u/in}", says=SEPARATE),
    Refusal("an upper below the work directory", "lowerdir={l},upperdir={w/in},workdir={w}", says=SEPARATE),
    Refusal(
        "a work directory on another mount", "lowerdir={l},upperdir={u},workdir={o}",
        says="workdir and upperdir must reside under the same mount",
    ),
    Refusal("the same lower twice", "lowerdir={l}:{l}", ELOOP, "conflicting lowerdir path"),
    Refusal("a lower that is the upper", "lowerdir={u},upperdir={u},workdir={w}", ELOOP, "conflicting lowerdir path"),
    Refusal("a lower that is the work directory", "lowerdir={w},upperdir={u},workdir={w}", ELOOP, "conflicting"),
    Refusal("a lower below the upper", "lowerdir={u/in},upperdir={u},workdir={w}", ELOOP, "overlapping lowerdir path"),
    Refusal("a lower below the work directory", "lowerdir={w/in},upperdir={u},workdir={w}", ELOOP, "overlapping"),
    Refusal("a lower below a lower", "lowerdir={u/in}:{u}", ELOOP, "overlapping lowerdir path"),
    Refusal("a lower below the lower above it", "lowerdir={u}:{u/in}", ELOOP, "overlapping lowerdir path"),
    Refusal("a colon in front", "lowerdir=:{l},upperdir={u},workdir={w}", EINVAL, "cannot append lower layer"),
    Refusal("a colon at the end", "lowerdir={l}:,upperdir={u},workdir={w}", says="unescaped trailing colons"),
    Refusal("two colons at the end", "lowerdir={l}::,upperdir={u},workdir={w}", says="unescaped trailing colons"),
    Refusal("three colons", "lowerdir={l}:::{k},upperdir={u},workdir={w}", says="only single ':' or double '::'"),
    Refusal("a layer after one of data", "lowerdir={l}::{k}:{o}", says="regular lower layers cannot follow data"),
    Refusal("a backslash at the end", "lowerdir={l}\\", EINVAL),
    Refusal("a backslash alone as a lower", "upperdir={u},workdir={w},lowerdir=\\", EINVAL, "empty lowerdir"),
    Refusal("a backslash alone as an upper", "lowerdir={l},workdir={w},upperdir=\\", EINVAL, "empty lowerdir"),
)  # fmt: skip


def refused(row: Refusal) -> Trial:
    """The mount is refused."""

    def work(stand: Stand) -> None:
        prepared(stand)
        stand.filesystem("o")
        for name in ("u/in", "w/in"):
            (stand.root / name).mkdir()
        (stand.root / "nowhere").symlink_to("not/there")
        stand.refuses(row.errno, row.options, says=row.says)

    return Trial(row.label, work)


def escaped(text: str, special: str) -> str:
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


def odd_names(stand: Stand) -> None:
    """In a string of mount(2) colons, commas and backslashes of a path are escaped; it is shown as it was given."""
    for number, name in enumerate(ODD_NAMES):
        at = f"m{number}"
        stand.layers(**{f"{kind}{name}": Directory({"f": File(name.encode())}) for kind in "lk"})
        stand.layers(**{f"{kind}{name}": Directory() for kind in "uw"})
        lower = ":".join(escaped(stand.path(f"{kind}{name}"), ":,\\") for kind in "lk")
        upper, work = (escaped(stand.path(f"{kind}{name}"), ",\\") for kind in "uw")
        mounted = stand.mount(f"lowerdir={lower},upperdir={upper},workdir={work}", at)
        Path(mounted, "new").touch()
        stand.same(f"content below {name}", Path(mounted, "f").read_bytes(), name.encode())
        stand.holds(f"upper of {name} is used", os.path.exists(stand.path(f"u{name}/new")))
        shown = stand.shown(at)
        stand.same(f"{name} as lowerdir", shown.get("lowerdir"), lower)
        stand.same(f"{name} as upperdir", shown.get("upperdir"), upper)


def plus_is_not_escaped(stand: Stand) -> None:
    """lowerdir+ is taken as it is: a backslash stands for itself."""
    needs_option("lowerdir+", "/")
    stand.layers(**{name: Directory({"f": File(name.encode())}) for name in ("l:,", "l\\:")})
    at = stand.configure(("lowerdir+", "{l\\:}"), ("lowerdir+", "{l:,}"))
    stand.same("content", Path(at, "f").read_bytes(), b"l\\:")
    stand.same("layers", added(stand), [("lowerdir+", stand.path("l\\:")), ("lowerdir+", stand.path("l:,"))])


def added(stand: Stand) -> list[tuple[str, str]]:
    """The layers that the mount shows one by one, in order."""
    mount = mountinfo.find(syscalls.mount_id(stand.root / "m"))
    return [option for option in mount.options if option[0] in ("lowerdir+", "datadir+")] if mount else []


def one_by_one(stand: Stand) -> None:
    """Layers added one by one are merged and shown in their order, data layers last."""
    needs_option("datadir+", "/")
    prepared(stand)
    stand.layers(d=Directory({"h": File(b"data")}), e=Directory())
    order = (("lowerdir+", "{l}"), ("lowerdir+", "{k}"), ("datadir+", "{d}"), ("datadir+", "{e}"))
    at = stand.configure(*order, ("metacopy", "on"))
    stand.same("names", sorted(os.listdir(at)), ["f", "g"])
    stand.same("layers", added(stand), [(key, stand.spell(value)) for key, value in order])


class Wrong(NamedTuple):
    """Options one by one, the last one of which is refused, and what is said then."""

    label: str
    options: tuple[tuple[str, str], ...]
    says: str = ""
    errno: int = EINVAL


LOWER, PLUS, DATA = ("lowerdir", "{l}"), ("lowerdir+", "{l}"), ("datadir+", "{k}")
WRONG: Final = (
    Wrong("lowerdir+ after lowerdir", (LOWER, ("lowerdir+", "{k}")), "lowerdir+ and datadir+ cannot follow lowerdir"),
    Wrong("datadir+ after lowerdir", (LOWER, DATA), "lowerdir+ and datadir+ cannot follow lowerdir"),
    Wrong("lowerdir+ after datadir+", (PLUS, DATA, ("lowerdir+", "{u}")), "regular lower layers cannot follow data"),
    Wrong("several layers in one lowerdir+", (("lowerdir+", "{l}:{k}"),), errno=ENOENT),
    Wrong("an escaped lowerdir+", (("lowerdir+", "\\{l}"),), errno=ENOENT),
    Wrong("a file as lowerdir+", (("lowerdir+", "{l/f}"),), "is not a directory"),
    Wrong("a file as datadir+", (PLUS, ("datadir+", "{l/f}")), "is not a directory"),
    Wrong("a missing datadir+", (PLUS, ("datadir+", "{x}")), errno=ENOENT),
)


def wrong(row: Wrong) -> Trial:
    """fsconfig refuses the last option and takes the ones before it."""

    def work(stand: Stand) -> None:
        needs_option("datadir+", "/")
        prepared(stand)
        with syscalls.FsContext("overlay") as context:
            for key, value in row.options[:-1]:
                context.set(key, stand.spell(value))
            key, value = row.options[-1]
            stand.fails(row.errno, context.set, key, stand.spell(value))
            said = context.messages()
            stand.holds(f"{said} about {row.says}", any(row.says in line for line in said) or not row.says)

    return Trial(row.label, work)


def data_layers_alone(stand: Stand) -> None:
    needs_option("datadir+", "/")
    prepared(stand)
    layers = (("datadir+", "{l}"), ("datadir+", "{k}"), ("upperdir", "{u}"), ("workdir", "{w}"))
    stand.same("errno", errno_name(attempt(lambda: stand.configure(*layers))), "EINVAL")


def lowerdir_again(stand: Stand) -> None:
    """lowerdir replaces what was given before, lowerdir+ included."""
    needs_option("lowerdir+", "/")
    prepared(stand)
    at = stand.configure(("lowerdir+", "{l}"), ("lowerdir", "{k}:{w}"))
    stand.same("names", os.listdir(at), ["g"])
    stand.same("shown", stand.shown().get("lowerdir"), stand.spell("{k}:{w}"))
    stand.same("layers one by one", added(stand), [])


def upper_again(stand: Stand) -> None:
    """The last upper and work directory win."""
    prepared(stand)
    stand.layers(u2=Directory(), w2=Directory())
    at = stand.mount(f"{LAYERS},upperdir={{u2}},workdir={{w2}}")
    Path(at, "new").touch()
    stand.same("first upper", os.listdir(stand.path("u")), [])
    stand.same("second upper", os.listdir(stand.path("u2")), ["new"])
    stand.same("shown", (stand.shown()["upperdir"], stand.shown()["workdir"]), (stand.path("u2"), stand.path("w2")))


def by_symlink(stand: Stand) -> None:
    """A symlink is followed, and shown as it was given."""
    prepared(stand)
    (stand.root / "link").symlink_to("l")
    at = stand.mount("lowerdir={link},upperdir={u},workdir={w}")
    stand.same("content", Path(at, "f").read_bytes(), b"lower")
    stand.same("shown", stand.shown()["lowerdir"], stand.path("link"))


def relative(stand: Stand) -> None:
    """Relative paths are those of the mounting process."""
    prepared(stand)
    before = os.open(".", os.O_PATH)
    try:
        os.chdir(stand.root)
        at = stand.mount("lowerdir=l:k,upperdir=u,workdir=w")
    finally:
        os.fchdir(before)
        os.close(before)
    stand.same("names", sorted(os.listdir(at)), ["f", "g"])
    stand.same("shown", stand.shown()["lowerdir"], "l:k")


def numbered(stand: Stand, count: int) -> list[str]:
    names = [f"{number:x}" for number in range(count)]
    stand.layers(n=Directory({name: Directory({name: File()}) for name in names}))
    return names


def most(stand: Stand) -> None:
    """500 layers one by one, and no one more."""
    needs_option("lowerdir+", "/")
    names = numbered(stand, LIMIT + 1)
    at = stand.configure(*(("lowerdir+", f"{{n/{name}}}") for name in names[:LIMIT]))
    stand.same("number of names", len(os.listdir(at)), LIMIT)
    said: list[str] = []
    more = attempt(lambda: stand.configure(*(("lowerdir+", f"{{n/{name}}}") for name in names), at="n", says=said))
    stand.same("one more", errno_name(more), "EINVAL")
    stand.holds(f"{said} has the limit", any(f"too many lower directories, limit is {LIMIT}" in line for line in said))


def most_in_one(stand: Stand) -> None:
    """500 layers in one lowerdir, and no one more."""
    names = numbered(stand, LIMIT + 1)
    before = os.open(".", os.O_PATH)
    os.chdir(stand.root / "n")  # a page has to do for the whole string
    try:
        at = stand.mount(f"lowerdir={':'.join(names[:LIMIT])}")
        stand.same("number of names", len(os.listdir(at)), LIMIT)
        stand.refuses(EINVAL, f"lowerdir={':'.join(names)}", at="n2", says="too many lower directories, limit is 500")
    finally:
        os.fchdir(before)
        os.close(before)


def opened(label: str, flags: int) -> Trial:
    """All layers given as descriptors: the paths of what they are open on are shown."""

    def work(stand: Stand) -> None:
        prepared(stand)
        fds = {name: stand.opened(name, flags) for name in "lkuw"}
        needs_option("lowerdir+", fds["l"])
        keys = {"l": "lowerdir+", "k": "lowerdir+", "u": "upperdir", "w": "workdir"}
        at = stand.configure(*((key, fds[name]) for name, key in keys.items()))
        Path(at, "new").touch()
        stand.same("names", sorted(os.listdir(at)), ["f", "g", "new"])
        stand.holds("upper is used", os.path.exists(stand.path("u/new")))
        stand.same("layers", added(stand), [("lowerdir+", stand.path("l")), ("lowerdir+", stand.path("k"))])
        stand.same("upper", stand.shown()["upperdir"], stand.path("u"))

    return Trial(label, work)


def too_long(stand: Stand) -> None:
    """A directory whose path is longer than a path can be: there would be nothing to show."""
    prepared(stand)
    needs_option("lowerdir+", stand.opened("l", os.O_PATH))
    name = "n" * 250
    fd = stand.opened("l", os.O_PATH)
    for _ in range(PATH_MAX // len(name) + 1):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_PATH, dir_fd=fd)
        stand.undo(partial(os.close, deeper))
        fd = deeper
    with syscalls.FsContext("overlay") as context:
        for key in ("lowerdir+", "datadir+", "upperdir", "workdir"):
            stand.fails(ENAMETOOLONG, context.set, key, fd)


def other_descriptors(stand: Stand) -> None:
    """A descriptor of no directory is refused, and lowerdir takes none."""
    prepared(stand)
    directory, file = stand.opened("l", os.O_PATH), stand.opened("l/f", os.O_RDONLY)
    needs_option("lowerdir+", directory)
    with syscalls.FsContext("overlay") as context:
        for key in ("lowerdir+", "datadir+", "upperdir", "workdir"):
            stand.fails(EINVAL, context.set, key, file)
        for key in ("lowerdir", "redirect_dir", "userxattr"):
            stand.fails(EINVAL, context.set, key, directory)


GROUPS = (
    Group(
        "layer-refusals",
        "Mount with layers that are missing, no directories, or in each other's way.",
        trials=(*map(refused, REFUSED), *map(wrong, WRONG), Trial("data layers alone", data_layers_alone)),
    ),
    Group(
        "layer-paths",
        "Give layers by path, one by one, and by descriptor.",
        trials=(
            Trial("names with colons, commas and backslashes", odd_names),
            Trial("lowerdir+ with colons and backslashes", plus_is_not_escaped),
            Trial("layers one by one", one_by_one),
            Trial("lowerdir after lowerdir+", lowerdir_again),
            Trial("upperdir and workdir given twice", upper_again),
            Trial("a lower by symlink", by_symlink),
            Trial("relative paths", relative),
            Trial("500 layers one by one", most),
            Trial("500 layers in one string", most_in_one),
            opened("descriptors of open directories", os.O_RDONLY | os.O_DIRECTORY),
            opened("descriptors that are paths only", os.O_PATH),
            Trial("a descriptor of a path that is too long", too_long),
            Trial("descriptors of something else", other_descriptors),
        ),
    ),
)
