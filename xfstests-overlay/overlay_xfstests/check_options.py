# SPDX-License-Identifier: GPL-2.0-only
"""The options of `check`, in any order; a mistake is one clear line and exit code 2, before anything is done."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kernel.private import COVERED
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.choosing import Choosing, plain
from overlay_xfstests.devices import FILESYSTEMS
from overlay_xfstests.words import Words
from union.errors import UsageError

TIME_LIMIT: Final = 600
DESCRIPTION = """\
Run the ./check -overlay of an xfstests checkout in a guest of ours or on the running kernel, with test and
scratch devices that it makes for it, and with the users that it needs. The checkout is built by
xfstests-overlay/build and gets the suite's own tests by xfstests-overlay/install.
"""
EPILOG = """\
A TEST is one of xfstests (overlay/031, 031, generic/001, 'overlay/03?'), or one of ours by its name (detach).
Without tests and groups it is ours that run: -g overlay/nofollow. A GROUP is overlay/quick, or quick for
all that ./check -overlay has in it, generic/ too; commas separate several. A local.config is not read.

A test with which a guest's kernel panics, reports a fault, hangs or takes longer than --time-limit has failed; what
the kernel said last is in RESULTS/overlay/NNN.dmesg, and the tests after it run in a new guest.

Exit: 0 passed, 1 failed, 2 usage, 3 it could not be set up, 4 nothing could run here (all tests were
skipped counts as that).
"""


@dataclass(frozen=True)
class Options:
    """What the command line asks for; `results` is None for a new directory, sizes are in bytes."""

    checkout: Path
    tests: tuple[str, ...]
    kernel: str
    kernel_source: Path | None
    cpus: int
    memory: str
    fs: str
    size: int
    mount_options: str
    results: Path | None
    time_limit: int
    jobs: int
    is_part: bool  # of a run with several jobs, which says at the end what came out


def parse(argv: Sequence[str]) -> Options:
    """Options of the command line. `--help` prints and exits 0. Raises UsageError, SetupError for no built checkout."""
    args = _parser().parse_intermixed_args(argv)
    if args.checkout is None:
        raise UsageError("no CHECKOUT is named; xfstests-overlay/check --help has all words")
    if args.time_limit < 1:
        raise UsageError("--time-limit takes a number of seconds from 1 on")
    if args.jobs < 1:
        raise UsageError("--jobs takes a number from 1 on")
    results = plain(args.results) if args.results is not None else None
    if results is not None and str(results.resolve()) in COVERED:
        raise UsageError(f"--results={results}: name a directory in it")
    size, options = _size(args.size), _mount_options(args.mount_options)
    if args.kernel_source is not None and not args.kernel_source.exists():
        raise UsageError(f"--kernel-source: {args.kernel_source} does not exist")
    checkout = Checkout(plain(args.checkout))
    choosing = Choosing(checkout)
    return Options(
        checkout=checkout.top,
        tests=choosing.chosen(args.tests, _split(args.group), _split(args.exclude_group), _split(args.exclude)),
        kernel=args.kernel,
        kernel_source=args.kernel_source,
        cpus=args.cpus,
        memory=args.memory,
        fs=args.fs,
        size=size,
        mount_options=options,
        results=results,
        time_limit=args.time_limit,
        jobs=args.jobs,
        is_part=args.part,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Words("check", DESCRIPTION, EPILOG)
    parser.add_argument("checkout", nargs="?", type=Path, metavar="CHECKOUT", help="a built checkout of xfstests")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="run only these")
    what = parser.add_argument_group("what to run")
    what.add_argument("-g", dest="group", action="append", default=[], metavar="GROUP", help="the tests of this group")
    what.add_argument("-x", dest="exclude_group", action="append", default=[], metavar="GROUP", help="but not of this")
    what.add_argument("-e", dest="exclude", action="append", default=[], metavar="TEST", help="nor this test")
    where = parser.add_argument_group("where to run it")
    where.add_argument("--kernel", default="auto", metavar="WHICH", help="auto: the running one if it has "
                       "xino=nofollow and we are root, else a guest of 6.12 (default); native; 6.12, 7.2, stock-6.12, "
                       "debian-6.12 and so on, or the PATH of a user-mode Linux binary or a bzImage, as for ./run")
    where.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="build the kernel from this source")
    where.add_argument("--cpus", type=int, default=1, metavar="N", help="of a guest, if its kernel can; default 1")
    where.add_argument("--memory", default="2G", metavar="SIZE", help="of a guest, like 2G (default) or 512M; what "
                       "is written to the devices is in there too")
    where.add_argument("--time-limit", type=int, default=TIME_LIMIT, metavar="SECONDS",
                       help=f"how long a single test may take; default {TIME_LIMIT}")
    where.add_argument("--jobs", type=int, default=1, metavar="N", help="N parts of the tests at once; default 1")
    where.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    base = parser.add_argument_group("what to run it on")
    base.add_argument("--fs", choices=tuple(FILESYSTEMS), default="xfs", help="the base of the overlays; default xfs")
    base.add_argument("--size", default="12G", metavar="SIZE", help="of each device, sparse; default 12G")
    base.add_argument("--mount-options", default="", metavar="OPTIONS", help="mount options of the overlays, like "
                      "xino=nofollow or '-o xino=nofollow'")
    parser.add_argument("--results", type=Path, metavar="DIR", help="xfstests' result files, result.xml (JUnit) among "
                        "them, and the guest's consoles; default: a new directory in the user's cache")
    return parser


def _split(words: Sequence[str]) -> list[str]:
    return [word for several in words for word in several.split(",") if word]


def _size(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})([MG])", text)
    if not found:
        raise UsageError(f"--size={text}: a size is like 12G or 600M")
    return int(found[1]) << {"M": 20, "G": 30}[found[2]]


def _mount_options(text: str) -> str:
    words = text.split()
    if len(words) == 1 and not text.startswith("-"):
        words = ["-o", *words]
    if words and (len(words) % 2 or any(word != "-o" for word in words[::2])):
        raise UsageError(f"--mount-options={text}: they are like xino=nofollow,index=on or '-o xino=nofollow'")
    return " ".join(words)
