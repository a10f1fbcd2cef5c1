# SPDX-License-Identifier: GPL-2.0-only
"""Space of files: fallocate, holes and extents, large and sparse lower files that are copied up, a full upper."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EBADF, EINVAL, ENOSPC
from pathlib import Path

from datasets.reference import C0, FIRST_SET
from datasets.tree import Directory, File
from tests.union.phrases import holds
from union import filecalls
from union.filecalls import COLLAPSE_RANGE, INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from union.names import Name, Names
from union.operations import (
    CREAT,
    FD,
    RW,
    UNSUPPORTED,
    Allocate,
    Attempt,
    Blocks,
    ChangeMode,
    Close,
    Digest,
    HolesKept,
    NoteHoles,
    Operation,
    ReadByExtents,
    Squeeze,
    StatFs,
    W,
    can_be_squeezed,
    close,
    digest,
    hold,
    mkdir,
    open_file,
    reads,
    reads_whole,
    sync,
    unlink,
    writes,
)
from union.scenario import Group, Need, Scenario

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 4 * KIB
DATA = b"".join(b"%07d\n" % line for line in range(8 * KIB))  # 64 KiB, none of its 8 bytes twice
SMALL = DATA[: 4 * BLOCK]
PUNCH = PUNCH_HOLE | KEEP_SIZE


def allocate(path: Name, mode: int, at: int, length: int, *, fails: int = 0, unsupported: int = 0) -> Allocate:
    return Allocate(path=path, held=FD, mode=mode, at=at, length=length, fails=fails, unsupported=unsupported)


# fallocate ------------------------------------------------------------------------------------------


def file(n: Names) -> Name:
    """A lower file of the scenario's own."""
    return n.top / f"file{n.number}"


FILES = Directory({f"file{number}": File(SMALL) for number in range(FIRST_SET, FIRST_SET + 10)})

ALLOCATED = (
    Scenario(
        "lower file grown",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), 0, 3 * BLOCK, 3 * BLOCK),
            *reads_whole(file(n), SMALL + bytes(2 * BLOCK)),
            allocate(file(n), 0, 0, BLOCK),
            *reads_whole(file(n), SMALL + bytes(2 * BLOCK)),
        ),
    ),
    Scenario(
        "beyond the end without growing",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), KEEP_SIZE, 8 * BLOCK, 4 * BLOCK),
            *reads_whole(file(n), SMALL),
            writes(file(n), b"end", at=9 * BLOCK),
            *reads_whole(file(n), SMALL + bytes(5 * BLOCK) + b"end"),
        ),
    ),
    Scenario(
        "hole in the middle",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), PUNCH, BLOCK, 2 * BLOCK),
            *reads_whole(file(n), SMALL[:BLOCK] + bytes(2 * BLOCK) + SMALL[3 * BLOCK :]),
            Blocks(path=file(n), returns="sparse"),
            writes(file(n), SMALL[BLOCK : 3 * BLOCK], at=BLOCK),
            *reads_whole(file(n), SMALL),
        ),
    ),
    Scenario(
        "hole that begins and ends inside of blocks",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), PUNCH, 100, 3 * BLOCK),
            *reads_whole(file(n), SMALL[:100] + bytes(3 * BLOCK) + SMALL[3 * BLOCK + 100 :]),
        ),
    ),
    Scenario(
        "nothing but a hole, then synced",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), PUNCH, 0, 100 * BLOCK),
            *reads_whole(file(n), bytes(len(SMALL))),
            sync(file(n)),
            Blocks(path=file(n), returns="sparse"),
        ),
    ),
    Scenario(
        "seen through a descriptor from before the copy-up",
        lambda n: (
            hold(file(n), held="before"),
            hold(file(n), RW),
            allocate(file(n), PUNCH, 0, BLOCK),
            reads(file(n), bytes(BLOCK) + SMALL[BLOCK:], "before"),
            allocate(file(n), 0, 4 * BLOCK, 10),
            reads(file(n), bytes(BLOCK) + SMALL[BLOCK:] + bytes(10), "before"),
        ),
    ),
    Scenario(
        "file that was removed",
        lambda n: (
            hold(file(n), RW),
            unlink(file(n)),
            allocate(file(n), PUNCH, 0, BLOCK),
            reads(file(n), bytes(BLOCK) + SMALL[BLOCK:]),
        ),
    ),
    Scenario(
        "what is refused",
        lambda n: (
            hold(file(n)),
            allocate(file(n), 0, 0, BLOCK, fails=EBADF),
            allocate(file(n), 0, 0, 0, fails=EINVAL),
            *reads_whole(file(n), SMALL),
        ),
    ),
)

