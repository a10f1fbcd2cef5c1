# SPDX-License-Identifier: GPL-2.0-only
"""The command `build`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kernel.paths import new_log
from kernel.process import clean_env, run_logged
from kernel.requirements import Requirement, find_program, lacking, missing
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.choosing import plain
from overlay_xfstests.words import Words
from union.errors import SetupError, UsageError

HELP: Final = """\
Builds a checkout of xfstests, as far as ./check -overlay needs it: says what is missing on this machine, with the
command that installs it, then runs make there. Once more, it builds what has changed."""
EPILOG: Final = """\
exit codes: 0 built; 2 wrong words; 3 something is missing, or make failed: the log is named"""


def _program(name: str, package: str) -> Requirement:
    return Requirement(name, package, lambda: find_program(name) is not None)


def _header(name: str, package: str) -> Requirement:
    return Requirement(name, package, lambda: _compiles(name))


def _compiles(header: str) -> bool:
    """Whether the compiler finds the header; also if there is no compiler, which is what is missing then."""
    compiler = find_program("gcc")
    words = [compiler or "", "-E", "-x", "c", "-"]
    text = f"#include <sys/types.h>\n#include <{header}>\n".encode()
    return not compiler or subprocess.run(words, input=text, capture_output=True, check=False).returncode == 0


NEEDS: Final = (
    _program("gcc", "gcc libc6-dev"),
    _program("make", "make"),
    _program("autoconf", "autoconf"),
    _program("aclocal", "automake"),
    _program("libtoolize", "libtool"),
    _program("libtool", "libtool-bin"),
    _program("pkg-config", "pkg-config"),
    _header("uuid/uuid.h", "uuid-dev"),
    _header("xfs/xfs.h", "xfslibs-dev"),
    _header("acl/libacl.h", "libacl1-dev"),
    # From here on for its scripts, and those of the overlay tests.
    _program("mkfs.xfs", "xfsprogs"),
    _program("xfs_io", "xfsprogs"),
    _program("mkfs.ext4", "e2fsprogs"),
    _program("setfattr", "attr"),
    _program("setfacl", "acl"),
    _program("setcap", "libcap2-bin"),
    _program("perl", "perl"),
    _program("awk", "gawk"),
    _program("bc", "bc"),
    _program("ps", "procps"),
    _program("hostname", "hostname"),
    _program("findmnt", "util-linux"),
    _program("losetup", "mount"),
)
"""What a build of it and a run take, by name and Debian package."""


def main(argv: Sequence[str]) -> int:
    """Builds what `argv` names, says how long that took on stdout, and returns 0.

    Raises:
        UsageError: that is no checkout.
        SetupError: something is missing, or make failed.
    """
    words = Words("build", HELP, EPILOG)
    words.add_argument("checkout", metavar="CHECKOUT", type=Path, help="directory of xfstests")
    words.add_argument("--jobs", metavar="N", type=int, default=0, help="so many at once; default one per CPU")
    said = words.parse_args(argv)
    jobs = said.jobs or len(os.sched_getaffinity(0))
    if jobs < 1:
        raise UsageError("--jobs takes a number from 1 on")
    checkout = Checkout(plain(said.checkout))
    if absent := missing(NEEDS):
        raise SetupError(lacking(absent))
    log = new_log("xfstests-build")
    print(f"building {checkout.top}; log: {log}", flush=True)
    run_logged(["make", f"-j{jobs}"], log, "make", cwd=checkout.top, env=clean_env())
    print("built")
    return 0
