# SPDX-License-Identifier: GPL-2.0-only
"""The options of `./run`, in any order; a mistake is one clear line and exit code 2."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast, get_args

from command import lazy_options
from command.expectations import Expectation, expectations
from command.lazy_options import Lazy
from command.variables import places
from tests.union.choice import Choice, Exclusion
from union.configuration import FENCES, Configuration, Kind, LowerFs, MigrateWay, Moment, Places, UpperFs, fence_for
from union.errors import UsageError

DESCRIPTION = """\
Show whether a Linux overlay can safely lose its lower layer.

  ./run --ov --xino [GROUP...]   the detach run: build the dataset, mount it with xino=nofollow, copy
                                 everything up, list all directories, shut the lower XFS down, then
                                 replay every union operation
  ./run --ov [GROUP...]          the same operations on a plain overlay
  ./run --matrix [PATTERN...]    all sensible configurations, and a table of what they gave
  ./run --controls               runs that must fail; an error if one of them passes
  ./run --play FILE              an example that a random test has found and written down
  ./run --search[=LENGTH]        all sequences of two operations, or LENGTH, in small worlds; goes on where it
                                 was interrupted
  ./run --table=fences           what each way to fence a lower catches
  ./run --table=outliving        what was opened before a detach, and what becomes of it
  ./run --migrate-tree DIRECTORY copy all of an overlay of yours up, which is mounted there with xino=nofollow
                                 and may be in use, and say "detached" if nothing needs a lower layer any more
  ./run --lazy[=VARIANT]         a layer that is loaded lazily while a workload runs, migrated away and killed:
                                 a table and a plot
  ./run --list                   the groups and scenarios
  ./run --pytest [ARGS...]       the project's own tests
  ./run --OPERATION PATH ...     one operation on a path of yours: --open-file, --chmod, --link, --mkdir,
                                 --readlink, --rename, --rmdir, --truncate, --unlink, --utimes
"""

EPILOG = """\
A GROUP is a name of --list, a scenario of it (rename-file:3), a pattern ('rename-*'), or one of
`parity` (what unionmount-testsuite has), `beyond` (what it has not), `mounts` (trials that mount
overlays of their own) and `long` (trials that take longer than all the rest and run only if named).

UNIONMOUNT_BASEDIR (upper layers, and lower and mount point unless named), UNIONMOUNT_LOWERDIR,
UNIONMOUNT_MNTPOINT and UNIONMOUNT_MNTOPTIONS are those of unionmount-testsuite. Layers in a
directory of yours are never fenced: --xino means plain xino=on then, as it does with --detach=off.

