# SPDX-License-Identifier: GPL-2.0-only
"""`./run --OPERATION PATH …`: one operation on a path of the user's, as reproducer lines print it (parity 1.7).

No layers are set up and nothing is cleaned. Exit 0 when it gave what was expected, 1 with one line on stderr
when it did not, 2 for a mistake.
"""

from __future__ import annotations

import argparse
import errno as errnos
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from union.errors import UsageError
from union.names import Name
from union.operations import (
    ChangeMode,
    Held,
    Link,
    MakeDirectory,
    OpenFile,
    Operation,
    ReadLink,
    RemoveDirectory,
    Rename,
    Result,
    Touch,
    Truncate,
    Unlink,
)

ROOT = ""  # paths are used as given


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; ./run --{self.prog} --help tells more")


def run(argv: Sequence[str]) -> int:
    """Carry out the one operation on the command line; raises UsageError."""
    word = next(word for word in argv if word.removeprefix("--") in MAKERS)
    name = word.removeprefix("--")
    args = _parser(name).parse_args([other for other in argv if other != word])
    try:
        operation = MAKERS[name](args)
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from error
    expected, given = operation.expected(), operation.perform(ROOT, Held())
    if args.verbose:
        print(f"{' '.join(argv)}\n   -> {given}")
    if _agree(expected, given):
        return 0
    print(f"{args.path}: {given} instead of {expected}", file=sys.stderr)
    return 1


def _agree(expected: Result, given: Result) -> bool:
    return expected.errno == given.errno and expected.value in (None, given.value)


def _parser(name: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=name, description=f"Issue {name} once.", allow_abbrev=False, add_help=True)
    parser.add_argument("path")
    for extra in ARGUMENTS.get(name, ()):
        parser.add_argument(extra)
    if name == "open-file":
        for letter, what in OPEN_LETTERS.items():
            parser.add_argument(f"-{letter}", action="store_true", help=what)
        parser.add_argument("-m", type=_number, default=0, metavar="MODE", help="mode of a file that is created")
        parser.add_argument("-W", metavar="DATA", help="write it")
    else:
        for letter, what in (("a", "no automount"), ("A", "no automount"), ("l", "do not follow"), ("L", "follow")):
            parser.add_argument(f"-{letter}", action="store_true", help=what)
    if name in ("open-file", "readlink"):
        parser.add_argument("-R", metavar="DATA", help="what must be read")
    parser.add_argument("-B", action="store_true", help="act as uid and gid 1")
    parser.add_argument("-E", metavar="ERRNO", type=_errno, default=0, help="the error that must come out")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what it gave")
    return parser


OPEN_LETTERS = {
    "r": "read",
    "w": "write",
    "a": "O_APPEND",
    "c": "O_CREAT",
    "d": "O_DIRECTORY",
    "e": "O_EXCL",
    "t": "O_TRUNC",
}
ARGUMENTS = {"chmod": ("mode",), "link": ("to",), "mkdir": ("mode",), "rename": ("to",), "truncate": ("size",)}


def _number(text: str) -> int:
    """A number as C writes it: 0x…, 0… or decimal."""
    try:
        return int(text, 8) if text.startswith("0") and text[1:].isdigit() else int(text, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def _errno(text: str) -> int:
    found = getattr(errnos, text, None)
    if not isinstance(found, int):
        raise argparse.ArgumentTypeError(f"{text!r} is no errno name")
    return found


def _absolute(path: str) -> Name:
    """The path behind the empty root: the same file, a terminal slash kept."""
    if not path:
        raise ValueError("the path is empty")
    whole = path if path.startswith("/") else f"{Path.cwd()}/{path}"
    return Name(whole[1:])


def _data(text: str | None) -> bytes | None:
    """Data of the command line; a NUL stands there as \\0, as reproducer lines print it."""
    return None if text is None else os.fsencode(text).replace(rb"\0", b"\0")


def _open(args: argparse.Namespace) -> Operation:
    reads, writes = args.r or args.R is not None, args.w or args.W is not None or (args.a and not args.r)
    if args.r and args.a:
        writes = True
    if not (reads or writes):
        raise ValueError("one of -r, -w and -a is needed")
    # Data to compare is read through the same descriptor; -w -R alone would be refused by the kernel.
    flags = os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY
    letters = {"a": os.O_APPEND, "c": os.O_CREAT, "d": os.O_DIRECTORY, "e": os.O_EXCL, "t": os.O_TRUNC}
    for letter, flag in letters.items():
        flags |= flag if getattr(args, letter) else 0
    return OpenFile(
        path=_absolute(args.path),
        flags=flags,
        mode=args.m,
        reads=_data(args.R),
        writes=_data(args.W),
        fails=args.E,
        unprivileged=args.B,
    )


def _mode(args: argparse.Namespace) -> int:
    try:
        return _number(args.mode)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from error


def _size(args: argparse.Namespace) -> int:
    if not args.size.isdigit():
        raise ValueError(f"{args.size!r} is no size")
    return int(args.size)


MAKERS: dict[str, Callable[[argparse.Namespace], Operation]] = {
    "open-file": _open,
    "chmod": lambda a: ChangeMode(path=_absolute(a.path), mode=_mode(a), fails=a.E, unprivileged=a.B),
    "link": lambda a: Link(path=_absolute(a.path), to=_absolute(a.to), fails=a.E, unprivileged=a.B),
    "mkdir": lambda a: MakeDirectory(path=_absolute(a.path), mode=_mode(a), fails=a.E, unprivileged=a.B),
    "readlink": lambda a: ReadLink(path=_absolute(a.path), reads=a.R, fails=a.E, unprivileged=a.B),
    "rename": lambda a: Rename(path=_absolute(a.path), to=_absolute(a.to), fails=a.E, unprivileged=a.B),
    "rmdir": lambda a: RemoveDirectory(path=_absolute(a.path), fails=a.E, unprivileged=a.B),
    "truncate": lambda a: Truncate(path=_absolute(a.path), size=_size(a), fails=a.E, unprivileged=a.B),
    "unlink": lambda a: Unlink(path=_absolute(a.path), fails=a.E, unprivileged=a.B),
    "utimes": lambda a: Touch(path=_absolute(a.path), fails=a.E, unprivileged=a.B),
}
