# SPDX-License-Identifier: GPL-2.0-only
"""The daemon of a FUSE lower: it serves a directory tree, read-only, and does what its rules say instead.

It speaks to /dev/fuse itself. A binding to libfuse would show what libfuse made of the requests: it answers some
itself, forgets nodes, and its loop must be given an answer before it takes the next request. Here each request is in
the log before anything is done about it, and one that stalls is simply not answered yet. Nor does it need a C library
in the guest, or on the machine of a user who may not install one.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from typing import Final

from union import syscalls
from union.fuse import wire
from union.fuse.log import RequestLog
from union.fuse.wire import Op, Request

ROOT: Final = "."
_ITSELF: Final = (".", "/")
"""Names that a lookup in a node asks for when it means the node: for a handle, and to revalidate what has no name."""


class Action(Enum):
    """What is done about a request."""

    SERVE = auto()
    DELAY = auto()  # serve it `value` seconds later
    POPULATE = auto()  # serve it once the content of its file has arrived
    STALL = auto()  # nothing, until there are other rules
    FAIL = auto()  # the errno `value`
    WRONG = auto()  # a plausible lie: see `_LIES`
    DIE = auto()  # the daemon ends without an answer


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about requests of `operations`, all if empty, for paths that match the pattern `paths`.

    A `*` matches slashes too; the root is ".". The first rule that matches decides, and without one it is served.
    """

    action: Action
    operations: frozenset[Op] = frozenset()
    paths: str = "*"
    value: float = 0

    def matches(self, operation: int, path: str) -> bool:
        """Whether it is about this request."""
        return (not self.operations or operation in self.operations) and fnmatchcase(path, self.paths)


class Content:
    """Where the data of the files is: all of it in the tree, from the start.

    What populates it over time overrides these. Everything but `start` is called with the server's lock held.
    """

    def start(self, arrived: Callable[[], None]) -> None:
        """Called in the daemon; `arrived` is to be called, by any thread, when something has become populated."""

    def populated(self, path: str, pid: int) -> bool:
        """Whether the content of this file is there, for which process `pid` asks. One that stalls asks often."""
        return True

    def open(self, path: str) -> int:
        """A descriptor to read the content from."""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


