# SPDX-License-Identifier: GPL-2.0-only
"""From the command line to an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from command import bootstrap, native, results
from command.options import Options, parse
from command.variables import dump, variables
from tests.union import GROUPS
from tests.union.choice import default_groups
from union.errors import HarnessError, SetupError, Unsupported, UsageError

INTERRUPTED = 130
OPERATIONS = frozenset(
    f"--{name}"
    for name in ("open-file", "chmod", "link", "mkdir", "readlink", "rename", "rmdir", "truncate", "unlink", "utimes")
)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit code; a HarnessError becomes one line on stderr.

    Whatever else goes wrong in us is exit code 3 too, never the 1 of a kernel that failed.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    # The transcript says itself when a line must be out; in a guest each write costs.
    sys.stdout.reconfigure(errors="surrogateescape", line_buffering=False)  # type: ignore[union-attr]
    try:
        if argv and argv[0] == "--pytest":
            return _pytest(argv[1:])
        if any(word in OPERATIONS for word in argv):
            from command import probe

            return probe.run(argv)
        if found := variables(os.environ):
            sys.stdout.write(dump(found))
        return _dispatch(parse(argv))
    except HarnessError as error:
        sys.stdout.flush()
        print(f"run: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("run: interrupted; everything it made is undone", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # before OSError, of which it is one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except OSError as error:
        sys.stdout.flush()
        print(f"run: {error.filename}: {error.strerror}" if error.filename else f"run: {error}", file=sys.stderr)
        return SetupError.exit_code
    except Exception:  # noqa: BLE001 - a fault of ours must not look like one of the kernel's (exit 1)
        sys.stdout.flush()
        traceback.print_exc()
        return SetupError.exit_code


def _dispatch(options: Options) -> int:
    if options.action == "list":
        return _list()
    if options.log_dir is not None:
        _make_log_dir(options.log_dir)
    if options.repeat > 1:
        from command import repeat

        return repeat.run(options)
    if options.action == "controls":
        from command import controls  # these two bring the kernel builder along, which a native run can do without

        return controls.run(options)
    if options.example is not None:
        from command import play

        return play.run(options, options.example)
    if options.table is not None:
        from command import tables

        return tables.run(options, options.table)
    if options.search:
        from command import search

        return search.run(options, options.search)
    if options.migrate_tree is not None:
        from command import migration

        return migration.run(options.migrate_tree, dry=options.dry_run)
    if options.lazy:
        from command import lazy

        return lazy.run(options, options.lazy)
    if options.action == "matrix":
        from command import matrix

        return matrix.run(options)
    if options.action in ("set_up", "clean_up"):
        from command import standing

        return standing.set_up(options) if options.action == "set_up" else standing.clean_up(options)
    if _here(options):
        return native.run(options)
    from command import guest

    return guest.run(options)


def _here(options: Options) -> bool:
    """Whether the run goes to the running kernel. That it can go nowhere is a result too."""
    try:
        return native.chosen(options)
    except Unsupported as error:
        results.refused(options.results, native.command(options), str(error))
        raise


def _make_log_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = SetupError if error.errno == errno.ENOSPC else UsageError
        raise kind(f"--log-dir: cannot create {path}: {error.strerror}") from error


def _list() -> int:
    from tabulate import tabulate

    rows = []
    total = 0
    for group in GROUPS:
        operations = sum(len(group.operations(n)) for n in range(1, len(group.scenarios) + 1))
        rows.append((group.name, len(group.labels), operations, group.when.value, group.sentence))
        total += len(group.labels)
    print(tabulate(rows, headers=("group", "scenarios", "operations", "when", "what"), tablefmt="simple"))
    default = sum(len(group.labels) for group in default_groups(directory_renames=True))
    print(f"\n{len(GROUPS)} groups, {total} scenarios, {default} of them in a default run")
    for group in GROUPS:
        for number, label in enumerate(group.labels, start=1):
            print(f"{group.name}:{number}: {label}")
    return 0


def _pytest(arguments: Sequence[str]) -> int:
    """Hand over to pytest in an environment that has what the tests need; does not return on success."""
    bootstrap.ensure_libraries([sys.argv[0], "--pytest", *arguments], tests=True)
    os.chdir(bootstrap.CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
