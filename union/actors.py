# SPDX-License-Identifier: GPL-2.0-only
"""What the actors of a race do, step by step, and what must hold of it whatever the others do meanwhile.

What overlayfs does not promise is not looked at: whether a listing has a name that appears or goes while it is read,
and the mtime of a directory whose entries are copied up.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from union import syscalls
from union.children import end_with_parent
from union.errors import SetupError
from union.inodes import DirectoryInode, FileInode, Inode
from union.judge import WHITEOUT_TYPES, Judge
from union.model import Model
from union.namecalls import RENAME_EXCHANGE, RENAME_NOREPLACE
from union.names import Name
from union.operations import (
    CREAT,
    EXCL,
    RW,
    TRUNC,
    UNPRIVILEGED,
    WA,
    ChangeMode,
    Held,
    Link,
    ListDirectory,
    Make,
    OpenFile,
    Operation,
    ReadLink,
    RemoveDirectory,
    Rename,
    RenameFlags,
    SetXattr,
    Truncate,
    Unlink,
    W,
)
from union.race import SHARED, Actor, Race, owner_of
from union.syscalls import Dirent
from union.together import Refused, Step

OPENS: Final = (W, RW | TRUNC, WA, W | CREAT, W | CREAT | EXCL)
TYPES: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
VANISHED: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""What a migrator may get for a name of somebody else, which was removed or is another object now."""
PARTS: Final = ((0.1, 0.3), (0.3, 0.6), (1.0,))
"""By round, how much of a directory a migrator may copy up at a time: so some directories turn opaque in each."""
FAR: Final = 1 << 20  # a position behind all that a directory of a race has
PIECE: Final = 128  # bytes of a listing in parts: a few entries
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(slots=True)
class Scene:
    """What an actor has: a judge of the union, with a model of its own, and descriptors of the `SHARED` directories
    that all actors have in common.
    """

    judge: Judge
    descriptors: Sequence[int]
    held: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """Where the union is mounted."""
        return self.judge.witness.root


# owners


def operations(race: Race, turn: int, actor: Actor, model: Model) -> Iterator[Operation]:
    """What the owner does in a round, drawn from the seed and its own names in the `model`.

    Each must have been applied to the model before the next is asked for, unless the kernel refused it.
    """
    dice = race.random(turn, actor.name)
    for _ in range(race.steps):
        yield _drawn(dice, actor.name, model)


def _drawn(dice: Random, owner: str, model: Model) -> Operation:
    path = _path(dice, owner, model)
    kind = dice.choice(("open", "open", "make", "remove", "remove", "two", "two", "other"))
    if kind == "open":
        return OpenFile(path=path, flags=dice.choice(OPENS), mode=0o640, writes=b"%x" % dice.getrandbits(40))
    if kind == "make":
        return Make(path=path, type=dice.choice(TYPES), target=f"{owner}f")
    if kind == "remove":
        directory = isinstance(_inode(model, path), DirectoryInode)
        return RemoveDirectory(path=path) if directory and dice.random() < 0.9 else Unlink(path=path)
    if kind == "two":
        return _between(dice, owner, _directory(dice, owner, model) or path, _path(dice, owner, model))
    inode = _inode(model, path)
    others = [
        ReadLink(path=path),
        Truncate(path=path, size=dice.choice((0, 3, 5000))),
        ChangeMode(path=path, mode=dice.choice((0o600, 0o755))),
        ListDirectory(path=path),
    ]
    if not (inode and inode.lower_names):  # else it depends on the migrators whether that copies the name up
        others.append(SetXattr(path=path, key="trusted.b", value=dice.randbytes(2)))
    return dice.choice(others)


def _between(dice: Random, owner: str, path: Name, to: Name) -> Operation:
    """Often within one directory: out of it a merge directory cannot always be moved (D19)."""
    if dice.random() < 0.4:
        name = to.rpartition("/")[2]
        to = Name(f"{path.rpartition('/')[0]}/{name if name.startswith(owner) else owner + name}")
    flags = dice.choice((0, 0, RENAME_EXCHANGE, RENAME_NOREPLACE))
    if dice.random() < 0.3:
        return Link(path=path, to=to)
    return RenameFlags(path=path, to=to, flags=flags) if flags else Rename(path=path, to=to)


def _directory(dice: Random, owner: str, model: Model) -> Name | None:
    """Now and then a merge directory of its own, if there is one."""
    mine = sorted(path for path, inode in model.walk(SHARED[0]) if owner_of(path) == owner and _is_merged(inode))
    return Name(dice.choice(mine)) if mine and dice.random() < 0.4 else None


def _is_merged(inode: Inode) -> bool:
    return isinstance(inode, DirectoryInode) and inode.lower is not None