RANGES = (
    Scenario(
        "zeroed, inside and over the end",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), ZERO_RANGE, 100, BLOCK),
            *reads_whole(file(n), SMALL[:100] + bytes(BLOCK) + SMALL[100 + BLOCK :]),
            allocate(file(n), ZERO_RANGE, 3 * BLOCK, 2 * BLOCK),
            *reads_whole(file(n), SMALL[:100] + bytes(BLOCK) + SMALL[100 + BLOCK : 3 * BLOCK] + bytes(2 * BLOCK)),
        ),
    ),
    Scenario(
        "zeroed without growing",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), ZERO_RANGE | KEEP_SIZE, 3 * BLOCK, 2 * BLOCK),
            *reads_whole(file(n), SMALL[: 3 * BLOCK] + bytes(BLOCK)),
        ),
    ),
    Scenario(
        "collapsed",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), COLLAPSE_RANGE, BLOCK, 2 * BLOCK),
            *reads_whole(file(n), SMALL[:BLOCK] + SMALL[3 * BLOCK :]),
            allocate(file(n), COLLAPSE_RANGE, BLOCK, BLOCK, fails=EINVAL),
        ),
    ),
    Scenario(
        "inserted",
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), INSERT_RANGE, BLOCK, BLOCK),
            *reads_whole(file(n), SMALL[:BLOCK] + bytes(BLOCK) + SMALL[BLOCK:]),
            allocate(file(n), INSERT_RANGE, 5 * BLOCK, BLOCK, fails=EINVAL),
        ),
    ),
)

RANGE_MODES = (("zeroed", ZERO_RANGE), ("collapsed", COLLAPSE_RANGE), ("inserted", INSERT_RANGE))


def refused(words: str, mode: int) -> Scenario:
    """What the upper filesystem cannot do leaves the file as it is."""
    return Scenario(
        words,
        lambda n: (
            hold(file(n), RW),
            allocate(file(n), mode, BLOCK, BLOCK, fails=UNSUPPORTED, unsupported=UNSUPPORTED),
            *reads_whole(file(n), SMALL),
        ),
    )


def _with_file(layer: Path, probe: Callable[[int], object]) -> OSError | None:
    """What `probe` raises on a file of some blocks on `layer`."""
    path = layer / "probe"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, SMALL)
        probe(fd)
        return None
    except OSError as error:
        return error
    finally:
        os.close(fd)
        path.unlink()


def _lacking(upper: Path) -> list[str]:
    """The modes that the upper filesystem does not have."""
    found = []
    for words, mode in RANGE_MODES:
        error = _with_file(upper, lambda fd, mode=mode: filecalls.fallocate(fd, mode, BLOCK, BLOCK))  # type: ignore[misc]
        found += [f"no range can be {words} on upper: {error.strerror}"] if error else []
    return found


def _ranges(lower: Path, upper: Path) -> str | None:
    return next(iter(_lacking(upper)), None)


def _no_ranges(lower: Path, upper: Path) -> str | None:
    return None if len(_lacking(upper)) == len(RANGE_MODES) else "upper can do some of it"


