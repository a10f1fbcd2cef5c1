# SPDX-License-Identifier: GPL-2.0-only
"""Backing filesystems and the stack of layers built of them.

Everything made here goes on the caller's ExitStack and is undone in reverse. A run that is killed
leaves no mount and no loop device, because the mounts are in a private namespace and the devices free
themselves; what it can leave is an empty scratch directory, which the next run removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from datasets.reference import SAMPLE, SAMPLE_NAME
from datasets.tree import Directory, write
from union import mountinfo, syscalls
from union.errors import SetupError, Unsupported
from union.programs import run_quietly

LowerFs = Literal["tmpfs", "xfs"]

LOWER_NAME: Final = "lower_layer"  # mount sources of the classical suite: its clean-up knows them too
UPPER_NAME: Final = "upper_layer"
XFS_IMAGE_SIZE: Final = 300 << 20  # bytes, sparse: the least that mkfs.xfs accepts
SCRATCH_PREFIX: Final = "ovl-detach-"
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin"  # often missing from an ordinary PATH
_SCRATCH_MIN_AGE: Final = 60  # seconds; a younger scratch directory may not be locked by its owner yet


@dataclass(frozen=True, slots=True)
class Layer:
    """A filesystem that we made and mounted.

    `root` is where, `mount_id` the id in mountinfo, `source` the mount source or device, `device` its
    "major:minor"; these tell whether what is at `root` is still ours.
    """

    root: Path
    fstype: str
    mount_id: int
    source: str
    device: str


@dataclass(frozen=True, slots=True)
class LayerStack:
    """What an overlay is mounted from, and where; `scratch` is the private directory that holds it all."""

    lower: Layer
    upper: Layer
    upperdir: Path
    workdir: Path
    mountpoint: Path
    scratch: Path


def enter_private_namespace() -> None:
    """Give this process mounts of its own; call it before anything is mounted and threads are started.

    Raises Unsupported without CAP_SYS_ADMIN.
    """
    try:
        syscalls.unshare_mounts()
    except OSError as error:
        what = f"a mount namespace needs root (CAP_SYS_ADMIN), this is uid {os.geteuid()}"
        raise Unsupported(f"{what}: {error.strerror}") from error


def scratch_directory(stack: ExitStack) -> Path:
    """A tmpfs of our own on a fresh directory; removes what killed runs left first."""
    _reap()
    try:
        path = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    except OSError as error:
        raise SetupError(f"no scratch directory: {error}") from error
    stack.callback(path.rmdir)
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # tells other runs that the owner lives
    stack.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    tmpfs(stack, path, SCRATCH_PREFIX.rstrip("-"))
    return path


def _reap() -> None:
    """Remove the empty scratch directories of dead runs.

    Their owners are asked by lock, not by process id, since removing a directory that is a mount point
    in another namespace takes that mount away.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or not ours
        try:
            if time.time() - os.fstat(fd).st_mtime > _SCRATCH_MIN_AGE:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.rmdir()
        except OSError:
            pass  # in use, not empty or not ours: leave it
        finally:
            os.close(fd)


def tmpfs(stack: ExitStack, at: Path, name: str, size: int | None = None) -> Layer:
    """Mount a tmpfs with the mount source `name` on the directory `at`; `size` in bytes, else the default.

    Raises SetupError.
    """
    options = "mode=0755" + (f",size={size}" if size is not None else "")
    _mount(stack, name, at, "tmpfs", options)
    return _layer(at, "tmpfs", name)


def xfs_on_loop(stack: ExitStack, at: Path, image_dir: Path, name: str) -> Layer:
    """Make an XFS in the new sparse file `image_dir`/`name`.img and mount it on the directory `at`.

    There is no fall-back: SetupError names the program, driver or device that is missing.
    """
    image = image_dir / f"{name}.img"
    _mkfs_xfs(image)
    try:
        device, fd = syscalls.attach_loop(image)
    except OSError as error:
        raise SetupError(f"no loop device for {image}: {error}") from error
    try:
        # nouuid: a copy of the image, or another run's, may be mounted at the same time.
        _mount(stack, device, at, "xfs", "nouuid,noquota")
    finally:
        os.close(fd)  # from here on the mount alone holds the device
    return _layer(at, "xfs", device)