def _path(dice: Random, owner: str, model: Model) -> Name:
    """One of its names, or one that is not there yet, in a shared directory or one of its own."""
    mine = sorted(path for path, _ in model.walk(SHARED[0]) if owner_of(path) == owner)
    if mine and dice.random() < 0.7:
        return Name(dice.choice(mine))
    homes = [path for path in mine if isinstance(_inode(model, path), DirectoryInode)]
    home = dice.choice((*SHARED, *homes))
    return Name(f"{home}/{owner}{dice.choice('fgsdenop')}")


def _inode(model: Model, path: str) -> Inode | None:
    place = model.find(path)
    return place.inode if place else None


def owner_steps(race: Race, turn: int, actor: Actor, scene: Scene) -> Iterator[Step]:
    """Each operation gives what the model predicts, and then its names are what they must be, in listings too."""
    for operation in operations(race, turn, actor, scene.judge.model):
        yield Step(operation.reproducer(scene.root), partial(_owned, scene, actor, operation))


def _owned(scene: Scene, actor: Actor, operation: Operation) -> Iterator[str]:
    judge = scene.judge
    judge.begin()
    given = operation.perform(scene.root, Held())
    if given.errno == errno.EXDEV and judge.crosses_border(operation):
        if not (changed := judge.names(operation.names())):
            raise Refused
        yield from changed
        return
    predicted = judge.model.apply(operation)
    if not judge.agrees(operation, predicted, given):
        yield f"{operation.path}: {given} instead of {predicted}"
        return
    yield from judge.names(operation.names())
    for path in {os.path.dirname(name) for name in operation.names()}:
        if isinstance(_inode(judge.model, path), DirectoryInode):
            yield from whole_listing(scene, path, actor.name)


# listings


def whole_listing(scene: Scene, path: str, owner: str = "", size: int = 0) -> Iterator[str]:
    """List the directory to its end, in parts of `size` bytes if that is said: what cannot change meanwhile, which is
    what belongs to nobody or to `owner`, is there exactly once.
    """
    fd = os.open(f"{scene.root}/{path}", _LIST)
    try:
        entries = syscalls.getdents(fd) if not size else list(_in_parts(fd, size))
    finally:
        os.close(fd)
    yield from _complete(scene.judge.model, path, owner, entries)


def _in_parts(fd: int, size: int) -> Iterator[Dirent]:
    while part := syscalls.getdents_once(fd, size):
        yield from part


def _complete(model: Model, path: str, owner: str, entries: Sequence[Dirent]) -> Iterator[str]:
    directory = _inode(model, path)
    if not isinstance(directory, DirectoryInode):
        raise SetupError(f"{path}: no directory that the actor knows")
    fixed = {name: inode for name, inode in directory.entries.items() if owner_of(f"{path}/{name}") in ("", owner)}
    counts = Counter(entry.name for entry in entries)
    for name in (".", "..", *fixed):
        if counts[name] != 1:
            yield f"{path}: {name} is listed {counts[name]} times"
    for entry in entries:
        if entry.name in fixed:
            if entry.type != fixed[entry.name].TYPE >> 12:
                yield f"{path}/{entry.name}: d_type {entry.type} instead of {fixed[entry.name].TYPE >> 12}"
        elif entry.name not in (".", "..") and owner_of(f"{path}/{entry.name}") in ("", owner):
            yield f"{path}: lists {entry.name}, which is not there"
        elif entry.type in WHITEOUT_TYPES:
            yield f"{path}: lists {entry.name}, a whiteout"


def ends(scene: Scene, path: str) -> Iterator[str]:
    """List some entries and none of those that come next, up to the end: they may be anything."""
    fd = os.open(f"{scene.root}/{path}", _LIST)
    try:
        first = syscalls.getdents_once(fd, PIECE)
        os.lseek(fd, FAR, os.SEEK_SET)
        syscalls.getdents(fd)
    finally:
        os.close(fd)
    if not first:
        yield f"{path}: nothing is listed"


def shared_listing(scene: Scene, number: int, parts: int) -> Iterator[str]:
    """Read some of a directory by a descriptor that others read by too: what is found is any part of it."""
    fd = scene.descriptors[number]
    os.lseek(fd, 0, os.SEEK_SET)
    for _ in range(parts):
        for entry in syscalls.getdents_once(fd, PIECE):
            if entry.type in WHITEOUT_TYPES:
                yield f"{SHARED[number]}: lists {entry.name}, a whiteout"


# readers