# holes and extents ----------------------------------------------------------------------------------

CHUNK = len(DATA)
# Longer than the 1 MiB that is copied up at a time, but not by much: a guest takes long to touch pages of memory.
LARGE = {
    "a hole, then data": bytes(MIB) + DATA,
    "data, then a hole": DATA + bytes(MIB),
    "nothing but a hole": bytes(3 * MIB),
    "data and holes in turn": (DATA + bytes(CHUNK)) * 10,
    "data alone, not whole blocks": DATA * 20 + DATA[:123],
}
SPARSE = Directory(
    {f"file{number}": File(content) for number, content in enumerate((*LARGE.values(), *LARGE.values()), FIRST_SET)}
)


def copied_up(words: str, content: bytes) -> Scenario:
    """The whole file is copied up by a write of one byte at its end."""
    return Scenario(
        f"{words}, written at its end",
        lambda n: (
            *reads_whole(file(n), content),
            NoteHoles(path=file(n), held="holes"),
            hold(file(n), RW),
            writes(file(n), b"!", at=len(content)),
            *reads_whole(file(n), content + b"!"),
            HolesKept(path=file(n), held="holes", returns="kept"),
        ),
    )


def copied_up_by_chmod(words: str, content: bytes) -> Scenario:
    """The whole file is copied up without a change of its data."""
    return Scenario(
        f"{words}, mode changed",
        lambda n: (ChangeMode(path=file(n), mode=0o600), *reads_whole(file(n), content)),
    )


def by_extents(words: str, content: bytes, unsupported: int = 0) -> Scenario:
    """What the extents hold is the content."""

    def extents(path: Name, wanted: bytes) -> ReadByExtents:
        return ReadByExtents(path=path, returns=digest(wanted), fails=unsupported, unsupported=unsupported)

    return Scenario(
        words,
        lambda n: (
            open_file(file(n), W, writes=b"new"),
            extents(file(n), b"new" + content[3:]),
        ),
    )


def by_lower_extents(words: str, content: bytes) -> Scenario:
    return Scenario(words, lambda n: (ReadByExtents(path=file(n), returns=digest(content)),))


def _extents(layer: Path) -> OSError | None:
    return _with_file(layer, filecalls.data_extents)


def _upper_extents(lower: Path, upper: Path) -> str | None:
    error = _extents(upper)
    return f"no FIEMAP on upper: {error.strerror}" if error else None


def _both_extents(lower: Path, upper: Path) -> str | None:
    error = _extents(lower)
    return f"no FIEMAP on lower: {error.strerror}" if error else _upper_extents(lower, upper)


def _no_extents(lower: Path, upper: Path) -> str | None:
    return None if _extents(upper) else "upper has FIEMAP"


# a full upper ---------------------------------------------------------------------------------------

SPARE = 256 * KIB
MUCH = DATA * 16
FULL = Directory(
    {
        **{f"file{number}": File(MUCH) for number in range(FIRST_SET, FIRST_SET + 4)},
        **{f"small{number}": File(C0) for number in range(FIRST_SET, FIRST_SET + 4)},
    }
)


def squeezed(n: Names) -> tuple[Operation, ...]:
    """From here on there is little space."""
    return (
        hold(filler(n), RW | CREAT, "filler"),
        Squeeze(path=filler(n), held="squeeze", filler="filler", spare=SPARE),
    )


def filler(n: Names) -> Name:
    return n.top / f"filler{n.number}"


def relaxed(n: Names) -> Close:
    """Now there is space again."""
    return close(filler(n), "squeeze")


def small(n: Names) -> Name:
    return n.top / f"small{n.number}"


