# SPDX-License-Identifier: GPL-2.0-only
"""Host CPUs of its own for each guest.

A guest with one CPU is two host processes that take turns. On two host CPUs each turn wakes an idle one, which on a
virtual machine costs more than the turn itself: a detach run was seen to take 24 s instead of 4.5 s. So such a guest
stays on one, and guests that run at the same time choose different ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from kernel.paths import made, plain_dir


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
