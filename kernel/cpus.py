# SPDX-License-Identifier: GPL-2.0-only
"""How many CPUs a guest has, and host CPUs of its own for each.

A guest is several host threads that take turns: the kernel's CPUs, and one per process. On two host CPUs each turn
wakes an idle one, which on a virtual machine costs more than the turn itself. So a guest stays on one host CPU, and
guests that run at the same time choose different ones. A guest with two CPUs that are both busy is another matter.
Measured on a virtual machine with two CPUs:

    guest                                   dfs detach run    stat/s, one process   stat/s, two processes
    one CPU, ptrace, on one host CPU        5.3 s
    one CPU, seccomp, on one host CPU       4.0 s
    one CPU, seccomp, on two host CPUs      9.8 s
    two CPUs, seccomp, on one host CPU      4.5 s             66 000                57 000
    two CPUs, seccomp, on two host CPUs     9.0 s             18 000                123 000
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import NamedTuple

from kernel.paths import made, plain_dir

_CPUS = 2  # of a guest that nobody wants to have another number


class Try(NamedTuple):
    """With how many CPUs a guest is booted, and how it runs its processes: by seccomp, or traced with ptrace."""

    cpus: int
    seccomp: bool

    def __str__(self) -> str:
        return f"{self.cpus} CPUs" if self.cpus > 1 else "1, traced" if not self.seccomp else "1 and seccomp"


def tries(cpus: int | None, most: int) -> tuple[Try, ...]:
    """What is tried one after the other for a kernel that can have `most` CPUs.

    Every kernel can trace, but not with several CPUs; a kernel for several can do with seccomp, which is faster.
    """
    if most == 1:
        return (Try(1, False),)
    if cpus is None:
        return (Try(_CPUS, True), Try(1, False))
    return (Try(cpus, True),) if cpus > 1 else (Try(1, True), Try(1, False))


@contextlib.contextmanager
def own_cpus(count: int) -> Iterator[tuple[int, ...]]:
    """The numbers of `count` CPUs, or all there are, that no other guest of this user has, while the block lasts.

    When there are not enough, some are shared. The locks go with this process, however that ends.
    """
    allowed = sorted(os.sched_getaffinity(0))
    directory = made(plain_dir() / "cpus")
    free: list[int] = []
    with contextlib.ExitStack() as stack:
        for cpu in allowed:
            if len(free) == count:
                break
            fd = os.open(directory / str(cpu), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(cpu)
        start = os.getpid() % len(allowed)
        taken = [cpu for cpu in allowed[start:] + allowed[:start] if cpu not in free]
        yield tuple([*free, *taken][:count])