Exit: 0 passed, 1 failed (a kernel that panics, too), 2 usage, 3 our own error (a guest that is lost,
too), 4 nothing could run here.
"""

ACTIONS = ("matrix", "controls", "list", "set_up", "clean_up", "play", "search", "table", "migrate_tree", "lazy")
TABLES = ("fences", "outliving")
BARE = {"--ov": "=", "--ovov": "=", "--search": "=2", "--lazy": "=story"}
"""What is understood behind options that may have a value of their own."""
TIME_LIMIT = 900
LAYOUTS = ("samefs", "squashfs", "erofs")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment ask for."""

    action: str  # run, or one of ACTIONS
    example: Path | None  # what to play
    table: str | None  # what to print
    migrate_tree: Path | None  # where the user's overlay is mounted
    dry_run: bool
    search: int  # operations of each sequence to search
    lazy: Lazy | None
    jobs: int  # guests at a time
    configuration: Configuration
    choice: Choice
    kernel: str
    kernel_source: Path | None
    cpus: int  # of a guest
    time_limit: int  # seconds for a run in a guest
    log_dir: Path | None
    results: Path | None  # the directory for reports
    repeat: int  # how often the whole run is carried out
    expected: tuple[Expectation, ...]  # failures that are known
    verbose: bool
    words: tuple[str, ...]  # the options that choose the run, without kernel, logs and groups
    variables: tuple[tuple[str, str], ...] = ()  # of the environment, those that are set

    def command(self) -> str:
        """The command line that repeats the run, without its groups."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables]
        kernel = [] if self.kernel == "auto" else [f"--kernel={self.kernel}"]
        return " ".join([*variables, "./run", *self.words, *kernel])


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
    _add_kinds(parser)
    _add_layers(parser)
    _add_features(parser)
    _add_detach(parser)
    _add_kernel(parser)
    lazy_options.add(parser)
    output = parser.add_argument_group("output")
    output.add_argument("-v", "--verbose", action="store_true", help="show what each operation gave")
    output.add_argument("--results", type=Path, metavar="DIR", help="write results.xml (JUnit), results.ktap, "
                        "result.txt (LAVA) and kcidb.json there, also when the run or its kernel dies")
    output.add_argument("--log-dir", type=Path, metavar="DIR", help="keep logs and the guest's console here")
    return parser


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run")
    what.add_argument("--no", action="store_true", help="no union: the lower tree alone, as a reference")
    what.add_argument("--ov", nargs="?", metavar="=N", help="an overlay of one lower and one upper layer; =N: also "
                      "remounted after changes of names, the upper layer becoming a lower one up to N times")
    what.add_argument("--ovov", nargs="?", metavar="=N", help="the same, the lower layer being an overlay itself")
    what.add_argument("--fuse", metavar="PROGRAM", help="a FUSE overlay instead of the kernel's (fuse-overlayfs)")
    what.add_argument("--matrix", action="store_true", help="run all sensible configurations, or those named")
    what.add_argument("--controls", action="store_true", help="run the negative controls of the detach run")
    what.add_argument("--play", type=Path, metavar="FILE", help="play an example that a random test has found")
    what.add_argument("--search", nargs="?", metavar="=LENGTH", help="play all sequences of LENGTH "
                      "operations (default 2) in small worlds; what is done is kept if it is interrupted")
    what.add_argument("--table", choices=TABLES, help="fences: what each fence catches, before and after a detach; "
                      "outliving: what works after a detach of what was there before, see docs/outliving.md")
    what.add_argument("--migrate-tree", type=Path, metavar="DIRECTORY", help="migrate the overlay of yours that is "
                      "mounted there, on the running kernel; exit 0: detached, 1: not, and why")
    what.add_argument("--dry-run", action="store_true", help="with --migrate-tree: say what it would do")
    what.add_argument("--list", action="store_true", help="print the groups and scenarios, run nothing")
    what.add_argument("-s", "--set-up", action="store_true", help="build and mount, run nothing, leave it mounted")
    what.add_argument("-c", "--clean-up", action="store_true", help="unmount what -s or unionmount-testsuite left")
    what.add_argument("--expect", type=Path, metavar="FILE", help="failures that are known, a line each: GROUP, a "
                      "pattern of the command line, one of the kernel's release, then # and the reason with a link; "
                      "one that passes fails the run")
    what.add_argument("--shard", default="1/1", metavar="N/M", help="only the N-th of M parts of the groups")
    what.add_argument("--repeat", type=int, default=1, metavar="N", help="carry the run out N times and print how "
                      "often each scenario failed that did not pass every time")
    what.add_argument("-x", "--exclude", action="append", default=[], metavar="WORD", help="leave these GROUPs out")
    what.add_argument("--exclude-file", type=Path, metavar="FILE", help="a GROUP per line, then # and the reason")


def _add_layers(parser: argparse.ArgumentParser) -> None:
    layers = parser.add_argument_group("the layers")
    layers.add_argument("--samefs", action="store_true", help="all layers on one filesystem")
    layers.add_argument("--squashfs", action="store_true", help="the lower layer is a squashfs image")
    layers.add_argument("--erofs", action="store_true", help="the lower layer is an erofs image")
    layers.add_argument("--maxfs", type=int, default=0, metavar="M", help="a tmpfs for each of the first M uppers")
    layers.add_argument("--lower-fs", choices=get_args(LowerFs), help="default tmpfs, for a detach run xfs")
    layers.add_argument("--upper-fs", choices=get_args(UpperFs), default="tmpfs", help="default tmpfs")


def _add_features(parser: argparse.ArgumentParser) -> None:
    features = parser.add_argument_group("features of the overlay")
    features.add_argument("--xino", action="store_true", help="detach the lower layer before the operations")
    features.add_argument("--xdev", action="store_true", help="leave directory renames off")
    features.add_argument("--meta", action="store_true", help="metacopy=on")
    features.add_argument("--verify", action="store_true", help="index=on")
    features.add_argument("--ts", choices=("0", "1"), default="0", help="1: a terminal slash on the tested paths")


def _add_detach(parser: argparse.ArgumentParser) -> None:
    detach = parser.add_argument_group("the detach run")
    detach.add_argument("--cold", action="store_true", help="drop all caches before each scenario (any run)")
    detach.add_argument("--detach", choices=("on", "off"), help="off: --xino is plain xino=on")
    detach.add_argument(
        "--migrate",
        choices=("mail", "dfs", "none"),
        help="mail: chown -R and 4 x find, then list on until nothing changes (default); "
        "dfs: in process, each directory after its subdirectories; none: leave lower in use",
    )
    detach.add_argument(
        "--operations",
        choices=get_args(Moment),
        default="both",
        help="replay them before the detach, on unions that are not migrated, after it, or both (default)",
    )
    detach.add_argument("--fence", choices=tuple(FENCES), help="how the lower is fenced: by default an xfs, ext4 or "
                        "btrfs is shut down, the image of a squashfs or erofs swapped, and a fuse listened to: no "
                        "request may reach it")
    detach.add_argument("--no-fence", action="store_true", help="do not fence the lower")


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    kernel = parser.add_argument_group("the kernel")
    kernel.add_argument(
        "--kernel",
        default="auto",
        metavar="WHICH",
        help="auto: the running one if it can do the job and we are root, else a guest (default); native; "
        "6.12, 7.2: built here with the reference patch; stock-6.12, stock-7.2: without it; "
        "debian-6.12: Debian's kernel in QEMU, its overlay.ko built here with the patch; stock-debian-6.12: as it is; "
        "PATH: a user-mode Linux binary, or a bzImage for QEMU",
    )
    kernel.add_argument("--cpus", type=int, default=1, metavar="N", help="of the guest, if its kernel can: default "
                        "1, as a run does one thing after the other and two CPUs wait for each other")
    kernel.add_argument("--jobs", type=int, default=0, metavar="N", help="guests at a time, for --search: default one "
                        "for each CPU")
    kernel.add_argument("--time-limit", type=int, default=TIME_LIMIT, metavar="SECONDS", help="end a guest that has "
                        f"not done its run by then: an error; default {TIME_LIMIT}, a detach run takes a minute")
    kernel.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="build from this source")


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Options of the command line; raises UsageError. `--help` prints and exits 0."""
    # A word behind --ov is a group, never its N.
    args = _parser().parse_intermixed_args([f"{word}{BARE.get(word, '')}" for word in argv])
    action = _action(args)
    if args.kernel_source is not None and args.kernel not in _built():
        raise UsageError(f"--kernel-source has no use with --kernel={args.kernel}")
    if args.kernel_source is not None and not args.kernel_source.exists():
        raise UsageError(f"--kernel-source: {args.kernel_source} does not exist")
    lazy = lazy_options.parsed(args)
    where, variables = places(environment)
    choice = Choice(tuple(args.groups), _excluded(args), _shard(args))
    if action != "matrix":  # whose words are names of configurations
        choice.check()
    return Options(
        action=action,
        example=args.play,
        table=args.table,
        migrate_tree=args.migrate_tree,
        dry_run=args.dry_run,
        search=_length(args),
        lazy=lazy,
        jobs=_jobs(args, action),
        configuration=lazy_options.configuration(args) if lazy else _configuration(args, where),
        choice=choice,
        kernel=args.kernel,
        kernel_source=args.kernel_source,
        cpus=args.cpus,
        time_limit=_time_limit(args),
        log_dir=args.log_dir,
        results=_results(args, action),
        repeat=_repeat(args, action),
        expected=expectations(args.expect) if args.expect else (),
        verbose=args.verbose,
        words=_words(args, lazy),
        variables=variables,
    )