def reader_steps(race: Race, turn: int, actor: Actor, scene: Scene) -> Iterator[Step]:
    """Look at what belongs to nobody, by every means; another user does it likewise (D15)."""
    if actor.kind == "user":
        os.setegid(UNPRIVILEGED)
        os.seteuid(UNPRIVILEGED)
        end_with_parent()
    dice = race.random(turn, actor.name)
    model = scene.judge.model
    files = sorted(
        path for path, inode in model.walk(SHARED[0]) if isinstance(inode, FileInode) and not owner_of(path)
    )
    for _ in range(race.steps * 3):  # they take less time than an owner's
        number = dice.randrange(len(SHARED))
        path, file, parts = SHARED[number], dice.choice(files), dice.randint(1, 6)
        size = dice.choice((0, PIECE, 4 * PIECE))
        yield dice.choice((
            Step(f"list {path} by {size or 'as many as possible'}", partial(whole_listing, scene, path, size=size)),
            Step(f"list the ends of {path}", partial(ends, scene, path)),
            Step(f"list {parts} parts of {path}", partial(shared_listing, scene, number, parts)),
            Step(f"look up names that {path} lacks", partial(_missing, scene, path)),
            Step(f"read {file}", partial(_content, scene, file, _read)),
            Step(f"map {file}", partial(_content, scene, file, _mapped)),
            Step(f"read {file} as it was opened first", partial(_kept, scene, file)),
        ))  # fmt: skip


def _missing(scene: Scene, path: str) -> Iterator[str]:
    for name in ("missing", "sx", "a/missing"):
        try:
            os.lstat(f"{scene.root}/{path}/{name}")
        except FileNotFoundError:
            continue
        yield f"{path}/{name}: exists although it must not"


def _content(scene: Scene, path: str, read: Callable[[int], bytes]) -> Iterator[str]:
    fd = os.open(f"{scene.root}/{path}", os.O_RDONLY)
    try:
        yield from _same(scene, path, read(fd))
    finally:
        os.close(fd)


def _kept(scene: Scene, path: str) -> Iterator[str]:
    if path not in scene.held:
        scene.held[path] = os.open(f"{scene.root}/{path}", os.O_RDONLY)
    yield from _same(scene, path, _read(scene.held[path]))


def _same(scene: Scene, path: str, content: bytes) -> Iterator[str]:
    inode = _inode(scene.judge.model, path)
    assert isinstance(inode, FileInode)
    if content != inode.content:
        yield f"{path}: {len(content)} bytes that differ from the {len(inode.content)} it must hold"


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


def _mapped(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if not size:
        return b""
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
        return mapping[:]


# migrators


def migrator_steps(race: Race, turn: int, actor: Actor, scene: Scene) -> Iterator[Step]:
    """Copy up some or all of what a directory has and list it, at every level, in any order."""
    for number in range(race.steps * 3 // 8):
        dice = race.random(turn, actor.name, number)  # of its own: what it finds must not move the next ones
        top = dice.choice(SHARED)
        part = dice.choice(PARTS[min(turn, len(PARTS) - 1)])
        yield Step(f"migrate {part:.0%} of {top}", partial(_migrated, scene, dice, part, top))


def _migrated(scene: Scene, dice: Random, part: float, path: str) -> Iterator[str]:
    """Some of what is in the directory, and in depth what is not shared; then the directory itself."""
    entries = sorted(entry for entry in _entries(scene, path) if entry.name not in (".", ".."))
    dice.shuffle(entries)
    for entry in entries:
        if dice.random() > part:
            continue
        where = f"{path}/{entry.name}"
        yield from _copied_up(scene, where, entry.type)
        if entry.type == syscalls.DT_DIR and where not in SHARED:
            yield from _migrated(scene, dice, part, where)
    if owner_of(path):
        _entries(scene, path)
    else:
        yield from whole_listing(scene, path)


def _entries(scene: Scene, path: str) -> list[Dirent]:
    """What the directory lists, nothing if it is somebody's and there is no such directory any more."""
    try:
        fd = os.open(f"{scene.root}/{path}", _LIST)
        try:
            return syscalls.getdents(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in VANISHED and owner_of(path):
            return []
        raise


def _copied_up(scene: Scene, path: str, kind: int) -> Iterator[str]:
    """Change nothing that anybody can see: a file is opened for writing, all else is given its own owner."""
    where = f"{scene.root}/{path}"
    try:
        if kind == syscalls.DT_REG:
            os.close(os.open(where, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        else:
            os.chown(where, -1, -1, follow_symlinks=False)
    except OSError as error:
        if error.errno not in VANISHED or not owner_of(path):
            yield f"{path}: not copied up: {error.strerror}"


STEPS: Final = {"owner": owner_steps, "reader": reader_steps, "user": reader_steps, "migrator": migrator_steps}
"""By kind of actor what it does in a round."""
