# SPDX-License-Identifier: GPL-2.0-only
"""Fences for a FUSE lower: its daemon dies, hangs, fails or lies, or does its work and is listened to."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from multiprocessing import Pipe
from typing import Final

from union.fence import LISTING, READ, Act, CannotFence, Fence, Listening, Outcome, compare, outcome
from union.filesystems import Layer
from union.fuse.server import Action, Rule
from union.lowerfuse import LowerFuse

_PATIENCE: Final = 0.25  # seconds that an access may take before it counts as one that hangs
ASKED: Final = "a request"
HANGS: Final = "hangs"


class FuseFence(Fence):
    """A fence on a layer that a LowerFuse serves."""

    def __init__(self, layer: Layer) -> None:
        """Raises CannotFence for what is no FUSE lower of ours."""
        super().__init__(layer)
        if not isinstance(layer.server, LowerFuse):
            raise CannotFence(f"{layer.root} is served by a daemon that is not ours")
        self.server = layer.server


class Silence(FuseFence, Listening):
    """The lower works on and is listened to: no request may reach it (D9)."""

    name = "silence"
    what = "silence"
    words = (ASKED,)

    def _raise(self, root: int) -> None:
        self.server.settle()
        self._raised_at = self._position = self.server.log.position

    def judge(self, act: Act, before: Outcome) -> str:
        """See `Fence.judge`: what it asked, if anything, is all that matters."""
        came = super().judge(act, before)
        return ASKED if self._heard() else came

    def _heard(self) -> list[str]:
        """All but those by which the kernel lets go of something."""
        begin, self._position = self._position, self.server.log.position
        return [str(asked) for asked in self.server.log.since(begin)]

    def account(self) -> str:
        """How many there were before, and of which kinds most."""
        kinds = Counter(asked.operation for asked in self.server.log.until(self._raised_at))
        most = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
        return f"{kinds.total()} before it ({most} …)"


class Killed(FuseFence):
    """The daemon is killed, and with it its connection."""

    name = "killed"
    what = "daemon killed"
    words = ("ENOTCONN", "ECONNABORTED")

    def _raise(self, root: int) -> None:
        self.server.kill()


class Aborted(Killed):
    """The connection is aborted by the kernel; the daemon lives."""

    name = "aborted"
    what = "connection aborted"

    def _raise(self, root: int) -> None:
        self.server.abort()


class Failing(FuseFence):
    """The daemon answers each request with EIO."""

    name = "failing"
    what = "daemon failing with EIO"

    def _raise(self, root: int) -> None:
        self.server.rules(Rule(Action.FAIL, value=errno.EIO))


class Lying(FuseFence):
    """The daemon gives other data than it has."""

    name = "lying"
    what = "daemon lying"
    words = ("something else",)

    def must(self) -> tuple[str, ...]:
        """A lookup and a stat are answered with the truth, else the kernel would notice."""
        return (LISTING, READ)

    def _raise(self, root: int) -> None:
        self.server.rules(Rule(Action.WRONG))


class Stopped(FuseFence):
    """The daemon is stopped: what asks it hangs.

    Behind its `guard` a watchdog aborts the connection when something has waited for long enough, so that a run ends:
    with an error where it hung.
    """

    name = "stopped"
    what = "daemon stopped"
    words = (HANGS,)

    def _raise(self, root: int) -> None:
        self.server.stop()

    def guard(self) -> None:
        """See `Fence.guard`."""
        self.server.watch()

    def judge(self, act: Act, before: Outcome) -> str:
        """See `Fence.judge`: done by a child process, since it may hang."""
        came = in_time(act)
        return HANGS if came is None else compare(came, before)


def in_time(act: Act) -> Outcome | None:
    """What it gives in a child process; None if it takes longer than _PATIENCE, and is killed then."""
    theirs, ours = Pipe()
    child = os.fork()
    if child == 0:
        try:
            theirs.send(outcome(act))
        finally:
            os._exit(0)
    theirs.close()
    try:
        if ours.poll(_PATIENCE):
            found: Outcome = ours.recv()
            return found
        os.kill(child, signal.SIGKILL)
        return None
    finally:
        ours.close()
        os.waitpid(child, 0)


FENCES: Final = (Silence, Killed, Aborted, Failing, Lying, Stopped)