def _results(args: argparse.Namespace, action: str) -> Path | None:
    directory: Path | None = args.results
    if directory is not None and action not in ("run", "lazy"):
        raise UsageError(f"--results goes with a run, not with --{action.replace('_', '-')}")
    return directory


def _length(args: argparse.Namespace) -> int:
    if args.search is None:
        return 0
    if args.search not in ("1", "2", "3"):
        raise UsageError(f"--search={args.search}: LENGTH is 1, 2 or 3")
    return int(args.search)


def _jobs(args: argparse.Namespace, action: str) -> int:
    if args.jobs < 0 or (args.jobs and action != "search"):
        raise UsageError("--jobs goes with --search alone and takes a number from 1 on")
    return args.jobs or len(os.sched_getaffinity(0))


def _time_limit(args: argparse.Namespace) -> int:
    if args.time_limit < 1:
        raise UsageError("--time-limit takes a number of seconds from 1 on")
    return int(args.time_limit)


def _repeat(args: argparse.Namespace, action: str) -> int:
    if args.repeat < 1:
        raise UsageError("--repeat takes a number from 1 on")
    if args.repeat > 1 and (action != "run" or args.results or args.log_dir):
        raise UsageError("--repeat goes with a run alone, and with neither --results nor --log-dir")
    return int(args.repeat)


