# SPDX-License-Identifier: GPL-2.0-only
"""File handles: what they lead to after copy-up, rename and removal, with all caches cold."""

from __future__ import annotations

import os
from errno import ESTALE
from pathlib import Path

from datasets.reference import C0, C1, FIRST_SET, reference_top
from datasets.tree import Directory, HardLink
from tests.union.phrases import absent, create, holds
from union import filecalls
from union.names import Name, Names
from union.operations import (
    DIRECTORY,
    FD,
    ChangeMode,
    Decode,
    Encode,
    ForgetNames,
    HoldAt,
    Operation,
    R,
    SameHandle,
    W,
    WhereHeld,
    close,
    held_lists,
    held_looks,
    hold,
    is_same,
    link,
    mkdir,
    open_file,
    reads,
    rename,
    rmdir,
    unlink,
    writes,
)
from union.overlay import accepts
from union.scenario import Group, Need, Scenario, When

NEW = b"newx:yyy:zzz"
HANDLE = "handle"
EXPORTED = (("index", "on"), ("nfs_export", "on"))


def encode(path: Name, handle: str = HANDLE, flags: int = 0, *, unsupported: int = 0) -> Encode:
    return Encode(path=path, handle=handle, flags=flags, fails=unsupported, unsupported=unsupported)


def decode(
    path: Name, flags: int = R, handle: str = HANDLE, held: str = FD, *, fails: int = 0, marked: bool = False
) -> Decode:
    return Decode(path=path, handle=handle, held=held, flags=flags, fails=fails, marked=marked)


def same_handle(path: Name, handle: str = HANDLE, flags: int = 0) -> SameHandle:
    return SameHandle(path=path, handle=handle, flags=flags, returns="same")


def forget(n: Names) -> ForgetNames:
    """Now a handle must be followed from the layers up. Only the top directory is looked at after it."""
    return ForgetNames(path=n.top)


def is_at(path: Name, held: str = FD) -> WhereHeld:
    return WhereHeld(path=path, held=held, returns=str(path))


def leads_to(n: Names, path: Name, content: bytes) -> tuple[Operation, ...]:
    """The handle leads to the file `path`, cold and warm."""
    return (
        forget(n),
        decode(path, held="cold"),
        reads(path, content, "cold"),
        is_same(path, "cold"),
        close(path, "cold"),
        decode(path, held="warm"),
        reads(path, content, "warm"),
        close(path, "warm"),
        same_handle(path),
    )


def leads_to_dir(n: Names, path: Name, *names: str) -> tuple[Operation, ...]:
    """The handle leads to the directory `path`, cold and warm, and it is connected to the root."""
    return (
        forget(n),
        decode(path, DIRECTORY, held="cold"),
        is_at(path, "cold"),
        held_lists(path, *names, held="cold"),
        is_same(path, "cold"),
        close(path, "cold"),
        decode(path, DIRECTORY, held="warm"),
        held_lists(path, *names, held="warm"),
        close(path, "warm"),
        same_handle(path),
    )


def leads_nowhere(n: Names, path: Name) -> tuple[Operation, ...]:
    return decode(path, fails=ESTALE), forget(n), decode(path, fails=ESTALE)


TWINS = 12
LOWER = Directory(
    {
        **reference_top("top", TWINS).entries,
        # A file with one name in lower shows two links once it was copied up and its inode is read anew: the
        # index counts as a name. Those that are looked at cold after a copy-up have a second name in lower.
        **{f"twin{n}": HardLink(f"foo{n}") for n in range(FIRST_SET, FIRST_SET + TWINS)},
        **{f"twin_b{n}": HardLink(f"dir{n}/pop/b") for n in range(FIRST_SET, FIRST_SET + TWINS)},
    }
)


def twin(n: Names) -> Name:
    """The second name of `n.reg`."""
    return n.top / f"twin{n.number}"


