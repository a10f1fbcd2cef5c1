#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
# ruff: noqa: SIM105 (contextlib is a module to load, and loading is boot time)
"""Ties a guest's life to its owner's: `keeper.py OWNER_PID CPU,... MEMORY_DIR PROGRAM ARGUMENT...`

A UML guest is a group of host processes, and one whose owner was killed spins for ever on a dead line. The
keeper stands between: it starts PROGRAM in a process group of its own and kills every process of it
when PROGRAM ends, when the keeper gets SIGTERM, or when its parent, the owner, is gone. So `kill -9` of
the owner, of the keeper or of the guest leaves nothing behind. A death signal set in the owner would not do:
it is sent when the *thread* that started the guest ends.

Exits with the status of PROGRAM, 128 + N for a death by signal N. Standard library only, and few
modules of it: it runs under `python -I -S` and its start is part of every boot.
"""

import ctypes
import os
import resource
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _exec(argv: list[str], cpus: set[int], memory_dir: str, keeper: int) -> None:
    """In the child: become PROGRAM, alone in its process group (a panic of UML signals its whole group)."""
    os.setpgid(0, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it died before the line above took effect
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        pass  # the CPUs were taken from us meanwhile: slower, nothing else
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # HOME is where UML of any version puts its `~/.uml`: not the user's.
    env = {"PATH": os.environ.get("PATH", ""), "TMPDIR": memory_dir, "HOME": memory_dir}
    try:
        os.execve(argv[0], argv, env)
    except OSError as error:
        os.write(2, os.fsencode(f"cannot execute {argv[0]}: {error.strerror}\n"))
        os._exit(127)


def _children() -> list[int]:
    """Our children now: those of PROGRAM's processes that outlived it are handed to us, the subreaper."""
    mine = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[1] == mine.encode():
                found.append(int(name))
    return found


def _kill_rest() -> None:
    """Kill and reap whatever descends from us, until nothing is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                continue
        except ChildProcessError:
            return
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main(owner: int, cpus: set[int], memory_dir: str, argv: list[str]) -> int:
    """Run `argv` on `cpus` until it or the process `owner` ends; returns the exit status for us."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    stop_read, stop_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(stop_write)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    alive = os.pidfd_open(owner)
    if os.getppid() != owner:
        return 128 + signal.SIGKILL
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _exec(argv, cpus, memory_dir, keeper)
    try:
        os.setpgid(child, child)  # in both, so that the group exists whoever runs first
    except OSError:
        pass
    ended = os.pidfd_open(child)
    poll = select.poll()
    for fd in (ended, alive, stop_read):
        poll.register(fd, select.POLLIN)
    poll.poll()
    os.killpg(child, signal.SIGKILL)  # the child is not reaped yet, so the group's id is still its own
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _kill_rest()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), set(map(int, sys.argv[2].split(","))), sys.argv[3], sys.argv[4:]))
