# SPDX-License-Identifier: GPL-2.0-only
"""Files mapped into memory before and after they are copied up, and programs that run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EACCES, ETXTBSY
from pathlib import Path

from datasets.reference import C0, FIRST_SET
from datasets.tree import Directory, File
from tests.union.phrases import absent, holds
from union.names import Name, Names
from union.operations import (
    FD,
    RW,
    ChangeMode,
    HoldTemporary,
    LinkHeld,
    Map,
    Operation,
    R,
    ReadMapping,
    Run,
    RunToEnd,
    SyncMapping,
    W,
    WriteMapping,
    close,
    hold,
    open_file,
    reads,
    rename,
    sync,
    unlink,
    writes,
)
from union.operations.mappings import EXIT_STATUS, PROGRAM, started
from union.scenario import Group, Need, Scenario

NEW = b"newx:yyy:zzz"
MAP = "map"


def shared(path: Name, held: str = FD, *, writable: bool = False, mapping: str = MAP, fails: int = 0) -> Map:
    return Map(path=path, held=held, mapping=mapping, length=len(C0), writable=writable, fails=fails)


def private(path: Name, held: str = FD) -> Map:
    return Map(path=path, held=held, mapping=MAP, length=len(C0), shared=False, writable=True)


def shows(path: Name, content: bytes, mapping: str = MAP, *, on_lower: bytes | None = None) -> ReadMapping:
    """The mapping has this content. What was mapped of the lower file never changes: see the kernel's doc."""
    return ReadMapping(path=path, mapping=mapping, returns=content, on_lower=on_lower)


def store(path: Name, data: bytes, at: int = 0, mapping: str = MAP) -> WriteMapping:
    return WriteMapping(path=path, mapping=mapping, data=data, at=at)


MAPPED = (
    Scenario(
        "lower file mapped shared, then written through another descriptor",
        lambda n: (
            hold(n.reg),
            shared(n.reg),
            shows(n.reg, C0),
            open_file(n.reg, W, writes=b"new"),
            shows(n.reg, NEW, on_lower=C0),
            reads(n.reg, NEW),
            holds(n.reg, NEW),
        ),
    ),
    Scenario(
        "lower file written, then mapped through a descriptor from before",
        lambda n: (
            hold(n.reg),
            open_file(n.reg, W, writes=b"new"),
            shared(n.reg),
            shows(n.reg, NEW, on_lower=C0),
            reads(n.reg, NEW),
        ),
    ),
    Scenario(
        "lower file written, then mapped through a new descriptor",
        lambda n: (
            open_file(n.reg, W, writes=b"new"),
            hold(n.reg),
            shared(n.reg),
            shows(n.reg, NEW),
            open_file(n.reg, W, writes=b"NEW"),
            shows(n.reg, b"NEW" + C0[3:]),
        ),
    ),
    Scenario(
        "mapped shared and stored to",
        lambda n: (
            hold(n.reg, RW),
            shared(n.reg, writable=True),
            store(n.reg, b"new"),
            reads(n.reg, NEW),
            holds(n.reg, NEW),
            SyncMapping(path=n.reg, mapping=MAP),
            close(n.reg),
            store(n.reg, b"end", 9),
            close(n.reg, MAP),
            holds(n.reg, NEW[:9] + b"end"),
        ),
    ),
    Scenario(
        "stored to, and written, one sees the other",
        lambda n: (
            hold(n.reg, RW),
            shared(n.reg, writable=True),
            writes(n.reg, b"old"),
            shows(n.reg, b"old" + C0[3:]),
            store(n.reg, b"new"),
            sync(n.reg),
            reads(n.reg, NEW),
            open_file(n.reg, R, reads=NEW),
        ),
    ),
    Scenario(
        "mapped private and stored to: the file stays",
        lambda n: (
            hold(n.reg),
            private(n.reg),
            store(n.reg, b"new"),
            shows(n.reg, NEW),
            reads(n.reg, C0),
            holds(n.reg, C0),
        ),
    ),
    Scenario(
        "lower file mapped private, then written",
        lambda n: (
            hold(n.reg),
            private(n.reg),
            open_file(n.reg, W, writes=b"new"),
            shows(n.reg, NEW, on_lower=C0),
            store(n.reg, b"own"),
            holds(n.reg, NEW),
        ),
    ),
    Scenario(
        "two mappings, from before and after the copy-up",
        lambda n: (
            hold(n.reg, R, "before"),
            shared(n.reg, "before", mapping="one"),
            hold(n.reg, RW, "after"),
            shared(n.reg, "after", mapping="two", writable=True),
            store(n.reg, b"new", mapping="two"),
            shows(n.reg, NEW, "two"),
            shows(n.reg, NEW, "one", on_lower=C0),
            reads(n.reg, NEW, "before"),
        ),
    ),
    Scenario(
        "mapping outlives the descriptor and the name",
        lambda n: (
            hold(n.reg),
            shared(n.reg),
            close(n.reg),
            unlink(n.reg),
            shows(n.reg, C0),
            absent(n.reg),
        ),
    ),
    Scenario(
        "renamed while it is mapped and stored to",
        lambda n: (
            hold(n.reg, RW),
            shared(n.reg, writable=True),
            rename(n.reg, n.none, cycle=False),
            store(n.none, b"new"),
            holds(n.none, NEW),
        ),
    ),
    Scenario(
        "replaced while it is mapped",
        lambda n: (
            hold(n.reg),
            shared(n.reg),
            rename(n.rootfile, n.reg, cycle=False),
            open_file(n.reg, W, writes=b"new"),
            shows(n.reg, C0),
            holds(n.reg, NEW),
        ),
    ),
    Scenario(
        "file without a name, stored to and then linked",
        lambda n: (
            HoldTemporary(path=n.dir, held=FD),
            writes(n.dir, C0),
            shared(n.dir, writable=True),
            store(n.dir, b"new"),
            LinkHeld(path=n.dir / "x", held=FD),
            holds(n.dir / "x", NEW),
        ),
    ),
    Scenario(
        "what the descriptor does not allow",
        lambda n: (
            hold(n.reg),
            shared(n.reg, writable=True, fails=EACCES),
            hold(n.reg, W, "writer"),
            shared(n.reg, "writer", fails=EACCES),
        ),
    ),
)

