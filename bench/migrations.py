# SPDX-License-Identifier: GPL-2.0-only
"""Migrate the same tree again and again, each way in turn, and print a line of JSON with the seconds of each.

usage: python -m bench.migrations UPPER FILES REPEAT

Run by bench/migrate in a guest, or on the running kernel, where all is done in a mount namespace of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from union import filesystems, live, live_migration, migrate, syscalls
from union.errors import SetupError
from union.overlay import accepts
from union.programs import find_program
from union.workspace import enter_private_namespace, scratch_directory

SIZES: Final = (0, 100, 700, 2000, 3500, 5000, 8000, 12000, 16000, 400)  # bytes; a directory has a file of each
LEVELS: Final = 5  # of directories, the root counted
IMAGE: Final = 2 << 30  # bytes; sparse
TEXT: Final = os.urandom(max(SIZES))


def grow(root: Path, files: int) -> None:
    """Files in directories of ten each, which lie in directories of ten each, four deep whatever their number."""
    for number in range(files // len(SIZES)):
        at = root / str(number // 1000) / str(number // 100 % 10) / str(number // 10 % 10) / str(number % 10)
        at.mkdir(parents=True)
        for one, size in enumerate(SIZES):
            (at / f"file{one}").write_bytes(TEXT[:size])


def filesystem(stack: ExitStack, fstype: str, scratch: Path, name: str) -> Path:
    """A new one, its root."""
    at = scratch / name
    at.mkdir()
    stack.callback(at.rmdir)
    if fstype == "tmpfs":
        filesystems.tmpfs(stack, at, name)
    else:
        stack.callback((scratch / f"{name}.img").unlink)
        filesystems.on_loop(stack, fstype, at, scratch, name, size=IMAGE)
    return at


def run(name: str, package: str, *words: str | Path) -> None:
    """A program that must succeed."""
    subprocess.run([find_program(name, package), *words], check=True, stdout=subprocess.DEVNULL)


def by_dfs(lower: Path, union: Path, upper: Path) -> None:
    migrate.dfs(union, upper)


def by_command(lower: Path, union: Path, upper: Path) -> None:
    """What ./run --migrate-tree does: also looks at each file in upper, whether it has its data."""
    if not live_migration.carry_out(live.find(union)).detached:
        raise SetupError("not detached")


def by_mail(lower: Path, union: Path, upper: Path) -> None:
    run("chown", "coreutils", "-R", "0:0", union)
    for _ in range(LEVELS):
        run("find", "findutils", union, "-inum", "0")


def by_copy(lower: Path, union: Path, upper: Path) -> None:
    run("cp", "coreutils", "-a", f"{lower}/.", upper)


WAYS: Final[dict[str, Callable[[Path, Path, Path], None]]] = {
    "dfs": by_dfs,
    "--migrate-tree": by_command,
    "mail": by_mail,
    "cp -a": by_copy,
}


def measure(lower: Path, fstype: str, scratch: Path, way: str, files: int, xino: str) -> float:
    """Seconds that it takes, from an upper that is new, with cold caches; that all is done is looked at after it."""
    with ExitStack() as stack:
        layer = filesystem(stack, fstype, scratch, "upper")
        union, upper = scratch / "union", layer / "u"
        for path in (union, upper, layer / "w"):
            path.mkdir()
        stack.callback(union.rmdir)
        if way != "cp -a":
            options = f"lowerdir={lower},upperdir={upper},workdir={layer / 'w'},xino={xino}"
            filesystems.mount(stack, "overlay", union, "overlay", options)
        os.sync()
        syscalls.drop_caches(pages=False)
        begin = time.monotonic()
        WAYS[way](lower, union, upper)
        taken = time.monotonic() - begin
        found = sum(len(names) for _, _, names in os.walk(upper))
        merged = len(migrate.opaque_state(upper).merged) if way != "cp -a" and xino == "nofollow" else 0
        if found != files or merged:
            raise SetupError(f"{way}: {found} of {files} files in upper, {merged} directories merged")
    return taken


def main() -> int:
    fstype, files, repeat = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    enter_private_namespace()
    with ExitStack() as stack:
        xino = "on" if accepts(("xino", "nofollow")) else "nofollow"
        ways = [way for way in WAYS if xino == "nofollow" or way != "--migrate-tree"]
        scratch = scratch_directory(stack)
        lower = filesystem(stack, "xfs", scratch, "lower")
        grow(lower, files)
        for turn in range(repeat + 1):  # the first warms up
            for way in ways if turn % 2 else reversed(ways):
                taken = measure(lower, fstype, scratch, way, files, xino)
                if turn:
                    print(json.dumps({"way": way, "seconds": taken}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