class Server:
    """One mount's daemon. Its working directory is the tree; its process does nothing else."""

    def __init__(self, fuse: int, log: RequestLog, control: Connection, content: Content, *, passthrough: bool) -> None:
        """`fuse` is the descriptor of the mount, `control` where rules come from."""
        self._fuse = fuse
        self._log = log
        self._control = control
        self._content = content
        self._passthrough = passthrough
        self._lock = threading.Lock()
        self._rules: tuple[Rule, ...] = ()
        self._waiting: dict[int, Request] = {}  # not answered yet, by unique
        self._due: list[tuple[float, int]] = []  # when to serve one that is delayed, and its unique
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._paths = {wire.ROOT_ID: ROOT}
        self._root_ino = os.stat(ROOT).st_ino
        self._files: dict[int, int] = {}  # handle: descriptor
        self._backings: dict[int, tuple[int, int]] = {}  # node: what it is passed through to, and for how many handles
        self._listings: dict[int, list[tuple[str, int, int]]] = {}
        self._handles = 0

    # the loop

    def run(self) -> None:
        """Serve until the filesystem is unmounted."""
        threading.Thread(target=self._obey, daemon=True).start()
        self._content.start(self._arrived)
        poll = select.poll()
        poll.register(self._fuse, select.POLLIN)
        while True:
            poll.poll()
            with self._lock:  # what is not waiting to be read has been dealt with when somebody else has the lock
                try:
                    self._take(wire.request(os.read(self._fuse, wire.BUFFER)))
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return
                    if error.errno not in (errno.EAGAIN, errno.ENOENT):  # who asked was interrupted or killed
                        raise

    def _take(self, asked: Request) -> None:
        path = self._path_of(asked)
        self._log.write(asked.operation, path, asked.pid)
        if asked.operation == Op.INTERRUPT:
            self._interrupt(asked)
        elif asked.operation not in wire.UNANSWERED:
            self._consider(asked, path)

    def _consider(self, asked: Request, path: str) -> None:
        """Answer, or let it wait."""
        rule = self._rule(asked, path)
        if rule.action is Action.DIE:
            os._exit(0)
        if rule.action is Action.STALL or self._lacks(rule, asked, path):
            self._waiting[asked.unique] = asked
        elif rule.action is Action.DELAY:
            self._waiting[asked.unique] = asked
            heapq.heappush(self._due, (time.monotonic() + rule.value, asked.unique))
            self._wake()
        elif rule.action is Action.FAIL:
            self._reply(wire.answer(asked.unique, error=int(rule.value)))
        else:
            self._serve(asked, path, lying=rule.action is Action.WRONG)

    def _rule(self, asked: Request, path: str) -> Rule:
        return next((rule for rule in self._rules if rule.matches(asked.operation, path)), _SERVE)

    def _lacks(self, rule: Rule, asked: Request, path: str) -> bool:
        """Whether it waits for content."""
        return rule.action is Action.POPULATE and not self._content.populated(path, asked.pid)

    def _serve(self, asked: Request, path: str, *, lying: bool = False) -> None:
        try:
            body = _ANSWERS.get(asked.operation, Server._refuse)(self, asked, path)
            if lying and asked.operation in _LIES:
                body = _LIES[asked.operation](body)
        except OverflowError:
            answer = wire.answer(asked.unique, error=errno.ERANGE)
        except OSError as error:
            answer = wire.answer(asked.unique, error=error.errno or errno.EIO)
        else:
            answer = wire.answer(asked.unique, body)
        self._reply(answer)

    def _reply(self, answer: bytes) -> None:
        # ENOENT: who asked was killed meanwhile. ENODEV: it was unmounted or aborted, as the next read will tell.
        with suppress(FileNotFoundError):
            try:
                os.write(self._fuse, answer)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise

    def _interrupt(self, asked: Request) -> None:
        unique = asked.numbers("=Q")[0]
        if self._waiting.pop(unique, None) is not None:
            self._reply(wire.answer(unique, error=errno.EINTR))

    # the control

    def _obey(self) -> None:
        """The other thread: rules that come in, and what is due."""
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            with self._lock:
                next_due = self._due[0][0] if self._due else None
            timeout = None if next_due is None else max(0, next_due - time.monotonic()) * 1000
            for fd, _ in poll.poll(timeout):
                if fd == self._wake_reader:
                    os.read(fd, 4096)
                elif not self._command():
                    return
            self._serve_due()

    def _command(self) -> bool:
        """Carry a command out; False when nobody is there any more to give one."""
        try:
            word, value = self._control.recv()
        except EOFError:
            return False
        if word == "rules":
            self._rules = tuple(value)
            self._reconsider()
            self._control.send(None)
        elif word == "waiting":
            with self._lock:
                self._control.send(len(self._waiting))
        elif word == "settle":
            self._settle()
            self._control.send(None)
        return True

    def _settle(self) -> None:
        """Wait until the kernel has nothing for us, and all that it had was dealt with."""
        ready = select.poll()
        ready.register(self._fuse, select.POLLIN)
        while True:
            with self._lock:
                if not any(events & select.POLLIN for _, events in ready.poll(0)):
                    return
            os.sched_yield()

    def _serve_due(self) -> None:
        with self._lock:
            while self._due and self._due[0][0] <= time.monotonic():
                _, unique = heapq.heappop(self._due)
                asked = self._waiting.pop(unique, None)
                if asked is not None:
                    self._serve(asked, self._path_of(asked))

    def _arrived(self) -> None:
        """Serve what has waited for content that is there now; what waits for anything else is left alone."""
        with self._lock:
            for asked in list(self._waiting.values()):
                path = self._path_of(asked)
                rule = self._rule(asked, path)
                if rule.action is Action.POPULATE and not self._lacks(rule, asked, path):
                    del self._waiting[asked.unique]
                    self._serve(asked, path)

    def _reconsider(self) -> None:
        """Look again at all that wait, after new rules."""
        with self._lock:
            waiting, self._waiting, self._due = self._waiting, {}, []
            for asked in waiting.values():
                self._consider(asked, self._path_of(asked))

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_writer, b"!")

    # nodes

    def _path_of(self, asked: Request) -> str:
        if asked.operation in (Op.INTERRUPT, Op.BATCH_FORGET, Op.INIT, Op.DESTROY):
            return ""
        path = self._path(asked.node)
        if asked.operation == Op.LOOKUP and (name := asked.name()) not in _ITSELF and name != "..":
            return name if path == ROOT else f"{path}/{name}"
        return path

    def _path(self, node: int) -> str:
        """The path of a node, which is an inode number of the tree."""
        if node not in self._paths:
            self._find_all(ROOT)  # the kernel has it from a file handle
        return self._paths.get(node, f"node {node}")

    def _find_all(self, directory: str) -> None:
        for found in os.scandir(directory):
            path = found.name if directory == ROOT else f"{directory}/{found.name}"
            self._paths.setdefault(found.inode(), path)
            if found.is_dir(follow_symlinks=False):
                self._find_all(path)

    # the answers

    def _init(self, asked: Request, _path: str) -> bytes:
        body, complete = wire.greeting(asked, passthrough=self._passthrough)
        self._control.send(complete)
        return body

    def _lookup(self, asked: Request, path: str) -> bytes:
        if asked.name() == "..":
            path = os.path.dirname(path) or ROOT
        found = os.lstat(path)
        node = wire.ROOT_ID if found.st_ino == self._root_ino else found.st_ino
        self._paths.setdefault(node, path)
        return wire.entry(node, found)

    def _getattr(self, _asked: Request, path: str) -> bytes:
        return wire.attributes(os.lstat(path))

    def _readlink(self, _asked: Request, path: str) -> bytes:
        return os.fsencode(os.readlink(path))

    def _open(self, asked: Request, path: str) -> bytes:
        fd = self._content.open(path)
        self._handles += 1
        self._files[self._handles] = fd
        if not self._passthrough:
            return wire.opened(self._handles)
        backing, handles = self._backings.get(asked.node, (0, 0))  # the kernel takes but one for a node
        if not handles:
            # What the ioctl returns is the number; Python tells it only for an argument that could be changed.
            backing = fcntl.ioctl(self._fuse, wire.BACKING_OPEN, bytearray(wire.backing_map(fd)))
        self._backings[asked.node] = (backing, handles + 1)
        return wire.opened(self._handles, wire.FOPEN_PASSTHROUGH, backing)

    def _read(self, asked: Request, _path: str) -> bytes:
        handle, offset, size = asked.numbers("=QQI")
        return os.pread(self._files[handle], size, offset)

    def _seek(self, asked: Request, _path: str) -> bytes:
        handle, offset, whence = asked.numbers("=QQI")
        return struct.pack("=Q", os.lseek(self._files[handle], offset, whence))

    def _release(self, asked: Request, _path: str) -> bytes:
        handle = asked.numbers("=Q")[0]
        os.close(self._files.pop(handle))
        if asked.node in self._backings:
            backing, handles = self._backings.pop(asked.node)
            if handles > 1:
                self._backings[asked.node] = (backing, handles - 1)
            else:
                fcntl.ioctl(self._fuse, wire.BACKING_CLOSE, struct.pack("=I", backing))
        return b""

    def _opendir(self, _asked: Request, path: str) -> bytes:
        self._handles += 1
        self._listings[self._handles] = self._list(path)
        return wire.opened(self._handles)

    def _list(self, path: str) -> list[tuple[str, int, int]]:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            entries = syscalls.getdents(fd)
        finally:
            os.close(fd)
        # What lies above the tree is nobody's business.
        return [(name, self._root_ino if path == ROOT and name == ".." else ino, kind) for name, ino, kind in entries]

    def _readdir(self, asked: Request, path: str) -> bytes:
        handle, offset, size = asked.numbers("=QQI")
        if offset == 0:
            self._listings[handle] = self._list(path)
        return wire.listing(self._listings[handle][offset:], offset, size)

    def _releasedir(self, asked: Request, _path: str) -> bytes:
        self._listings.pop(asked.numbers("=Q")[0], None)
        return b""

    def _statfs(self, _asked: Request, _path: str) -> bytes:
        return wire.statistics(os.statvfs(ROOT))

    def _getxattr(self, asked: Request, path: str) -> bytes:
        room = asked.numbers("=II")[0]
        try:
            value = os.getxattr(path, asked.name(skip=8), follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # A filesystem without xattrs has none. The kernel, which asks for ACLs, would take that for a failure.
            raise OSError(errno.ENODATA, "no xattrs") from error
        return wire.sized(value, room)

    def _listxattr(self, asked: Request, path: str) -> bytes:
        names = os.listxattr(path, follow_symlinks=False)
        return wire.sized(b"".join(os.fsencode(name) + b"\0" for name in names), asked.numbers("=II")[0])

    def _nothing(self, _asked: Request, _path: str) -> bytes:
        return b""

    def _ioctl(self, asked: Request, path: str) -> bytes:
        """Those by which an overlay reads the flags of a file (chattr)."""
        _handle, _flags, command, _argument, _given, room = asked.numbers("=QIIQII")
        if command not in _FLAG_IOCTLS:
            raise OSError(errno.ENOTTY, "no ioctl")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return wire.ioctl_result(fcntl.ioctl(fd, command, bytes(room)))
        finally:
            os.close(fd)

    def _refuse(self, asked: Request, _path: str) -> bytes:
        raise OSError(errno.EROFS if asked.operation in _CHANGES else errno.ENOSYS, "refused")


_FLAG_IOCTLS: Final = (0x80086601, 0x80046601, 0x801C581F)  # FS_IOC_GETFLAGS, the same of 32 bits, FS_IOC_FSGETXATTR
_SERVE: Final = Rule(Action.SERVE)
_CHANGES: Final = frozenset({
    Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.RENAME2, Op.LINK, Op.WRITE,
    Op.SETXATTR, Op.REMOVEXATTR, Op.CREATE, Op.FALLOCATE, Op.TMPFILE,
})  # fmt: skip
_ANSWERS: Final[dict[int, Callable[[Server, Request, str], bytes]]] = {
    Op.INIT: Server._init,
    Op.LOOKUP: Server._lookup,
    Op.GETATTR: Server._getattr,
    Op.READLINK: Server._readlink,
    Op.OPEN: Server._open,
    Op.READ: Server._read,
    Op.LSEEK: Server._seek,
    Op.RELEASE: Server._release,
    Op.OPENDIR: Server._opendir,
    Op.READDIR: Server._readdir,
    Op.RELEASEDIR: Server._releasedir,
    Op.STATFS: Server._statfs,
    Op.GETXATTR: Server._getxattr,
    Op.LISTXATTR: Server._listxattr,
    # Answered, though ENOSYS would do: the kernel asks no second time then, and a call would go unseen.
    Op.FLUSH: Server._nothing,
    Op.FSYNC: Server._nothing,
    Op.FSYNCDIR: Server._nothing,
    Op.ACCESS: Server._nothing,
    Op.IOCTL: Server._ioctl,
}


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


_LIES: Final[dict[int, Callable[[bytes], bytes]]] = {
    Op.READ: _inverted,  # as long as the truth
    Op.READLINK: lambda target: target[::-1],
    Op.READDIR: lambda _: b"",  # an empty directory
    Op.GETXATTR: lambda value: value if len(value) == struct.calcsize("=II") else _inverted(value),
}
"""What is answered instead of the truth, whose size it has: the kernel notices nothing."""
