# SPDX-License-Identifier: GPL-2.0-only
"""The options of `./run --lazy`."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final

from union.configuration import Configuration
from union.errors import UsageError
from union.lazy.plan import VARIANTS, Rate, Variant

PLOT: Final = "ovl-detach-lazy.png"
RATE: Final = Rate(10e6, 1000)
ROUNDS: Final = 20
_OWN: Final = ("image", "rate", "rounds", "seed", "plot")


@dataclass(frozen=True, slots=True)
class Lazy:
    """What is asked for; `image` and `plot` are None for an image of ours and for no plot."""

    variant: Variant
    image: Path | None
    rate: Rate
    rounds: int
    seed: int
    plot: Path | None


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to the parser."""
    lazy = parser.add_argument_group("lazy loading")
    lazy.add_argument("--lazy", nargs="?", metavar="=VARIANT", help="a FUSE lower that fills while a workload runs, is "
                      f"migrated away and killed; VARIANT: {', '.join(VARIANTS)}")  # fmt: skip
    lazy.add_argument("--image", type=Path, metavar="DIR", help="the tree that is loaded; default: Debian packages "
                      "unpacked, some 5,600 files, for a VARIANT some 600")  # fmt: skip
    lazy.add_argument("--rate", metavar="RATE", help="how fast it comes: 10MB (a second), 1000files, or both with a "
                      "comma between them (default 10MB,1000files), or `all` at once")  # fmt: skip
    lazy.add_argument("--rounds", type=int, metavar="N", help=f"of --lazy=kill: how often (default {ROUNDS})")
    lazy.add_argument("--seed", type=int, metavar="N", help="what the workload and --lazy=kill draw from")
    lazy.add_argument("--plot", type=Path, metavar="FILE", help=f"where the plot goes (default {PLOT} for the whole "
                      "story, none for a VARIANT)")  # fmt: skip


def parsed(args: argparse.Namespace) -> Lazy | None:
    """What they say, or None without --lazy; raises UsageError."""
    given = [name for name in _OWN if getattr(args, name) is not None]
    if args.lazy is None:
        if given:
            raise UsageError(f"--{given[0]} goes with --lazy")
        return None
    if args.lazy not in VARIANTS:
        raise UsageError(f"--lazy={args.lazy}: it takes one of {', '.join(VARIANTS)}")
    if args.image is not None and not args.image.is_dir():
        raise UsageError(f"--image: {args.image} is not a directory")
    if args.rounds is not None and (args.rounds < 1 or args.lazy != "kill"):
        raise UsageError("--rounds goes with --lazy=kill and takes a number from 1 on")
    if args.plot is not None and args.lazy == "kill":
        raise UsageError("--plot: there is none of --lazy=kill")
    plot = args.plot or (Path(PLOT) if args.lazy == "story" else None)
    if plot is not None and not plot.absolute().parent.is_dir():
        raise UsageError(f"--plot: {plot.absolute().parent} is not a directory")
    drawn = SystemRandom().randrange(100000) if args.lazy == "kill" else 1
    return Lazy(
        variant=args.lazy,
        image=args.image.absolute() if args.image else None,
        rate=_rate(args.rate) if args.rate else RATE,
        rounds=args.rounds or ROUNDS,
        seed=drawn if args.seed is None else args.seed,
        plot=plot,
    )


def _rate(text: str) -> Rate:
    if text == "all":
        return Rate()
    found = re.fullmatch(r"(?:([\d.]+)MB)?,?(?:(\d+)files)?", text)
    try:
        size, files = (float(found[number] or 0) for number in (1, 2)) if found else (0.0, 0.0)
    except ValueError:
        size = files = 0.0
    if not (size or files):
        raise UsageError(f"--rate={text}: it takes 10MB, 1000files, 10MB,1000files or all")
    return Rate(size * 1e6, files)


def words(args: argparse.Namespace, lazy: Lazy) -> list[str]:
    """The words that repeat it, but for --upper-fs."""
    found = ["--lazy" if lazy.variant == "story" else f"--lazy={lazy.variant}"]
    found += [f"--image={lazy.image}"] if lazy.image else []
    found += [f"--rate={args.rate}"] if args.rate else []
    found += [f"--rounds={lazy.rounds}"] if args.rounds else []
    return [*found, f"--seed={lazy.seed}"]


def configuration(args: argparse.Namespace) -> Configuration:
    """Of the union, as far as it is like others."""
    return Configuration(lower_fs="tmpfs", upper_fs=args.upper_fs, xino="nofollow")