def _shard(args: argparse.Namespace) -> tuple[int, int]:
    """N and M of --shard=N/M."""
    found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", args.shard)
    if not found or int(found[1]) > int(found[2]):
        raise UsageError(f"--shard={args.shard}: it takes N/M, the N-th of M parts")
    return int(found[1]), int(found[2])


def _built() -> list[str]:
    """What --kernel says for a kernel that is built here."""
    from kernel.recipe import names  # rarely needed, and costs start-up time

    return ["auto", *names()]


def _action(args: argparse.Namespace) -> str:
    kinds = _kinds(args)
    chosen = [name for name in ACTIONS if getattr(args, name)]
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(f'--{kind}' for kind in kinds)} exclude each other")
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join('--' + name.replace('_', '-') for name in chosen)} exclude each other")
    if not (kinds or chosen):
        raise UsageError("nothing to do: say --ov, --ov --xino, --matrix or --list; ./run --help tells more")
    action = chosen[0] if chosen else "run"
    if action == "set_up" and not kinds:
        raise UsageError("--set-up needs to know what: add --no, --ov or --ovov")
    if action in ("matrix", "controls", "list", "play", "search", "table", "migrate_tree", "lazy") and kinds:
        raise UsageError(f"--{action.replace('_', '-')} takes no type")
    if action == "controls" and (args.xino or args.xdev or args.groups):
        raise UsageError("--controls chooses its own runs; it takes no type, flag or group")
    if action in ("list", "set_up", "play", "search", "table", "migrate_tree", "lazy") and args.groups:
        raise UsageError(f"--{action.replace('_', '-')} takes no group")
    if args.dry_run and action != "migrate_tree":
        raise UsageError("--dry-run goes with --migrate-tree")
    if action == "migrate_tree" and args.kernel not in ("auto", "native"):
        raise UsageError(f"--migrate-tree is for the running kernel, not for --kernel={args.kernel}")
    return action


def _kinds(args: argparse.Namespace) -> list[str]:
    return [kind for kind in get_args(Kind) if getattr(args, kind) not in (None, False)]


def _configuration(args: argparse.Namespace, where: Places) -> Configuration:
    kind, rotations = _kind(args)
    layouts = [name for name in LAYOUTS if getattr(args, name)] + (["maxfs"] if args.maxfs else [])
    samefs = args.samefs or (where.base is not None and where.lower is None and not layouts)
    detach = _detach(args, where, kind)
    image = next((name for name in layouts if name in ("squashfs", "erofs")), None)
    if len(layouts) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in layouts)} exclude each other")
    if args.maxfs < 0:
        raise UsageError("--maxfs takes a number that is not negative")
    if args.samefs and where.lower is not None:
        raise UsageError("--samefs: UNIONMOUNT_LOWERDIR is on a filesystem of its own")
    if image and args.lower_fs:
        raise UsageError(f"--{image} and --lower-fs exclude each other")
    if args.fuse and (kind != "ov" or detach):
        raise UsageError("--fuse goes with --ov alone")
    return Configuration(
        kind=kind,
        rotations=rotations,
        fuse=args.fuse,
        samefs=samefs,
        lower_fs=cast(LowerFs, args.lower_fs or image or ("xfs" if detach else "tmpfs")),
        upper_fs=cast(UpperFs, args.upper_fs),
        maxfs=args.maxfs,
        xdev=args.xdev,
        xino="off" if not args.xino or kind == "no" else "nofollow" if detach else "on",
        meta=args.meta and kind != "no",
        verify=args.verify and kind != "no",
        slashes=args.ts == "1",
        cold=args.cold,
        detach=detach,
        migrate=cast(MigrateWay, args.migrate or "mail") if detach else "none",
        fence="" if not detach or args.no_fence else _fence(args, _lower(args)),
        moment=args.operations if detach else "after",
        places=where,
    )


def _kind(args: argparse.Namespace) -> tuple[Kind, int | None]:
    kind = cast(Kind, (_kinds(args) or ["ov"])[0])
    count = getattr(args, kind) or ""
    if kind == "no" or not count:
        return kind, None
    if not re.fullmatch(r"\d{1,3}", count):
        raise UsageError(f"--{kind}={count}: N is a number of rotations")
    return kind, int(count)


