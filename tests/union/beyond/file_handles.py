# SPDX-License-Identifier: GPL-2.0-only
"""File handles: what they lead to after copy-up, rename and removal, with all caches cold."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from errno import EINVAL, EOPNOTSUPP, EOVERFLOW, ESTALE
from pathlib import Path

from datasets.reference import C0, C1, FIRST_SET, reference_top
from datasets.tree import Directory, File, HardLink
from tests.union.phrases import absent, create, holds
from union import filecalls
from union.filecalls import AT_HANDLE_CONNECTABLE, AT_HANDLE_FID
from union.layers import build_layers
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
from union.operations.filehandles import DROP_CACHES, NAMES_ALONE
from union.overlay import Overlay, accepts
from union.scenario import Group, Need, Scenario, When

NEW = b"newx:yyy:zzz"
HANDLE = "handle"
EXPORTED = (("index", "on"), ("nfs_export", "on"))
NOT_EXPORTED = (("nfs_export", "off"),)


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
LOWER = Directory({
    **reference_top("top", TWINS).entries,
    # A file with one name in lower shows two links once it was copied up and its inode is read anew: the
    # index counts as a name. Those that are looked at cold after a copy-up have a second name in lower.
    **{f"twin{n}": HardLink(f"foo{n}") for n in range(FIRST_SET, FIRST_SET + TWINS)},
    **{f"twin_b{n}": HardLink(f"dir{n}/pop/b") for n in range(FIRST_SET, FIRST_SET + TWINS)},
})


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
            hold(n.reg, os.O_PATH, "pin"),  # its name is known and can be copied up
            decode(n.reg, W),
            writes(n.reg, b"new"),
            holds(n.reg, NEW),
            is_same(n.reg),
            is_same(n.reg, "pin"),
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
    Scenario(
        "file that was copied up",
        lambda n: (encode(n.rootfile), open_file(n.rootfile, W), unlink(n.rootfile), *leads_nowhere(n, n.rootfile)),
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

MARKED = (
    Scenario(
        "lower file",
        lambda n: (encode(n.reg), forget(n), decode(n.reg, marked=True, fails=ESTALE), decode(n.reg), reads(n.reg, C0)),
    ),
    Scenario(
        "new file",
        lambda n: (
            create(n.none, b"text"),
            encode(n.none),
            forget(n),
            decode(n.none, marked=True, fails=ESTALE),
        ),
    ),
)


LINKS = (
    Scenario(
        "lower file with one name, copied up",
        lambda n: (
            encode(n.rootfile),
            ChangeMode(path=n.rootfile, mode=0o600),
            *leads_to(n, n.rootfile, C0),
            decode(n.rootfile),
            held_looks(n.rootfile, "file 0600, 12 bytes, 1 links"),
            close(n.rootfile),
            unlink(n.rootfile),
            *leads_nowhere(n, n.rootfile),
        ),
    ),
    Scenario(
        "lower file with one name, renamed",
        lambda n: (
            encode(n.rootfile),
            rename(n.rootfile, n.none, cycle=False),
            *leads_to(n, n.none, C0),
        ),
    ),
)


def cannot_be_had(words: str, flags: int, fails: int, *paths: Callable[[Names], Name]) -> Scenario:
    """A handle of this kind is refused."""
    return Scenario(
        words,
        lambda n: tuple(encode(path(n), f"of {path(n)}", flags, unsupported=fails) for path in paths),
    )


IDENTITIES = (
    Scenario(
        "lower file that is copied up and renamed",
        lambda n: (
            encode(n.reg, flags=AT_HANDLE_FID),
            open_file(n.reg, W, writes=b"new"),
            same_handle(n.reg, flags=AT_HANDLE_FID),
            rename(n.reg, n.none, cycle=False),
            same_handle(n.none, flags=AT_HANDLE_FID),
        ),
    ),
    Scenario(
        "lower directory that is copied up",
        lambda n: (
            encode(n.dir, flags=AT_HANDLE_FID),
            create(n.dir / "x", b""),
            same_handle(n.dir, flags=AT_HANDLE_FID),
        ),
    ),
    Scenario(
        "file that is replaced",
        lambda n: (
            encode(n.reg, flags=AT_HANDLE_FID),
            unlink(n.reg),
            create(n.reg, b"other"),
            SameHandle(path=n.reg, handle=HANDLE, flags=AT_HANDLE_FID, returns="another"),
        ),
    ),
)


def _exports(lower: Path, upper: Path) -> str | None:
    for layer in (lower, upper):
        try:
            filecalls.name_to_handle(str(layer))
        except OSError as error:
            return f"no file handles of a layer: {error.strerror}"
    refusal = accepts(("nfs_export", "on"))
    return f"no mount option nfs_export=on: {refusal}" if refusal else None


def _connectable(lower: Path, upper: Path) -> str | None:
    try:
        filecalls.name_to_handle(str(upper), AT_HANDLE_CONNECTABLE)
    except OSError as error:
        if error.errno == EINVAL:  # others come from a filesystem that has none
            return f"the kernel knows no connectable handles: {error.strerror}"
    return _exports(lower, upper)


def _counts_links(lower: Path, upper: Path) -> str | None:
    """With an index of all objects, that of a file counts as a name of it when its inode is read anew."""
    refusal = _exports(lower, upper)
    if refusal:
        return refusal
    with ExitStack() as stack:
        overlay = Overlay(build_layers(stack, [Directory({"file": File()})]), EXPORTED)
        path = overlay.stack.mountpoint / "file"
        with overlay.mounted():
            path.chmod(0o600)
            DROP_CACHES.write_text(NAMES_ALONE)
            links = path.stat().st_nlink
    return None if links == 1 else f"a file with one name that was copied up shows {links} links"


EXPORTS = Need("a union that can be exported", _exports)
CONNECTABLE = Need("connectable handles", _connectable)


def exported(name: str, sentence: str, scenarios: tuple[Scenario, ...], when: When = When.ALWAYS) -> Group:
    return Group(name, sentence, scenarios, when, lowers=(LOWER,), options=EXPORTED, needs=(EXPORTS,))


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
    Group(
        "handle-connectable",
        "Ask for handles that tell the way, and forge their mark.",
        (
            *MARKED,
            cannot_be_had(
                "asked for, of files and symlink", AT_HANDLE_CONNECTABLE, EOVERFLOW, lambda n: n.reg, lambda n: n.sym
            ),
            Scenario(
                "of a directory, which needs no such mark",
                lambda n: (
                    encode(n.dir, flags=AT_HANDLE_CONNECTABLE),
                    forget(n),
                    decode(n.dir, DIRECTORY),
                    is_at(n.dir),
                    same_handle(n.dir, flags=AT_HANDLE_CONNECTABLE),
                ),
            ),
        ),
        lowers=(LOWER,),
        options=EXPORTED,
        needs=(CONNECTABLE,),
        overlay_alone=True,
    ),
    Group(
        "handle-links",
        "Open by handles copied-up files that have one name, when the link count is read anew.",
        LINKS,
        options=EXPORTED,
        needs=(Need("an export that counts links", _counts_links),),
    ),
    Group(
        "handle-not-exported",
        "Ask for handles of a union that is not exported.",
        (
            cannot_be_had("handles to open", 0, EOPNOTSUPP, lambda n: n.reg, lambda n: n.dir, lambda n: n.sym),
            *IDENTITIES,
        ),
        options=NOT_EXPORTED,
        overlay_alone=True,
    ),
)
