# SPDX-License-Identifier: GPL-2.0-only
"""An overlay of the user's, found by its mount point: its layers as the kernel shows them, and whether they are it.

Nothing is mounted, and nothing but mountinfo, the roots of union and upper, and what this process may do is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from union import mountinfo, syscalls
from union.errors import SetupError, Unsupported, UsageError
from union.mountinfo import Mount

CAP_FOWNER: Final = 3
CAP_SYS_ADMIN: Final = 21
_NEEDED: Final = {syscalls.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE", CAP_FOWNER: "CAP_FOWNER"}
_INITIAL_USER_NAMESPACE: Final = 0xEFFFFFFD  # its inode number in /proc
_ATTEMPTS: Final = 100  # the root may change between two looks at it
_APART: Final = "another filesystem is mounted on it, which hides it: unmount that, or migrate from where it is not"


@dataclass(frozen=True, slots=True)
class Live:
    """A mounted overlay: `lowers` are its lower layers, the topmost first, without those that hold data alone.

    `options` are those of the superblock, `namespace` is where it keeps its xattrs, `apart` what is hidden by other
    mounts inside of it: paths relative to its root, and the reason.
    """

    mount: Mount
    upper: Path
    lowers: tuple[Path, ...]
    options: Mapping[str, str]
    namespace: str
    apart: Mapping[str, str]

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return Path(self.mount.point)


def find(point: Path, *, changes: bool = True) -> Live:
    """The overlay mounted on `point`, to be migrated or, without `changes`, to be looked at.

    Raises UsageError for what is no overlay that can be migrated, SetupError if its upper layer cannot be written or
    is not to be found from here, Unsupported if it is not mounted with xino=nofollow or we lack the privilege.
    """
    mount = _mounted(point)
    options = dict(mount.options)
    if "upperdir" not in options:
        raise UsageError(f"{point}: this overlay has no upper layer: mount it with upperdir= and workdir=")
    if options.get("xino") != "nofollow":
        how = "mount it with xino=nofollow, on a kernel that has the option"
        raise Unsupported(f"{point}: this overlay is not mounted with xino=nofollow, so nothing can be detached: {how}")
    namespace = "user" if "userxattr" in options else "trusted"
    _privileged(point, namespace)
    if changes and ("ro" in mount.flags or "ro" in options):
        raise SetupError(f"{point} is mounted read-only: mount -o remount,rw {point}")
    upper = _upper(point, options["upperdir"])
    if changes and _read_only(upper):
        raise SetupError(f"{point}: the filesystem of its upper layer {upper} is read-only: remount it read-write")
    return Live(mount, upper, tuple(_lowers(mount)), options, namespace, _apart(mount))


def _mounted(point: Path) -> Mount:
    """The overlay that is mounted on the directory as a whole."""
    try:
        found = mountinfo.find(syscalls.mount_id(point.resolve(strict=True)))
    except OSError as error:
        raise UsageError(f"{point}: {error.strerror}") from error
    if found is None:
        raise UsageError(f"{point}: what is mounted there is not of this mount namespace")
    if found.fstype != "overlay":
        raise UsageError(f"{point} is not an overlay but {found.describe()}: name where an overlay is mounted")
    if found.point != str(point.resolve()):
        raise UsageError(f"{point} lies inside of an overlay: name the whole of it, {found.point}")
    if found.root != "/":
        raise UsageError(f"{point} is only the directory {found.root} of an overlay: name where the whole is mounted")
    return found


def _privileged(point: Path, namespace: str) -> None:
    """Whether we may change what belongs to others, and read the marks: without the latter they look as if absent."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    lacking = [name for number, name in _NEEDED.items() if not effective & 1 << number]
    if namespace == "trusted":
        if not effective & 1 << CAP_SYS_ADMIN:
            lacking.append("CAP_SYS_ADMIN")
        elif not _in_initial_user_namespace():
            raise Unsupported(f"{point}: only root of the initial user namespace can read its marks: run it there")
    if lacking:
        raise Unsupported(f"{point}: to migrate it needs root, this is uid {os.geteuid()} without {', '.join(lacking)}")


def _in_initial_user_namespace() -> bool:
    try:
        return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def _upper(point: Path, shown: str) -> Path:
    """The upper layer: of the spellings of the path the one that is it."""
    for spelling in dict.fromkeys((_unescaped(shown), shown)):
        if _is_upper_of(point, spelling):
            return Path(spelling).absolute()
    if not shown.startswith("/"):
        raise SetupError(
            f"{point}: the kernel shows its upper layer as {shown}, a relative path that does not lead to it from "
            "here: run this in the directory in which it was mounted"
        )
    there = "what is there is another directory" if os.path.lexists(_unescaped(shown)) else "it is not there"
    raise SetupError(
        f"{point}: the kernel shows its upper layer as {shown}, but {there}: if it is hidden by a mount, unmount that; "
        "if the overlay is of another mount namespace, run this in that one (nsenter -m)"
    )


def _is_upper_of(point: Path, path: str) -> bool:
    """Whether the directory is what the root of the union shows, to the nanosecond of its last change."""
    for _ in range(_ATTEMPTS):
        try:
            before, union, after = _look(path), _look(str(point)), _look(path)
        except OSError:
            return False
        if before == after:
            return union == after
    return False


def _look(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_mode, status.st_size, status.st_blocks, status.st_mtime_ns, status.st_ctime_ns


def _read_only(path: Path) -> bool:
    """Whether the filesystem itself is: the overlay has a mount of its own of it."""
    mount = mountinfo.find(syscalls.mount_id(path))
    return mount is not None and "ro" in dict(mount.options)


def _lowers(mount: Mount) -> Iterator[Path]:
    """The lower layers as they are shown: one string with colons, or one by one and then without escapes."""
    for key, value in mount.options:
        if key == "lowerdir":
            ordinary = re.split(r"(?<!:)::(?!:)", value.replace("\\\\", "\0"))[0]  # data layers come behind ::
            for path in re.split(r"(?<!\\):", ordinary):
                yield Path(_unescaped(path.replace("\0", "\\\\"))).absolute()
        elif key == "lowerdir+":
            yield Path(value).absolute()


def _unescaped(shown: str) -> str:
    """The kernel shows the string that it was mounted with, in which a backslash takes the meaning of the next."""
    return re.sub(r"\\(.)", r"\1", shown, flags=re.DOTALL)


def _apart(mount: Mount) -> dict[str, str]:
    """What is hidden by mounts right inside of this one."""
    inside = mount.point.rstrip("/") + "/"
    on_it = (other.point for other in mountinfo.mounts() if other.parent == mount.id)
    return {point.removeprefix(inside): _APART for point in on_it if point.startswith(inside)}
