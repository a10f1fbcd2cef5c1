# SPDX-License-Identifier: GPL-2.0-only
"""What tells of changes: inotify, and fanotify that names the object by a handle or asks for leave."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from union import filecalls
from union.operations.base import Held, Value, W
from union.operations.descriptors import Step

EVENTS: Final[Mapping[int, str]] = {
    0x2: "modify",
    0x4: "attrib",
    0x40: "moved_from",
    0x80: "moved_to",
    0x100: "create",
    0x200: "delete",
    0x400: "delete_self",
    0x800: "move_self",
}
"""The events that are watched for, by bit: opening, reading and closing are none of them."""

_ALL: Final = sum(EVENTS)
_OF_FANOTIFY: Final = 0x2 | 0x4  # of an object itself, without its name
_ONDIR: Final = 0x40000000  # directories too


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch(Step):
    """inotify(7) on the object at `path`, kept as `held`."""

    word: ClassVar[str] = "watch"
    held: str

    def call(self, root: str, held: Held) -> Value:
        fd = filecalls.inotify_init()
        held.keep(self.held, fd, lambda: os.close(fd))
        filecalls.inotify_add_watch(fd, f"{root}/{self.path}", _ALL)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Step):
    """What the watch told since it was last asked: the kinds of events with the name they are about, sorted."""

    word: ClassVar[str] = "events"
    held: str

    def call(self, root: str, held: Held) -> Value:
        told = set()
        for event in filecalls.inotify_events(held.get(self.held)):
            told |= {f"{word} {event.name}".strip() for bit, word in EVENTS.items() if event.mask & bit}
        return ", ".join(sorted(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchHandle(Step):
    """fanotify(7) that reports handles, on the object at `path`, kept as `held`."""

    word: ClassVar[str] = "watch-handle"
    held: str

    def call(self, root: str, held: Held) -> Value:
        fd = filecalls.fanotify_init(filecalls.FAN_REPORT_FID | filecalls.FAN_NONBLOCK)
        held.keep(self.held, fd, lambda: os.close(fd))
        filecalls.fanotify_mark(fd, f"{root}/{self.path}", _OF_FANOTIFY | _ONDIR)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleEvents(Step):
    """The same as `Events` of such a watch; the handle must be that of the object at `path` now."""

    word: ClassVar[str] = "handle-events"
    held: str

    def call(self, root: str, held: Held) -> Value:
        handle = filecalls.name_to_handle(f"{root}/{self.path}", filecalls.AT_HANDLE_FID)
        told = set()
        for event in filecalls.fanotify_events(held.get(self.held)):
            whose = "" if event.handle == handle else " of another object"
            told |= {word + whose for bit, word in EVENTS.items() if event.mask & bit & _OF_FANOTIFY}
        return ", ".join(sorted(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWithLeave(Step):
    """open(2) for writing of a file whose opens a fanotify listener allows or refuses."""

    word: ClassVar[str] = "open-with-leave"
    allow: bool

    def call(self, root: str, held: Held) -> Value:
        path = f"{root}/{self.path}"
        fd = filecalls.fanotify_init(filecalls.FAN_CLASS_CONTENT)
        try:
            filecalls.fanotify_mark(fd, path, filecalls.FAN_OPEN_PERM)
            listener = threading.Thread(target=self._answer, args=(fd,))
            listener.start()
            try:
                os.close(os.open(path, W))
            finally:
                listener.join()
        finally:
            os.close(fd)
        return None

    def _answer(self, fd: int) -> None:
        for event in filecalls.fanotify_events(fd):
            filecalls.fanotify_answer(fd, event.fd, filecalls.FAN_ALLOW if self.allow else filecalls.FAN_DENY)
            os.close(event.fd)