OF_FILES = (
    Scenario(
        "lower file, then copied up",
        lambda n: (
            encode(n.reg),
            *leads_to(n, n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            *leads_to(n, n.reg, NEW),
        ),
    ),
    Scenario(
        "lower file in a lower directory, then copied up",
        lambda n: (
            encode(n.dir / "pop/b"),
            *leads_to(n, n.dir / "pop/b", C1),
            ChangeMode(path=n.dir / "pop/b", mode=0o600),
            *leads_to(n, n.dir / "pop/b", C1),
        ),
    ),
    Scenario(
        "new file, then written and renamed",
        lambda n: (
            create(n.none, b"text"),
            encode(n.none),
            *leads_to(n, n.none, b"text"),
            open_file(n.none, W, writes=b"TEXT"),
            rename(n.none, n.dir / "x", cycle=False),
            *leads_to(n, n.dir / "x", b"TEXT"),
        ),
    ),
    Scenario(
        "lower file renamed, then written",
        lambda n: (
            encode(n.reg),
            rename(n.reg, n.none, cycle=False),
            *leads_to(n, n.none, C0),
            open_file(n.none, W, writes=b"new"),
            *leads_to(n, n.none, NEW),
            absent(n.reg),
        ),
    ),
    Scenario(
        "file that was copied up before",
        lambda n: (
            open_file(n.reg, W, writes=b"new"),
            encode(n.reg),
            *leads_to(n, n.reg, NEW),
            rename(n.reg, n.none, cycle=False),
            *leads_to(n, n.none, NEW),
        ),
    ),
    Scenario(
        "three names, removed one by one",
        lambda n: (
            encode(n.reg),
            same_handle(twin(n)),
            link(n.reg, n.none, cycle=False),
            same_handle(n.none),
            unlink(n.reg),
            *leads_to(n, n.none, C0),
            unlink(twin(n)),
            *leads_to(n, n.none, C0),
            unlink(n.none),
            *leads_nowhere(n, n.none),
        ),
    ),
    Scenario(
        "opened for writing by its handle",
        lambda n: (
            encode(n.reg),
            forget(n),
            hold(n.reg, os.O_PATH, "pin"),  # this of its names alone is known and can be copied up
            decode(n.reg, W),
            writes(n.reg, b"new"),
            holds(n.reg, NEW),
            is_same(n.reg),
            is_same(n.reg, "pin"),
        ),
    ),
    Scenario(
        "opened for writing by its handle when no name is known, then by its name",
        lambda n: (
            encode(n.reg),
            forget(n),
            Decode(path=n.reg, handle=HANDLE, held=FD, flags=W, nameless=True),
            writes(n.reg, b"new"),
            holds(n.reg, NEW),
            is_same(n.reg),
            open_file(n.reg, W, writes=b"NEW"),
            holds(n.reg, b"NEW" + C0[3:]),
            is_same(n.reg),
            same_handle(n.reg),
            holds(twin(n), b"NEW" + C0[3:]),
        ),
    ),
    Scenario(
        "symlink",
        lambda n: (
            encode(n.sym),
            forget(n),
            decode(n.sym, os.O_PATH),
            held_looks(n.sym, "symlink 0777"),
            same_handle(n.sym),
        ),
    ),
)

GONE = (
    Scenario(
        "lower file",
        lambda n: (encode(n.rootfile), unlink(n.rootfile), *leads_nowhere(n, n.rootfile), absent(n.rootfile)),
    ),
    # Held: a kernel that counts the index as a link keeps it, and the handle, if it reads the inode anew before the
    # unlink, and other users of the machine may drop caches at any time. handle-links has the cold case.
    Scenario(
        "file that was copied up",
        lambda n: (
            encode(n.rootfile),
            hold(n.rootfile, W),
            unlink(n.rootfile),
            close(n.rootfile),
            *leads_nowhere(n, n.rootfile),
        ),
    ),
    Scenario("new file", lambda n: (create(n.none, b""), encode(n.none), unlink(n.none), *leads_nowhere(n, n.none))),
    Scenario(
        "lower file, and a new one of the name",
        lambda n: (
            encode(n.rootfile),
            unlink(n.rootfile),
            create(n.rootfile, b"other"),
            *leads_nowhere(n, n.rootfile),
        ),
    ),
    Scenario(
        "lower file, replaced by another",
        lambda n: (
            encode(n.rootfile),
            encode(n.reg, "other"),
            rename(n.reg, n.rootfile, cycle=False),
            *leads_nowhere(n, n.rootfile),
            same_handle(n.rootfile, "other"),
        ),
    ),
    Scenario("empty lower directory", lambda n: (encode(n.empty), rmdir(n.empty), *leads_nowhere(n, n.empty))),
    Scenario(
        "empty lower directory, and a new one of the name",
        lambda n: (encode(n.empty), rmdir(n.empty), mkdir(n.empty), *leads_nowhere(n, n.empty)),
    ),
    Scenario("new directory", lambda n: (mkdir(n.nodir), encode(n.nodir), rmdir(n.nodir), *leads_nowhere(n, n.nodir))),
)

OF_DIRECTORIES = (
    # The first, while it is in lower alone.
    Scenario(
        "top directory",
        lambda n: (
            encode(n.top),
            forget(n),
            decode(n.top, DIRECTORY),
            is_at(n.top),
            is_same(n.top),
        ),
    ),
    Scenario(
        "lower directories, then copied up",
        lambda n: (
            encode(n.dir / "pop"),
            *leads_to_dir(n, n.dir / "pop", "b", "c"),
            create(n.dir / "pop/x", b""),
            *leads_to_dir(n, n.dir / "pop", "b", "c", "x"),
        ),
    ),
    Scenario(
        "new directory in a new directory",
        lambda n: (
            mkdir(n.nodir),
            mkdir(n.nodir / "d"),
            encode(n.nodir / "d"),
            *leads_to_dir(n, n.nodir / "d"),
            create(n.nodir / "d/x", b""),
            *leads_to_dir(n, n.nodir / "d", "x"),
        ),
    ),
    Scenario(
        "new directory in a lower directory",
        lambda n: (mkdir(n.dir / "pop/d"), encode(n.dir / "pop/d"), *leads_to_dir(n, n.dir / "pop/d")),
    ),
    Scenario(
        "lower directory used by its handle",
        lambda n: (
            encode(n.dir / "pop"),
            forget(n),
            decode(n.dir / "pop", DIRECTORY),
            HoldAt(path=n.dir / "pop/b", directory=FD, held="child", flags=W),
            writes(n.dir / "pop/b", b"new", "child"),
            HoldAt(path=n.dir / "pop/x", directory=FD, held="fresh", flags=W | os.O_CREAT),
            held_lists(n.dir / "pop", "b", "c", "x"),
        ),
    ),
)

RENAMED = (
    Scenario(
        "lower directory",
        lambda n: (
            encode(n.dir),
            rename(n.dir, n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir, "a", "pop"),
        ),
    ),
    Scenario(
        "lower directory below a lower directory that is renamed",
        lambda n: (
            encode(n.dir / "pop/c", "deep"),
            encode(n.dir / "pop"),
            rename(n.dir, n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir / "pop", "b", "c"),
            forget(n),
            decode(n.nodir / "pop/c", DIRECTORY, "deep"),
            is_at(n.nodir / "pop/c"),
        ),
    ),
    Scenario(
        "lower directory moved into another lower directory",
        lambda n: (
            encode(n.dir / "pop"),
            rename(n.dir / "pop", n.empty / "pop", cycle=False),
            *leads_to_dir(n, n.empty / "pop", "b", "c"),
            rename(n.empty, n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir / "pop", "b", "c"),
        ),
    ),
    Scenario(
        "lower file below a lower directory that is renamed",
        lambda n: (
            encode(n.dir / "pop/b"),
            rename(n.dir, n.nodir, cycle=False),
            *leads_to(n, n.nodir / "pop/b", C1),
            open_file(n.nodir / "pop/b", W, writes=b"new"),
            *leads_to(n, n.nodir / "pop/b", b"new" + C1[3:]),
        ),
    ),
    Scenario(
        "new directory below a lower directory that is renamed",
        lambda n: (
            mkdir(n.dir / "d"),
            encode(n.dir / "d"),
            rename(n.dir, n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir / "d"),
        ),
    ),
    Scenario(
        "encoded after the rename",
        lambda n: (
            rename(n.dir, n.nodir),
            encode(n.nodir / "pop"),
            *leads_to_dir(n, n.nodir / "pop", "b", "c"),
        ),
    ),
)


def exports(lower: Path, upper: Path) -> str | None:
    for layer in (lower, upper):
        try:
            filecalls.name_to_handle(str(layer))
        except OSError as error:
            return f"no file handles of a layer: {error.strerror}"
    refusal = accepts(("nfs_export", "on"))
    return f"no mount option nfs_export=on: {refusal}" if refusal else None


EXPORTS = Need("a union that can be exported", exports)


def exported(name: str, sentence: str, scenarios: tuple[Scenario, ...], when: When = When.ALWAYS) -> Group:
    return Group(
        name, sentence, scenarios, when, lowers=(LOWER,), options=EXPORTED, needs=(EXPORTS,), overlay_alone=True
    )


GROUPS = (
    exported("handle-file", "Open files by handles.", OF_FILES),
    exported("handle-removed", "Open by handles what was removed.", GONE),
    exported("handle-dir", "Open directories by handles.", OF_DIRECTORIES),
    exported(
        "handle-rename-dir",
        "Open by handles what is in directories that were renamed.",
        RENAMED,
        When.DIRECTORY_RENAMES,
    ),
)
