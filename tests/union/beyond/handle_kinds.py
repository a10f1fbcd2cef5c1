# SPDX-License-Identifier: GPL-2.0-only
"""Handles of directories in several layers, with link counts, connectable ones, those that tell objects apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from errno import EINVAL, EOPNOTSUPP, EOVERFLOW, ESTALE
from pathlib import Path

from datasets.reference import C0, FIRST_SET
from datasets.tree import Directory, File
from tests.union.beyond.file_handles import (
    EXPORTED,
    EXPORTS,
    HANDLE,
    LOWER,
    decode,
    encode,
    exports,
    forget,
    is_at,
    leads_nowhere,
    leads_to,
    leads_to_dir,
    same_handle,
)
from tests.union.phrases import create
from union import filecalls, syscalls
from union.filecalls import AT_HANDLE_CONNECTABLE, AT_HANDLE_FID
from union.layers import build_layers
from union.names import Name, Names
from union.operations import (
    DIRECTORY,
    ChangeMode,
    SameHandle,
    W,
    close,
    held_looks,
    open_file,
    reads,
    rename,
    unlink,
)
from union.overlay import Overlay
from union.scenario import Group, Need, Scenario, When

NOT_EXPORTED = (("nfs_export", "off"),)

UPPERMOST = Directory({f"dir{n}": Directory() for n in range(FIRST_SET, FIRST_SET + 3)})
LOWERMOST = Directory(
    {
        f"dir{n}": Directory({"mid": Directory({"deep": Directory({"file": File(C0)})})})
        for n in range(FIRST_SET, FIRST_SET + 3)
    }
)

# A directory whose parent comes from a layer further up cannot be found from its own layer once the parent is
# renamed: one above it is copied up when it is encoded.
LAYERS = (
    Scenario(
        "directory two levels below one of two layers",
        lambda n: (encode(n.dir / "mid/deep"), *leads_to_dir(n, n.dir / "mid/deep", "file")),
    ),
    Scenario(
        "directory and file, when the directory of two layers is renamed",
        lambda n: (
            encode(n.dir / "mid/deep"),
            encode(n.dir / "mid/deep/file", "file"),
            rename(n.dir, n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir / "mid/deep", "file"),
            decode(n.nodir / "mid/deep/file", handle="file"),
            reads(n.nodir / "mid/deep/file", C0),
        ),
    ),
    Scenario(
        "directory of the lower layer that is moved out",
        lambda n: (
            encode(n.dir / "mid"),
            rename(n.dir / "mid", n.nodir, cycle=False),
            *leads_to_dir(n, n.nodir, "deep"),
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


def _connectable(lower: Path, upper: Path) -> str | None:
    try:
        filecalls.name_to_handle(str(upper), AT_HANDLE_CONNECTABLE)
    except OSError as error:
        if error.errno == EINVAL:  # others come from a filesystem that has none
            return f"the kernel knows no connectable handles: {error.strerror}"
    return exports(lower, upper)


def _counts_links(lower: Path, upper: Path) -> str | None:
    """With an index of all objects, that of a file counts as a name of it when its inode is read anew."""
    refusal = exports(lower, upper)
    if refusal:
        return refusal
    with ExitStack() as stack:
        overlay = Overlay(build_layers(stack, [Directory({"file": File()})]), EXPORTED)
        path = overlay.stack.mountpoint / "file"
        with overlay.mounted():
            path.chmod(0o600)
            syscalls.drop_caches(pages=False)
            links = path.stat().st_nlink
    return None if links == 1 else f"a file with one name that was copied up shows {links} links"


CONNECTABLE = Need("connectable handles", _connectable)

GROUPS = (
    Group(
        "handle-layers",
        "Open by handles directories of the lower of two lower layers.",
        LAYERS,
        When.DIRECTORY_RENAMES,
        lowers=(UPPERMOST, LOWERMOST),
        options=EXPORTED,
        needs=(EXPORTS,),
        overlay_alone=True,
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
        overlay_alone=True,
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
