# SPDX-License-Identifier: GPL-2.0-only
"""Filesystems for the layers, each made new and mounted; undone on the caller's ExitStack.

There is no fall-back: what was asked for is what is mounted, or a SetupError says what is missing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from union import mountinfo, syscalls
from union.errors import SetupError
from union.programs import run_quietly


@dataclass(frozen=True, slots=True)
class Layer:
    """A filesystem that we made and mounted, or (`ours` False) a directory of the user's on one of theirs.

    `root` is where, `mount_id` the id in mountinfo, `source` the mount source or device, `device` its
    "major:minor"; these tell whether what is at `root` is still ours.
    """

    root: Path
    fstype: str
    mount_id: int
    source: str
    device: str
    ours: bool = True
    server: object = field(default=None, compare=False)  # who serves one in user space


@dataclass(frozen=True, slots=True)
class _Format:
    """How a filesystem on an image is made: the program and its package, its size, its mount options."""

    program: str
    package: str
    arguments: tuple[str, ...]
    size: int  # bytes of the sparse image
    options: str = ""


_FORMATS: Final = {
    # 300 MiB is the least that mkfs.xfs accepts. -K: nothing to discard in a new sparse file. nouuid: a copy of
    # the image, or another run's, may be mounted at the same time. reflink is what copy-up tries first.
    "xfs": _Format("mkfs.xfs", "xfsprogs", ("-q", "-K"), 300 << 20, "nouuid,noquota"),
    "ext4": _Format("mkfs.ext4", "e2fsprogs", ("-q", "-F", "-E", "nodiscard,lazy_itable_init=1"), 256 << 20),
    "btrfs": _Format("mkfs.btrfs", "btrfs-progs", ("-q", "-K"), 256 << 20),
}
# Fragments: the kernel keeps the last few for good, and in a small image that is all.
_SQUASH: Final = ("{tree}", "{image}", "-quiet", "-no-progress", "-no-fragments")
_IMAGES: Final = {
    "squashfs": _Format("mksquashfs", "squashfs-tools", _SQUASH, 0),
    "erofs": _Format("mkfs.erofs", "erofs-utils", ("{image}", "{tree}"), 0),
}
_IN_MEMORY: Final = ("tmpfs", "ramfs")
ON_LOOP: Final = tuple(_FORMATS)
READ_ONLY: Final = tuple(_IMAGES)


def make(
    stack: ExitStack, fstype: str, at: Path, image_dir: Path, name: str, features: Sequence[str] = (), options: str = ""
) -> Layer:
    """A new, empty filesystem of type `fstype` on the directory `at`; raises SetupError.

    `name` is the mount source of one in memory, or the name of the image file in `image_dir`. `features` are more
    arguments of its mkfs, `options` more mount options. One that the kernel makes up, like sysfs, is not empty.
    """
    if fstype in _FORMATS:
        return on_loop(stack, fstype, at, image_dir, name, features, options)
    own = "mode=0755" if fstype in _IN_MEMORY else ""
    mount(stack, name, at, fstype, ",".join(filter(None, (own, options))))
    return layer(at, fstype, name)


def tmpfs(stack: ExitStack, at: Path, name: str, size: int | None = None) -> Layer:
    """Mount a tmpfs with the mount source `name` on the directory `at`; `size` in bytes, else the default.

    Raises SetupError.
    """
    options = "mode=0755" + (f",size={size}" if size is not None else "")
    mount(stack, name, at, "tmpfs", options)
    return layer(at, "tmpfs", name)


def on_loop(
    stack: ExitStack,
    fstype: str,
    at: Path,
    image_dir: Path,
    name: str,
    features: Sequence[str] = (),
    options: str = "",
    *,
    size: int = 0,
) -> Layer:
    """Make a filesystem in the new sparse file `image_dir`/`name`.img and mount it on the directory `at`.

    `size` is that of the image in bytes, by default what the tests need. Raises SetupError.
    """
    image = image_dir / f"{name}.img"
    how = _FORMATS[fstype]
    with image.open("xb") as file:
        file.truncate(size or how.size)
    run_quietly(how.program, how.package, [*how.arguments, *features, str(image)], f"{how.program} {image}", talks=True)
    made = _mount_image(stack, image, fstype, at, ",".join(filter(None, (how.options, options))))
    if fstype == "ext4":
        (at / "lost+found").rmdir()  # the union would show it
    return made


def mount_again(made: Layer, image_dir: Path, between: Callable[[Path], object] | None = None) -> Layer:
    """Unmount what `on_loop` made there and mount its image again, its log recovered; undone as it was before.

    `between` may change the image while it is not mounted. Raises SetupError, and OSError when it is busy.
    """
    syscalls.umount(made.root)
    with ExitStack() as undone_already:
        image = image_dir / f"{made.root.name}.img"
        if between:
            between(image)
        found = _mount_image(undone_already, image, made.fstype, made.root, _FORMATS[made.fstype].options)
        undone_already.pop_all()
    return found


def packed(stack: ExitStack, fstype: str, tree: Path, at: Path, image_dir: Path, name: str) -> Layer:
    """Pack the directory `tree` into a squashfs or erofs image and mount it, read-only, on the directory `at`."""
    image = image_dir / f"{name}.img"
    how = _IMAGES[fstype]
    arguments = [word.format(tree=tree, image=image) for word in how.arguments]
    run_quietly(how.program, how.package, arguments, f"{how.program} {image}", talks=True)
    return _mount_image(stack, image, fstype, at, "", read_only=True)


def _mount_image(
    stack: ExitStack, image: Path, fstype: str, at: Path, options: str, *, read_only: bool = False
) -> Layer:
    try:
        device, fd = syscalls.attach_loop(image, read_only=read_only)
    except OSError as error:
        raise SetupError(f"no loop device for {image}: {error}") from error
    try:
        mount(stack, device, at, fstype, options, syscalls.MS_RDONLY if read_only else 0)
    finally:
        os.close(fd)  # from here on the mount alone holds the device
    return layer(at, fstype, device)


def mount(stack: ExitStack, source: str, at: Path, fstype: str, options: str, flags: int = 0) -> None:
    """mount(2), undone with the stack; SetupError when it fails, or when the mount is busy at the end."""
    try:
        syscalls.mount(source, at, fstype, flags, options)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise SetupError(f"kernel {os.uname().release} has no {fstype}") from error
        raise SetupError(f"cannot mount {source} ({fstype}) on {at}: {error.strerror}") from error
    stack.push(unmounting(at))


def unmounting(at: Path) -> Callable[[object, BaseException | None, object], None]:
    """What an ExitStack calls to unmount `at`; SetupError when it is busy."""

    def undo(_kind: object, failure: BaseException | None, _trace: object) -> None:
        try:
            syscalls.umount(at)
        except OSError as error:
            # Out of the way all the same, so that the scratch directory can go; then say so, unless the
            # mount is busy only because something else went wrong before.
            syscalls.detach(at)
            if failure is None:
                raise SetupError(f"cannot unmount {at}: {error.strerror}") from error

    return undo


def layer(at: Path, fstype: str, source: str) -> Layer:
    """The record of what was just mounted on `at`."""
    mount_id = syscalls.mount_id(at)
    found = mountinfo.find(mount_id)
    if found is None:
        raise SetupError(f"{at} was mounted but is not in {mountinfo.MOUNTINFO}")
    return Layer(at, fstype, mount_id, source, found.device)


def of_the_user(at: Path) -> Layer:
    """The record of a directory of the user's, on whatever filesystem it lies."""
    mount_id = syscalls.mount_id(at)
    found = mountinfo.find(mount_id)
    if found is None:
        raise SetupError(f"{at} is on no filesystem of {mountinfo.MOUNTINFO}")
    return Layer(at, found.fstype, mount_id, found.source, found.device, ours=False)


def make_read_only(at: Path) -> None:
    """Make the superblock itself read-only, so that nothing can write to the lower by another mount.

    A filesystem can still be shut down afterwards: the ioctl asks for the privilege, not for write access.
    """
    syscalls.mount("none", at, None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
