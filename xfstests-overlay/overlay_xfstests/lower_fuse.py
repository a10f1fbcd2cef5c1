# SPDX-License-Identifier: GPL-2.0-only
"""A FUSE lower for an xfstest: it serves a directory, read-only, and writes each request to a file.

Nothing that it answers is valid for any time in a cache of the kernel, so each method that an overlay calls on its
lower becomes a line of the file, which is there before the method returns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

from overlay_xfstests.words import Words
from union import syscalls
from union.errors import SetupError
from union.fuse.log import RequestLog
from union.fuse.server import Content, Server
from union.fuse.wire import HOUSEKEEPING, Op

_OPTIONS = "fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"


class _Lines(RequestLog):
    """The requests as lines `OPERATION PATH`, without those that call no method. Others may empty the file."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, operation: int, path: str, pid: int) -> None:
        if operation not in HOUSEKEEPING:
            name = Op(operation).name if operation in set(Op) else f"operation {operation}"
            os.write(self._file, os.fsencode(f"{name} {path}\n"))


def main(arguments: Sequence[str]) -> int:
    """Serve until it is unmounted; says `serving` once it is mounted. Raises SetupError when it cannot be."""
    about = "Serve TREE on DIRECTORY, read-only, until that is unmounted, and append each request to FILE."
    parser = Words("lower-fuse", about, "The tests start it; it says `serving` when it is mounted.")
    parser.add_argument("tree", type=Path, metavar="TREE")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("file", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    log = _Lines(asked.file)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        where = asked.directory.resolve()
        os.chdir(asked.tree)
        syscalls.mount("lower-fuse", where, "fuse", syscalls.MS_RDONLY, _OPTIONS.format(fd=device))
    except OSError as error:
        raise SetupError(f"{error.filename or asked.directory}: {error.strerror}") from error
    print("serving", flush=True)
    _orders, control = Pipe()
    Server(device, log, control, Content(), passthrough=False).run()
    return 0
