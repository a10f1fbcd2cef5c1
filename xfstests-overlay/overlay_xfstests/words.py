# SPDX-License-Identifier: GPL-2.0-only
"""What the commands have in common: their words, and how errors end them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from overlay_xfstests.places import LAST_NUMBER
from union.errors import HarnessError


class Words(argparse.ArgumentParser):
    """The words of the command `name`; what is wrong with them is one line, and exit 2."""

    def __init__(self, name: str, about: str, epilog: str) -> None:
        super().__init__(
            prog=f"xfstests-overlay/{name}",
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """One line, not the whole usage."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help has all words\n")

    @staticmethod
    def number(word: str) -> int:
        """The number of a test, from a word."""
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= LAST_NUMBER):
            raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 to {LAST_NUMBER}")
        return int(word)


def home() -> Path:
    """The folder of the commands, in the way that this one was called."""
    return Path(sys.argv[0]).parent


def run(name: str, main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Exits as `main` says, or with one line for an error; SIGTERM ends it in order, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except HarnessError as error:
        print(f"xfstests-overlay/{name}: {error}", file=sys.stderr)
        status = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what there is still to flush
        status = 141
    except OSError as error:
        print(f"xfstests-overlay/{name}: {error.filename}: {error.strerror}", file=sys.stderr)
        status = 3
    except KeyboardInterrupt:
        print(f"xfstests-overlay/{name}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(143)
