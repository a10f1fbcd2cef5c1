# SPDX-License-Identifier: GPL-2.0-only
"""Runs unionmount-testsuite in a private root that has the directories it wants.

usage: peer_root.py PEER xfs|tmpfs ARGUMENT...

The peer mounts on /lower, /upper and /mnt, and takes a real lower filesystem from fstab. So that
nothing of the host is touched, it gets a root of its own: a tmpfs with the host's directories bound
into it and, for XFS, an image file that fstab names for /lower.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from union import syscalls
from union.programs import find_program
from union.workspace import enter_private_namespace

IMAGE = "/lower.img"
IMAGE_SIZE = 512 << 20  # bytes, sparse
OWN = ("base", "lower", "upper", "mnt", "etc")  # directories that the private root has for itself
MS_BIND, MS_REC = 4096, 16384


def main(peer: str, lower: str, arguments: list[str]) -> int:
    """Build the root, run the peer in it; its exit status."""
    with tempfile.TemporaryDirectory(prefix="ovl-detach-bench.") as name:
        child = os.fork()
        if child == 0:
            _run(Path(name), peer, lower, arguments)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run(root: Path, peer: str, lower: str, arguments: list[str]) -> None:
    enter_private_namespace()
    _furnish(root)
    if lower == "xfs":
        with open(f"{root}{IMAGE}", "xb") as image:
            image.truncate(IMAGE_SIZE)
        subprocess.run([find_program("mkfs.xfs", "xfsprogs"), "-q", f"{root}{IMAGE}"], check=True)
        (root / "etc" / "fstab").write_text(f"{IMAGE} /lower xfs loop 0 0\n")
    os.chroot(root)
    os.chdir(peer)
    os.umask(0o022)
    os.execv(sys.executable, [sys.executable, "./run", *arguments])


def _furnish(root: Path) -> None:
    syscalls.mount("bench_root", root, "tmpfs", 0, "mode=0755")
    for entry in os.scandir("/"):
        if entry.is_symlink():
            (root / entry.name).symlink_to(os.readlink(entry.path))
        elif entry.is_dir() and entry.name not in OWN:
            (root / entry.name).mkdir()
            syscalls.mount(entry.path, root / entry.name, None, MS_BIND | MS_REC)
    for name in OWN:
        (root / name).mkdir()
    (root / "etc" / "mtab").symlink_to("/proc/self/mounts")
    for name in ("passwd", "group", "ld.so.cache"):
        (root / "etc" / name).write_bytes(Path("/etc", name).read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
