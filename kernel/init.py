#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
# ruff: noqa: SIM105 (contextlib is a module to load, and loading is boot time)
"""Process 1 of a guest: `init.py SPEC` mounts what a command needs, runs it, reports, powers off.

SPEC is a marshalled dict written by `kernel.private` (same interpreter on both sides):

    argv, cwd, env       the command; names as bytes
    covered              directories that get a fresh tmpfs
    visible              host directories below those that must stay readable
    host                 the type of filesystem that shows the host: hostfs, virtiofs
    shared               (directory, guest directory) pairs, writable; what the host calls them, or the tag that it has
    modules              a program to load modules with, see `kernel.modules`; empty if there is none
    cpus                 the number of CPUs that there must be
    status, out, err     names of the terminals that lead to the host; out and err may be virtio ports, `port:NAME`
    end                  what marks the end of out and err, if they are such ports, which cannot be drained
    feed                 name of the one that leads from it (see `feed.py`), empty if the command's stdin is

Said on the status terminal: `started CPUS`, then `exit N` (128 + N when a signal ended the command). In between anyone
in the guest may say `limit SECONDS`: the guest has hung unless another limit is said before they are over; 0 lifts it.
The command's stdout and stderr are terminals in raw mode, or ports. Then the host ends the machine, once it has both
marks, instead of process 1. Standard library only, and little of it:
every module costs boot time. Mounting is done by system call, as exec is the slowest thing a UML guest does.
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import signal
import sys
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing is a big module
    from typing import Any

    Spec = dict[str, Any]

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND = 2, 4, 8, 4096
POWER_OFF = 0x4321FEDC
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: bytes, kind: str, flags: int = 0, data: bytes = b"") -> None:
    """mount(2); raises OSError with the target as its file name."""
    if _libc.mount(source.encode(), target, kind.encode(), ctypes.c_ulong(flags), data):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind}: {os.strerror(number)}", os.fsdecode(target))


def mount_system() -> None:
    """The kernel's own filesystems, on directories that every root file system has."""
    mount("proc", b"/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", b"/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        mount("devtmpfs", b"/dev", "devtmpfs", MS_NOSUID)
    except OSError as error:
        if error.errno != errno.EBUSY:  # the kernel may have mounted it for us
            raise
    for directory in ("/dev/pts", "/dev/shm"):
        os.makedirs(directory, exist_ok=True)
    try:
        mount("devpts", b"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, b"ptmxmode=666,mode=620")
    except OSError:
        pass  # a kernel without pseudo terminals still runs everything but `script`
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")


def mount_all(spec: Spec) -> None:
    """Everything that the command finds mounted besides the read-only root."""
    # Through a descriptor what is about to be covered can still be reached.
    kept = [(os.open(directory, os.O_PATH), directory) for directory in spec["visible"]]
    for directory in spec["covered"]:
        if os.path.isdir(directory):
            # Neither nodev nor nosuid: layers with devices and capabilities are made there.
            mount("tmpfs", directory, "tmpfs", 0, b"mode=755" if directory == b"/run" else b"mode=1777")
    for fd, directory in kept:
        os.makedirs(directory, exist_ok=True)
        mount(f"/proc/self/fd/{fd}", directory, "", MS_BIND)
        os.close(fd)
    for source, directory in spec["shared"]:
        os.makedirs(directory, exist_ok=True)
        if spec["host"] == "hostfs":
            mount("none", directory, "hostfs", 0, source)
        else:
            mount(os.fsdecode(source), directory, spec["host"])


def load_modules(program: bytes) -> None:
    """Load what a run needs, and let the kernel load more by the same program when it wants to."""
    with open("/proc/sys/kernel/modprobe", "wb") as file:
        file.write(program)
    status = os.waitstatus_to_exitcode(os.spawnv(os.P_WAIT, program, [program, b"--first"]))
    if status:
        raise OSError(f"{os.fsdecode(program)}: modules cannot be loaded, status {status}")


def find_port(name: str) -> str:
    """The device of the virtio port `name`, waiting for it: the host announces them one after the other."""
    directory = "/sys/class/virtio-ports"
    while True:
        for device in os.listdir(directory):
            try:
                with open(f"{directory}/{device}/name") as file:
                    if file.read().strip() == name:
                        return device
            except FileNotFoundError:
                pass  # it has none, or none yet
        os.sched_yield()


def open_line(name: str) -> int:
    """A line to the host, on which every byte goes through as it is: a terminal in raw mode or a virtio port."""
    if name.startswith("port:"):
        return os.open(f"/dev/{find_port(name[5:])}", os.O_WRONLY)
    fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_NOCTTY)
    mode = termios.tcgetattr(fd)
    mode[0] = mode[1] = mode[3] = 0
    mode[2] = termios.CS8 | termios.CREAD | termios.CLOCAL | termios.B38400
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    return fd


def feed(line: int) -> int:
    """The reading end of a pipe that a child fills with what the host sends on the terminal `line`."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return reader
    os.close(reader)
    try:
        while length := int.from_bytes(exactly(line, 2), "little"):
            data = exactly(line, length)
            while data:
                data = data[os.write(writer, data) :]
            os.write(line, b".")
    finally:
        os._exit(0)  # also when the command does not read any more: the host waits for nothing then


def exactly(fd: int, size: int) -> bytes:
    """The next `size` bytes."""
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def become(spec: Spec, stdin: int, out: int, err: int) -> None:
    """In the child: turn into the command; on failure say why on its stderr and exit 127 or 126."""
    os.setsid()
    os.dup2(stdin, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 64)
    # Python ignores these two; the command must not inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    name = spec["cwd"]
    try:
        os.chdir(name)
        name = spec["argv"][0]
        os.execvpe(name, spec["argv"], spec["env"])
    except OSError as error:
        os.write(2, b"%s: %s\n" % (name, os.strerror(error.errno or 0).encode()))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def run(spec: Spec, stdin: int, out: int, err: int) -> int:
    """Run the command to its end, reaping every orphan on the way, then kill what it left behind."""
    child = os.fork()
    if child == 0:
        become(spec, stdin, out, err)
    os.close(stdin)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main(path: str) -> None:
    """Never returns: ends with the machine powered off, or in a panic that tells the host what failed."""
    for fd in range(3):  # a kernel without a console starts us with these closed
        try:
            os.fstat(fd)
        except OSError:
            os.open("/", os.O_RDONLY)
    with open(path, "rb") as file:
        spec = marshal.load(file)
    mount_system()
    if spec["modules"]:
        load_modules(spec["modules"])
    mount_all(spec)
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")
    if cpus < spec["cpus"]:
        raise OSError(f"{cpus} of {spec['cpus']} CPUs came up")
    out, err, status = (open_line(spec[name]) for name in ("out", "err", "status"))
    stdin = feed(open_line(spec["feed"])) if spec["feed"] else os.open("/dev/null", os.O_RDONLY)
    os.write(status, b"started %d\n" % cpus)
    code = run(spec, stdin, out, err)
    # stdout and stderr are complete on the host before the status is said. Files in the host's directories are
    # too: hostfs writes back at close, so there is no sync(), which would wait for what a test broke on purpose.
    for line in (out, err):
        os.write(line, spec["end"]) if spec["end"] else termios.tcdrain(line)
    # On a line of its own, whatever others in the guest had written there.
    os.write(status, b"\nexit %d\n" % code)
    termios.tcdrain(status)
    while spec["end"]:
        signal.pause()
    _libc.reboot(ctypes.c_int(POWER_OFF))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - the last words of process 1
        print(f"guest init: {error}", file=sys.stderr, flush=True)