NO_SPACE = (
    Scenario(
        "large lower file opened for writing, then when there is space again",
        lambda n: (
            *squeezed(n),
            Attempt(path=file(n), what=hold(file(n), W, "early"), returns="success", on_lower="ENOSPC"),
            Digest(path=file(n), returns=digest(MUCH)),
            relaxed(n),
            hold(file(n), RW),
            writes(file(n), b"new"),
            *reads_whole(file(n), b"new" + MUCH[3:]),
        ),
    ),
    Scenario(
        "mode of a large lower file changed",
        lambda n: (
            *squeezed(n),
            Attempt(path=file(n), what=ChangeMode(path=file(n), mode=0o600), returns="success", on_lower="ENOSPC"),
            *reads_whole(file(n), MUCH),
            relaxed(n),
        ),
    ),
    Scenario(
        "small lower file still fits",
        lambda n: (
            *squeezed(n),
            open_file(small(n), W, writes=b"new"),
            holds(small(n), b"new" + C0[3:]),
            relaxed(n),
        ),
    ),
    Scenario(
        "space asked for that is not there",
        lambda n: (
            hold(small(n), RW),
            *squeezed(n),
            allocate(small(n), 0, 0, 4 * MIB, fails=ENOSPC),
            holds(small(n), C0),
            relaxed(n),
        ),
    ),
)


def _can_be_filled(lower: Path, upper: Path) -> str | None:
    if upper.stat().st_dev == lower.stat().st_dev:
        return "lower is on the same filesystem: a copy may need no space"
    return None if can_be_squeezed(str(upper)) else "upper is too large, or cannot be filled to the block"


# the filesystem -------------------------------------------------------------------------------------


def overlay(path: Name) -> StatFs:
    return StatFs(path=path, returns="overlay")


GROUPS = (
    Group("fallocate", "Allocate space and punch holes.", ALLOCATED, lowers=(FILES,)),
    Group(
        "fallocate-ranges",
        "Zero, collapse and insert ranges.",
        RANGES,
        lowers=(FILES,),
        needs=(Need("all modes of fallocate on upper", _ranges),),
    ),
    Group(
        "fallocate-refused",
        "Ask for modes of fallocate that the upper filesystem does not have.",
        tuple(refused(*row) for row in RANGE_MODES),
        lowers=(FILES,),
        needs=(Need("an upper without them", _no_ranges),),
    ),
    Group(
        "large-file",
        "Copy up large and sparse files as a whole.",
        (*(copied_up(*row) for row in LARGE.items()), *(copied_up_by_chmod(*row) for row in LARGE.items())),
        lowers=(SPARSE,),
    ),
    Group(
        "extents",
        "Read files by the extents of their copies.",
        tuple(by_extents(*row) for row in LARGE.items()),
        lowers=(SPARSE,),
        needs=(Need("FIEMAP on upper", _upper_extents),),
    ),
    Group(
        "extents-lower",
        "Read lower files by their extents.",
        tuple(by_lower_extents(*row) for row in LARGE.items()),
        lowers=(SPARSE,),
        needs=(Need("FIEMAP on both layers", _both_extents),),
    ),
    Group(
        "extents-refused",
        "Ask for extents that the upper filesystem does not tell.",
        tuple(by_extents(*row, UNSUPPORTED) for row in list(LARGE.items())[:1]),
        lowers=(SPARSE,),
        needs=(Need("an upper without FIEMAP", _no_extents),),
    ),
    Group(
        "no-space",
        "Copy up when the upper filesystem is full.",
        NO_SPACE,
        lowers=(FULL,),
        options=(("metacopy", "off"),),
        needs=(Need("an upper that is easily filled", _can_be_filled),),
    ),
    Group(
        "statfs",
        "Ask what filesystem it is.",
        (
            Scenario(
                "lower, copied-up and new objects",
                lambda n: (
                    overlay(n.top),
                    overlay(n.reg),
                    overlay(n.dir / "pop"),
                    open_file(n.reg, W),
                    overlay(n.reg),
                    mkdir(n.nodir),
                    overlay(n.nodir),
                ),
            ),
        ),
        overlay_alone=True,
    ),
)