# programs -------------------------------------------------------------------------------------------

PROGRAMS = Directory({f"program{number}": File(PROGRAM, mode=0o755) for number in range(FIRST_SET, FIRST_SET + 5)})


def program(n: Names) -> Name:
    return n.top / f"program{n.number}"


def runs(path: Name) -> RunToEnd:
    return RunToEnd(path=path, returns=EXIT_STATUS)


def _busy(lower: Path, upper: Path) -> str | None:
    """Some kernels (6.11, 6.12) let a running program be written."""
    probe = upper / "program"
    probe.write_bytes(PROGRAM)
    probe.chmod(0o755)
    _, stop = started(str(probe))
    try:
        os.close(os.open(probe, os.O_WRONLY))
    except OSError as error:
        return None if error.errno == ETXTBSY else f"a running program: {error.strerror}"
    finally:
        stop()
        probe.unlink()
    return "the kernel lets a running program be written"


def busy(n: Names) -> Sequence[Operation]:
    """The program runs and cannot be written, also while it is still in lower: the union's own inode counts."""
    return (
        Run(path=program(n), held="running"),
        hold(program(n), W, "late", fails=ETXTBSY),
        close(program(n), "running"),
        hold(program(n), W, "late"),
    )


GROUPS = (
    Group("mmap", "Map files into memory before and after they are copied up.", MAPPED),
    Group(
        "exec",
        "Run programs from the union.",
        (
            Scenario(
                "lower program, copied up, removed while it runs",
                lambda n: (
                    runs(program(n)),
                    open_file(program(n), W),
                    runs(program(n)),
                    Run(path=program(n), held="running"),
                    unlink(program(n)),
                    close(program(n), "running"),
                    absent(program(n)),
                ),
            ),
            Scenario(
                "permission taken and given back",
                lambda n: (
                    ChangeMode(path=program(n), mode=0o644),
                    RunToEnd(path=program(n), fails=EACCES),
                    ChangeMode(path=program(n), mode=0o755),
                    runs(program(n)),
                ),
            ),
        ),
        lowers=(PROGRAMS,),
    ),
    Group(
        "exec-busy",
        "Write a program that runs, and run one that is open for writing.",
        (
            Scenario("lower program that runs", busy),
            Scenario("program that was copied up and runs", lambda n: (open_file(program(n), W), *busy(n))),
            Scenario(
                "program that is open for writing",
                lambda n: (
                    hold(program(n), W),
                    RunToEnd(path=program(n), fails=ETXTBSY),
                    close(program(n)),
                    runs(program(n)),
                ),
            ),
        ),
        lowers=(PROGRAMS,),
        needs=(Need("a running program cannot be written", _busy),),
    ),
)
