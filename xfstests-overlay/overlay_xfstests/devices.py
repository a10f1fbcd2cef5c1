# SPDX-License-Identifier: GPL-2.0-only
"""The test and the scratch device: loop devices on files without a name, which go with the last that uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from union import syscalls
from union.errors import SetupError
from union.programs import run_quietly

FILESYSTEMS: Final = {
    # Nothing to discard in a new sparse file.
    "xfs": ("mkfs.xfs", "xfsprogs", ("-q", "-K")),
    "ext4": ("mkfs.ext4", "e2fsprogs", ("-q", "-F", "-E", "nodiscard,lazy_itable_init=1")),
}
"""What can be the base of the overlays: the program that makes it, its package and its arguments."""

_SYS: Final = Path("/sys/block")
_LOOP_CLR_FD: Final = 0x4C01
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO = struct.Struct("=5Q 4I 64s 64s 32s 2Q")  # the number of the device that the file is on comes first


@contextmanager
def made(fstype: str, size: int, count: int = 2) -> Iterator[list[str]]:
    """So many block devices of `size` bytes, each with a new filesystem; at the end they are free again.

    Raises SetupError if there can be none, and if one stays in use at the end.
    """
    program, package, arguments = FILESYSTEMS[fstype]
    devices: list[str] = []
    with ExitStack() as stack:
        for _ in range(count):
            device, fd = _attached(size)
            stack.callback(os.close, fd)
            devices.append(device)
            run_quietly(program, package, [*arguments, device], f"{program} {device}", talks=True)
        yield devices
    if left := [device for device in devices if in_use(device)]:
        raise SetupError(f"still in use at the end: {', '.join(map(_described, left))}")


def _attached(size: int) -> tuple[str, int]:
    """A loop device on a new sparse file, and a descriptor that keeps it."""
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        try:
            return syscalls.attach_loop(f"/proc/self/fd/{file.fileno()}")
        except OSError as error:
            raise SetupError(f"no loop device: {error}") from error


def in_use(device: str) -> bool:
    """Whether the loop device has a file."""
    return (_SYS / Path(device).name / "loop/backing_file").exists()


def _described(device: str) -> str:
    holders = _SYS / Path(device).name / "holders"
    names = [(_SYS / name / "dm/name").read_text().strip() for name in os.listdir(holders) if name.startswith("dm-")]
    return f"{device} by {', '.join(names)} (dmsetup remove)" if names else device


def number(device: str) -> int:
    """The number by which files on the device's filesystem name it."""
    return os.stat(device).st_rdev


def free_those_on(numbers: set[int]) -> None:
    """Detach the loop devices on files of the devices with these numbers, and those on files of theirs.

    Tests that were killed leave such devices, which keep what they are on.
    """
    known = set(numbers)
    found = True
    while found:
        found = False
        for path in _SYS.glob("loop*/loop"):
            device = f"/dev/{path.parent.name}"
            if number(device) not in known and _is_on(device, known):
                known.add(number(device))
                found = True
    for path in _SYS.glob("loop*/loop"):
        device = f"/dev/{path.parent.name}"
        if number(device) in known - numbers:
            _detach(device)


def _is_on(device: str, numbers: set[int]) -> bool:
    info = bytearray(_LOOP_INFO.size)
    try:
        fd = os.open(device, os.O_RDONLY)
    except OSError:
        return False  # gone meanwhile
    try:
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, info)
    except OSError as error:
        if error.errno == errno.ENXIO:  # free meanwhile
            return False
        raise
    finally:
        os.close(fd)
    return _LOOP_INFO.unpack(info)[0] in numbers


def _detach(device: str) -> None:
    fd = os.open(device, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise SetupError(f"cannot detach {device}: {error.strerror}") from error
    finally:
        os.close(fd)