def _detach(args: argparse.Namespace, where: Places, kind: Kind) -> bool:
    """Whether it is the detach run; UsageError for what cannot be detached, with the reason."""
    detach = bool(args.xino) and kind != "no" and not args.fuse and args.detach != "off" and not where.given
    if args.detach == "on" and not detach:
        yours = "layers in a directory of yours are not ours to fence"
        raise UsageError(f"--detach=on: {yours if where.given else 'it needs --xino and an overlay'}")
    if (args.migrate or args.fence or args.no_fence or args.operations != "both") and not detach:
        raise UsageError("--migrate, --fence, --no-fence and --operations belong to the detach run: add --xino")
    if not detach:
        return False
    if args.samefs:
        raise UsageError("--samefs: a lower on the upper's filesystem cannot be fenced; add --detach=off for xino=on")
    if not args.no_fence and not fence_for(_lower(args)):
        raise UsageError(f"{_lower(args)} cannot be fenced; add --detach=off for xino=on")
    if _lower(args) not in ("xfs", "ext4", "btrfs") and (_kind(args)[1] or 0):
        raise UsageError(f"rotated layers are written to, so that they cannot be {_lower(args)}; add --detach=off for "
                         "xino=on")
    if args.no_fence and args.fence:
        raise UsageError("--fence and --no-fence exclude each other")
    if args.maxfs and (_kind(args)[1] or 0):
        raise UsageError("--maxfs: rotated layers on a tmpfs cannot be fenced; add --detach=off for xino=on")
    return True


def _lower(args: argparse.Namespace) -> str:
    """The kind of lower of a detach run."""
    return "squashfs" if args.squashfs else "erofs" if args.erofs else args.lower_fs or "xfs"


def _fence(args: argparse.Namespace, lower: str) -> str:
    if args.fence and lower not in FENCES[args.fence]:
        kinds = ", ".join(FENCES[args.fence])
        raise UsageError(f"--fence={args.fence} is for a lower on {kinds}, this one is on {lower}")
    if args.fence == "traced" and args.upper_fs == "xfs":
        raise UsageError("--fence=traced hears every XFS: it does not go with --upper-fs=xfs")
    return args.fence or fence_for(lower)


def _excluded(args: argparse.Namespace) -> tuple[Exclusion, ...]:
    found = [Exclusion(word, "on the command line") for word in args.exclude]
    if args.exclude_file is not None:
        try:
            lines = args.exclude_file.read_text().splitlines()
        except OSError as error:
            raise UsageError(f"--exclude-file: {args.exclude_file}: {error.strerror}") from error
        for number, line in enumerate(lines, start=1):
            word, _, reason = (part.strip() for part in line.partition("#"))
            if word and not reason:
                raise UsageError(f"{args.exclude_file}:{number}: {word} has no reason behind a #")
            found += [Exclusion(word, reason)] if word else []
    return tuple(found)


def _words(args: argparse.Namespace, lazy: Lazy | None) -> tuple[str, ...]:
    kind, rotations = _kind(args)
    words = [f"--{kind}" + ("" if rotations is None else f"={rotations}")] if _kinds(args) else []
    words += lazy_options.words(args, lazy) if lazy else []
    words += [f"--fuse={args.fuse}"] if args.fuse else []
    valued = ("table", "play", "search", "migrate_tree", "lazy")  # such a run is never repeated by the bare word
    flags = (*LAYOUTS, "xino", "xdev", "meta", "verify", "no_fence", "cold", *(set(ACTIONS) - set(valued)))
    words += [f"--{name.replace('_', '-')}" for name in flags if getattr(args, name)]
    values = {"maxfs": 0, "lower_fs": None, "upper_fs": "tmpfs", "ts": "0", "detach": None, "migrate": None,
              "fence": None}
    for name, default in {**values, "operations": "both", "shard": "1/1"}.items():
        if getattr(args, name) != default:
            words.append(f"--{name.replace('_', '-')}={getattr(args, name)}")
    words += [f"--exclude={shlex.quote(word)}" for word in args.exclude]
    words += [f"--expect={args.expect.absolute()}"] if args.expect is not None else []
    words += [f"--exclude-file={args.exclude_file.absolute()}"] if args.exclude_file is not None else []
    return (*words, *(["-v"] if args.verbose else []))