def _mkfs_xfs(image: Path) -> None:
    # -K: nothing to discard in a new sparse file. A prototype file (-p) with the dataset is not faster
    # than writing it afterwards: then all inodes are in the cache.
    with image.open("xb") as file:
        file.truncate(XFS_IMAGE_SIZE)
    run_quietly("mkfs.xfs", "xfsprogs", ["-q", "-K", str(image)], f"mkfs.xfs {image}")


def _mount(stack: ExitStack, source: str, at: Path, fstype: str, options: str) -> None:
    try:
        syscalls.mount(source, at, fstype, 0, options)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise SetupError(f"kernel {os.uname().release} has no {fstype}") from error
        raise SetupError(f"cannot mount {source} ({fstype}) on {at}: {error.strerror}") from error

    def undo(_kind: object, failure: BaseException | None, _trace: object) -> None:
        try:
            syscalls.umount(at)
        except OSError as error:
            # Out of the way all the same, so that the scratch directory can go; then say so, unless the
            # mount is busy only because something else went wrong before.
            syscalls.detach(at)
            if failure is None:
                raise SetupError(f"cannot unmount {at}: {error.strerror}") from error

    stack.push(undo)


def _layer(at: Path, fstype: str, source: str) -> Layer:
    mount_id = syscalls.mount_id(at)
    mount = mountinfo.find(mount_id)
    if mount is None:
        raise SetupError(f"{at} was mounted but is not in {mountinfo.MOUNTINFO}")
    return Layer(at, fstype, mount_id, source, mount.device)


def build_layers(
    stack: ExitStack, *, lower_fs: LowerFs, tree: Directory, mountpoint: Path | None = None
) -> LayerStack:
    """Build the layers of one overlay: `tree` as a read-only lower, and an empty upper on tmpfs.

    The upper layer directory gets the sample file of the classical suite. Without `mountpoint` (an
    existing directory) one is made inside the scratch directory. The caller must be in a private mount
    namespace. Raises SetupError for anything that cannot be made.
    """
    if mountpoint is not None and not mountpoint.is_dir():
        raise SetupError(f"the mount point {mountpoint} is not a directory")
    scratch = scratch_directory(stack)
    try:
        lower_root, upper_root = scratch / "lower", scratch / "upper"
        lower_root.mkdir()
        upper_root.mkdir()
        if mountpoint is None:
            mountpoint = scratch / "m"
            mountpoint.mkdir()
        if lower_fs == "xfs":
            lower = xfs_on_loop(stack, lower_root, scratch, LOWER_NAME)
        else:
            lower = tmpfs(stack, lower_root, LOWER_NAME)
        write(tree, lower_root)
        _make_read_only(lower_root)
        upper = tmpfs(stack, upper_root, UPPER_NAME)
        upperdir, workdir = make_upper(upper_root, 0)
    except OSError as error:
        raise SetupError(f"cannot build the layers: {error}") from error
    return LayerStack(lower, upper, upperdir, workdir, mountpoint, scratch)


def make_upper(upper_root: Path, number: int) -> tuple[Path, Path]:
    """Make upper layer `number` with its sample file: its upper and its work directory."""
    layer = Directory({"u": Directory({SAMPLE_NAME: SAMPLE}), "w": Directory()})
    write(Directory({str(number): layer}), upper_root)
    return upper_root / str(number) / "u", upper_root / str(number) / "w"


def _make_read_only(at: Path) -> None:
    """Make the superblock itself read-only, so that nothing can write to the lower by another mount.

    An XFS can still be shut down afterwards: the ioctl asks for the privilege, not for write access.
    """
    syscalls.mount("none", at, None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
