# SPDX-License-Identifier: GPL-2.0-only
"""The options of `./run`, in any order; a mistake is one clear line and exit code 2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from union.configuration import Configuration, MigrateWay
from union.errors import UsageError

DESCRIPTION = """\
Show whether a Linux overlay can safely lose its lower layer.

  ./run --ov --xino [GROUP...]   the detach run: build the dataset, mount it with xino=nofollow, copy
                                 everything up, list all directories, shut the lower XFS down, then
                                 replay every union operation
  ./run --ov [GROUP...]          the same operations on a plain overlay
  ./run --controls               runs that must fail; an error if one of them passes
  ./run --list                   the groups and scenarios
  ./run --pytest [ARGS...]       the project's own tests
"""

EPILOG = """\
A GROUP is a name of --list, a scenario of it (rename-file:3) or a pattern ('rename-*').
Exit: 0 passed, 1 failed, 2 usage, 3 our own error, 4 nothing could run here.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    action: str  # run, list, controls
    configuration: Configuration
    selectors: tuple[str, ...]
    kernel: str
    kernel_source: Path | None
    log_dir: Path | None
    verbose: bool
    words: tuple[str, ...]  # the options that choose the run, without kernel, logs and groups

    def command(self) -> str:
        """The command line that repeats the run, without its groups."""
        kernel = [] if self.kernel == "auto" else [f"--kernel={self.kernel}"]
        return " ".join(["./run", *self.words, *kernel])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; ./run --help lists the options")


def _parser() -> _Parser:
    parser = _Parser(
        prog="./run",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="run only these, in this order")
    what = parser.add_argument_group("what to run")
    what.add_argument("--ov", action="store_true", help="an overlay of one lower and one upper layer")
    what.add_argument("--xino", action="store_true", help="detach the lower layer before the operations")
    what.add_argument("--xdev", action="store_true", help="leave directory renames off (without --xino)")
    what.add_argument("--controls", action="store_true", help="run the negative controls of the detach run")
    what.add_argument("--list", action="store_true", help="print the groups and scenarios, run nothing")
    detach = parser.add_argument_group("the detach run")
    detach.add_argument(
        "--migrate",
        choices=("mail", "dfs", "none"),
        help="mail: chown -R and 4 x find, then list on until nothing changes (default); "
        "dfs: in process, each directory after its subdirectories; none: leave lower in use",
    )
    detach.add_argument("--no-fence", action="store_true", help="do not shut the lower filesystem down")
    kernel = parser.add_argument_group("the kernel")
    kernel.add_argument(
        "--kernel",
        default="auto",
        metavar="WHICH",
        help="auto: the running one if it can do the job and we are root, else a guest (default); native; "
        "6.12: built here with the reference patch; stock-6.12: without it; PATH: a user-mode Linux binary",
    )
    kernel.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="build from this 6.12 source")
    output = parser.add_argument_group("output")
    output.add_argument("-v", "--verbose", action="store_true", help="show what each operation gave")
    output.add_argument("--log-dir", type=Path, metavar="DIR", help="keep logs and the guest's console here")
    return parser


def parse(argv: Sequence[str]) -> Options:
    """Options of the command line; raises UsageError. `--help` prints and exits 0."""
    args = _parser().parse_intermixed_args(list(argv))
    action = _action(args)
    if args.kernel_source is not None and args.kernel not in ("auto", "6.12", "stock-6.12"):
        raise UsageError(f"--kernel-source has no use with --kernel={args.kernel}")
    if args.kernel_source is not None and not args.kernel_source.exists():
        raise UsageError(f"--kernel-source: {args.kernel_source} does not exist")
    return Options(
        action=action,
        configuration=_configuration(args),
        selectors=tuple(args.groups),
        kernel=args.kernel,
        kernel_source=args.kernel_source,
        log_dir=args.log_dir,
        verbose=args.verbose,
        words=_words(args),
    )


def _action(args: argparse.Namespace) -> str:
    chosen = [name for name in ("ov", "controls", "list") if getattr(args, name)]
    if not chosen:
        raise UsageError("nothing to do: say --ov, --ov --xino, --controls or --list; ./run --help tells more")
    if "controls" in chosen and (len(chosen) > 1 or args.xino or args.xdev or args.groups):
        raise UsageError("--controls chooses its own runs; it takes no type, flag or group")
    if "list" in chosen and args.groups:
        raise UsageError("--list takes no group")
    if (args.migrate or args.no_fence) and not args.xino:
        raise UsageError("--migrate and --no-fence belong to the detach run: add --xino")
    if args.xdev and args.xino:
        raise UsageError("--xdev has no meaning after detach: an opaque directory can be renamed without a redirect")
    return "run" if chosen == ["ov"] else "list" if "list" in chosen else "controls"


def _configuration(args: argparse.Namespace) -> Configuration:
    if not args.xino:
        return Configuration(directory_renames=not args.xdev)
    return Configuration(
        detach=True,
        xino="nofollow",
        migrate=cast(MigrateWay, args.migrate or "mail"),
        fence=not args.no_fence,
    )


def _words(args: argparse.Namespace) -> tuple[str, ...]:
    flags = [f"--{name}" for name in ("ov", "xino", "xdev", "controls", "list") if getattr(args, name)]
    flags += [f"--migrate={args.migrate}"] if args.migrate else []
    flags += ["--no-fence"] if args.no_fence else []
    return (*flags, *(["-v"] if args.verbose else []))
