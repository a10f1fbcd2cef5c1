# SPDX-License-Identifier: GPL-2.0-only
"""A CPU of its own for each guest.

A one-CPU UML guest is two host processes that take turns, one tracing the other. On two CPUs each turn wakes
an idle CPU, which on a virtual machine costs more than the turn itself: a detach run was seen to take 24 s
instead of 4.5 s. So a guest stays on one CPU, and guests that run at the same time choose different ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from kernel.paths import made, plain_dir


@contextlib.contextmanager
def own_cpu() -> Iterator[int]:
    """The number of a CPU that no other guest of this user has, for as long as the block lasts.

    With more guests than CPUs they share. The lock goes with this process, however that ends.
    """
    allowed = sorted(os.sched_getaffinity(0))
    directory = made(plain_dir() / "cpus")
    with contextlib.ExitStack() as stack:
        for cpu in allowed:
            fd = os.open(directory / str(cpu), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cpu
            return
        yield allowed[os.getpid() % len(allowed)]
