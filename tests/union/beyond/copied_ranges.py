# SPDX-License-Identifier: GPL-2.0-only
"""Data that the kernel copies from file to file, or lets them share."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL
from pathlib import Path

from datasets.reference import FIRST_SET
from datasets.tree import Directory, File
from union import filecalls
from union.names import Name, Names
from union.operations import (
    RW,
    UNSUPPORTED,
    Attempt,
    ChangeModeHeld,
    Digest,
    Operation,
    R,
    Transfer,
    W,
    digest,
    hold,
    is_same,
    reads,
    reads_whole,
    rename,
    unlink,
    writes,
)
from union.operations.data import How
from union.scenario import Group, Need, Scenario

BLOCK = 4096
ONE = b"".join(b"%07d\n" % line for line in range(2048))  # 16 KiB
TWO = b"".join(b"%07x\n" % (line + 0x8000) for line in range(2048))
SAME = ONE[:BLOCK] + TWO[BLOCK:]  # shares its first block with ONE and the others with TWO
FILES = Directory(
    {
        f"{name}{number}": File(content)
        for number in range(FIRST_SET, FIRST_SET + 12)
        for name, content in (("one", ONE), ("two", TWO), ("same", SAME))
    }
)
COPIES: tuple[How, ...] = ("copy_file_range", "sendfile", "splice", "tee")


def one(n: Names) -> Name:
    return n.top / f"one{n.number}"


def two(n: Names) -> Name:
    return n.top / f"two{n.number}"


def same(n: Names) -> Name:
    return n.top / f"same{n.number}"


def transfer(
    path: Name,
    how: How,
    length: int = 0,
    *,
    start: int = 0,
    at: int = 0,
    source: str = "one",
    target: str = "two",
    returns: int | None = None,
    fails: int = 0,
    unsupported: int = 0,
) -> Transfer:
    return Transfer(
        path=path,
        how=how,
        length=length,
        start=start,
        at=at,
        source=source,
        target=target,
        returns=returns,
        fails=fails,
        unsupported=unsupported,
    )


def across(what: Transfer, on_lower: str) -> Attempt:
    """A transfer from a file that may still be in lower, a filesystem of its own."""
    return Attempt(path=what.path, what=what, returns="success", on_lower=on_lower)


def from_lower(how: How) -> Scenario:
    """From a lower file; what looks no deeper than the page cache reaches across the layers."""
    replaced = TWO[:100] + ONE[BLOCK : BLOCK + 1000] + TWO[1100:]

    def script(n: Names) -> tuple[Operation, ...]:
        what = transfer(two(n), how, 1000, start=BLOCK, at=100, returns=None if how == "copy_file_range" else 1000)
        if how != "copy_file_range":
            return what, *reads_whole(two(n), replaced)
        return across(what, "EXDEV"), Digest(path=two(n), returns=digest(replaced), on_lower=digest(TWO))

    return Scenario(
        f"{how} from a lower file",
        lambda n: (
            hold(one(n), R, "one"),
            hold(two(n), RW, "two"),
            *script(n),
            *reads_whole(one(n), ONE),
        ),
    )


def from_upper(how: How) -> Scenario:
    """From a file that was copied up after its descriptor was opened, to one that others have open."""
    content = b"new" + ONE[3:]
    return Scenario(
        f"{how} from a file that was copied up, with readers of both",
        lambda n: (
            hold(one(n), R, "one"),
            hold(two(n), R, "reader"),
            hold(one(n), W, "writer"),
            writes(one(n), b"new", "writer"),
            hold(two(n), W, "two"),
            transfer(two(n), how, 2 * BLOCK, at=BLOCK, returns=2 * BLOCK),
            reads(two(n), TWO[:BLOCK] + content[: 2 * BLOCK] + TWO[3 * BLOCK :], "reader"),
            *reads_whole(two(n), TWO[:BLOCK] + content[: 2 * BLOCK] + TWO[3 * BLOCK :]),
            is_same(two(n), "reader"),
        ),
    )


def over_the_end(how: How) -> Scenario:
    """No more than there is is copied, and what is written beyond the end leaves a hole."""
    return Scenario(
        f"{how} over the ends of both",
        lambda n: (
            hold(one(n), RW, "one"),
            hold(two(n), RW, "two"),
            transfer(two(n), how, 2 * BLOCK, start=len(ONE) - 50, at=len(TWO) + 100, returns=50),
            *reads_whole(two(n), TWO + bytes(100) + ONE[-50:]),
        ),
    )


def refused(how: How) -> Scenario:
    return Scenario(
        f"{how} to a file that is not open for writing",
        lambda n: (
            hold(one(n), RW, "one"),
            hold(two(n), R, "two"),
            transfer(two(n), how, 10, fails=EBADF),
            *reads_whole(two(n), TWO),
        ),
    )


WITHIN = (
    Scenario(
        "copy_file_range within one file",
        lambda n: (
            hold(one(n), RW, "one"),
            transfer(one(n), "copy_file_range", BLOCK, at=2 * BLOCK, target="one", returns=BLOCK),
            *reads_whole(one(n), ONE[: 2 * BLOCK] + ONE[:BLOCK] + ONE[3 * BLOCK :]),
            transfer(one(n), "copy_file_range", BLOCK, at=100, target="one", fails=EINVAL),
        ),
    ),
    Scenario(
        "copy_file_range from a file that was removed to one that was renamed",
        lambda n: (
            hold(one(n), RW, "one"),
            hold(two(n), RW, "two"),
            unlink(one(n)),
            rename(two(n), one(n), cycle=False),
            transfer(one(n), "copy_file_range", BLOCK, returns=BLOCK),
            *reads_whole(one(n), ONE[:BLOCK] + TWO[BLOCK:]),
        ),
    ),
)

# shared extents -------------------------------------------------------------------------------------


def both(n: Names) -> tuple[Operation, ...]:
    return hold(one(n), RW, "one"), hold(two(n), RW, "two")


CLONED = (
    Scenario(
        "whole file, then both written",
        lambda n: (
            *both(n),
            transfer(two(n), "clone"),
            *reads_whole(two(n), ONE),
            writes(one(n), b"one", "one"),
            writes(two(n), b"two", "two", at=BLOCK),
            *reads_whole(one(n), b"one" + ONE[3:]),
            *reads_whole(two(n), ONE[:BLOCK] + b"two" + ONE[BLOCK + 3 :]),
        ),
    ),
    Scenario(
        "range",
        lambda n: (
            *both(n),
            transfer(two(n), "clone", 2 * BLOCK, start=BLOCK, at=2 * BLOCK),
            *reads_whole(two(n), TWO[: 2 * BLOCK] + ONE[BLOCK : 3 * BLOCK]),
            transfer(two(n), "clone", BLOCK, start=100, at=BLOCK, fails=EINVAL),
        ),
    ),
    Scenario(
        "copied up after it was opened, by another descriptor",
        lambda n: (
            hold(one(n), R, "one"),
            ChangeModeHeld(path=one(n), held="one", mode=0o600),
            hold(two(n), RW, "two"),
            transfer(two(n), "clone"),
            *reads_whole(two(n), ONE),
        ),
    ),
    Scenario(
        "not open for writing",
        lambda n: (
            hold(one(n), RW, "one"),
            hold(two(n), R, "two"),
            transfer(two(n), "clone", fails=EBADF),
            *reads_whole(two(n), TWO),
        ),
    ),
)

CLONED_LOWER = Scenario(
    "whole lower file",
    lambda n: (
        hold(one(n), R, "one"),
        hold(two(n), RW, "two"),
        across(transfer(two(n), "clone"), "EXDEV"),
        Digest(path=two(n), returns=digest(ONE), on_lower=digest(TWO)),
    ),
)

DEDUPED = (
    Scenario(
        "blocks that are the same and blocks that differ",
        lambda n: (
            hold(one(n), RW, "one"),
            hold(same(n), RW, "two"),
            transfer(same(n), "dedupe", BLOCK, returns=BLOCK),
            transfer(same(n), "dedupe", 2 * BLOCK),
            *reads_whole(same(n), SAME),
            writes(one(n), b"new", "one"),
            *reads_whole(same(n), SAME),
        ),
    ),
    Scenario(
        "lower file, which is not copied up for that",
        lambda n: (
            hold(one(n), R, "one"),
            hold(same(n), RW, "two"),
            across(transfer(same(n), "dedupe", BLOCK), "EPERM"),
            *reads_whole(same(n), SAME),
        ),
    ),
)

REFUSED = (
    Scenario(
        "clone of a whole file and of a range",
        lambda n: (
            *both(n),
            transfer(two(n), "clone", fails=UNSUPPORTED, unsupported=UNSUPPORTED),
            transfer(two(n), "clone", BLOCK, at=BLOCK, fails=UNSUPPORTED, unsupported=UNSUPPORTED),
            *reads_whole(two(n), TWO),
        ),
    ),
)


def _clone(upper: Path) -> OSError | None:
    paths = upper / "source", upper / "target"
    fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    try:
        os.write(fds[0], ONE)
        filecalls.clone(fds[0], fds[1], 0, 0, 0)
        return None
    except OSError as error:
        return error
    finally:
        for fd, path in zip(fds, paths, strict=True):
            os.close(fd)
            path.unlink()


def _shares(lower: Path, upper: Path) -> str | None:
    error = _clone(upper)
    return f"files on upper share nothing: {error.strerror}" if error else None


def _shares_not(lower: Path, upper: Path) -> str | None:
    return None if _clone(upper) else "files on upper share blocks"


def _apart(lower: Path, upper: Path) -> str | None:
    same = lower.stat().st_dev == upper.stat().st_dev
    return "they are on one, across which can be copied" if same else None


APART = Need("layers on filesystems of their own", _apart)
SHARES = Need("an upper whose files can share blocks", _shares)

GROUPS = (
    Group(
        "copy-range-lower",
        "Let the kernel copy ranges of a lower file, across filesystems.",
        (from_lower("copy_file_range"),),
        lowers=(FILES,),
        needs=(APART,),
    ),
    Group(
        "clone-lower",
        "Clone lower files, across filesystems.",
        (CLONED_LOWER,),
        lowers=(FILES,),
        needs=(APART, SHARES),
    ),
    Group(
        "copy-range",
        "Let the kernel copy ranges from file to file.",
        (
            *(from_lower(how) for how in COPIES if how != "copy_file_range"),
            *(from_upper(how) for how in COPIES),
            *WITHIN,
        ),
        lowers=(FILES,),
    ),
    Group(
        "copy-range-ends",
        "Let the kernel copy over the end of a file, or to where it must not.",
        tuple(scenario(how) for scenario in (over_the_end, refused) for how in COPIES),
        lowers=(FILES,),
    ),
    Group(
        "clone",
        "Clone files and ranges.",
        CLONED,
        lowers=(FILES,),
        needs=(SHARES,),
    ),
    Group(
        "dedupe",
        "Let files share blocks that are the same.",
        DEDUPED,
        lowers=(FILES,),
        needs=(SHARES,),
    ),
    Group(
        "clone-refused",
        "Ask to share blocks on an upper that cannot.",
        REFUSED,
        lowers=(FILES,),
        needs=(Need("an upper whose files share nothing", _shares_not),),
    ),
    Group(
        "dedupe-refused",
        "Ask to share blocks that are the same on an upper that cannot, which overlayfs itself could.",
        (
            Scenario(
                "blocks that are the same",
                lambda n: (
                    hold(one(n), RW, "one"),
                    hold(same(n), RW, "two"),
                    transfer(same(n), "dedupe", BLOCK, fails=EINVAL, unsupported=EINVAL),
                    *reads_whole(same(n), SAME),
                ),
            ),
        ),
        lowers=(FILES,),
        needs=(Need("an upper whose files share nothing", _shares_not),),
        overlay_alone=True,
    ),
)
