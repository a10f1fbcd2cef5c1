# SPDX-License-Identifier: GPL-2.0-only
"""The FUSE lower: what it serves, what it logs, and each thing that it can be told to do instead."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from datasets.tree import Directory, File, HardLink, Special, Symlink, write
from tests.harness.isolated import isolated, needs_fuse
from union.errors import SetupError
from union.fences.fuse import in_time
from union.fuse import log as requestlog
from union.fuse.log import RequestLog
from union.fuse.server import Action, Content, Rule
from union.fuse.wire import Op
from union.lowerfuse import LowerFuse
from union.portrait import differences, portrait
from union.workspace import scratch_directory

TREE = Directory({
    "a": Directory({"file": File(b"hello", 0o640, 1, 2), "link": Symlink("file"), "other": HardLink("file")}),
    "top": File(b"top" * 9999, xattrs={"user.one": b"1", "trusted.two": b"22"}),
    "null": Special(stat.S_IFCHR, rdev=os.makedev(1, 3)),
    "many": Directory({f"name-{n:03}": File() for n in range(300)}),
})  # fmt: skip
READ = frozenset({Op.READ})


@contextmanager
def served(content: Content | None = None) -> Iterator[tuple[LowerFuse, Path, Path]]:
    """A served TREE, where it is mounted, and where it really is."""
    with ExitStack() as stack:
        scratch = scratch_directory(stack)
        tree, at = scratch / "tree", scratch / "at"
        for path in (tree, at):
            path.mkdir()
        write(TREE, tree)
        yield LowerFuse(stack, tree, at, "served", content=content), at, tree


@needs_fuse
@isolated
def test_what_is_served_is_the_tree() -> None:
    with served() as (_, at, tree):
        assert not differences(portrait(str(at)), portrait(str(tree)))
        assert os.stat(at / "a/file").st_ino == os.stat(at / "a/other").st_ino == os.stat(tree / "a/file").st_ino
        assert os.stat(at / "null").st_rdev == os.makedev(1, 3)
        assert len(os.listdir(at / "many")) == 300
        assert os.statvfs(at).f_bsize == os.statvfs(tree).f_bsize


@needs_fuse
@isolated
def test_it_takes_no_change() -> None:
    with served() as (_, at, _tree), pytest.raises(OSError, match="Read-only"):
        (at / "new").write_text("")


@needs_fuse
@isolated
def test_each_request_is_in_the_log_with_its_path_and_process() -> None:
    with served() as (server, at, _tree):
        begin = server.log.position
        with pytest.raises(FileNotFoundError):
            os.stat(at / "a/missing")
        asked = [(one.operation, one.path) for one in server.log.since(begin)]
        assert asked[-1] == ("LOOKUP", "a/missing")
        assert {one.pid for one in server.log.since(begin)} == {os.getpid()}
        times = [one.time for one in server.log.since(begin)]
        assert times == sorted(times) and time.monotonic() >= times[-1]


@needs_fuse
@isolated
def test_no_cache_answers_in_its_place() -> None:
    with served() as (server, at, _tree):
        os.stat(at / "a/file")
        for access in (lambda: os.stat(at / "a/file"), lambda: os.access(at / "a/file", os.R_OK),
                       lambda: os.readlink(at / "a/link"), lambda: os.listdir(at / "a")):  # fmt: skip
            begin = server.log.position
            access()
            assert list(server.log.since(begin)), "not asked again"


@needs_fuse
@isolated
def test_housekeeping_is_told_apart() -> None:
    with served() as (server, at, _tree):
        begin = server.log.position
        os.close(os.open(at / "a/file", os.O_RDONLY))
        while not any(one.operation == "RELEASE" for one in server.log.since(begin, housekeeping=True)):
            os.sched_yield()
        assert not any(one.operation == "RELEASE" for one in server.log.since(begin))


@needs_fuse
@isolated
def test_what_is_asked_of_a_daemon_that_was_stopped_is_not_answered() -> None:
    with served() as (server, at, _tree):
        server.stop()
        assert in_time(lambda: os.stat(at / "top")) is None
        server.go_on()
        assert in_time(lambda: os.stat(at / "top"))


@needs_fuse
@isolated
def test_a_watchdog_ends_what_hangs() -> None:
    with served() as (server, at, _tree):
        server.stop()
        server.watch()
        with pytest.raises(OSError) as caught:
            os.stat(at / "top")
        assert caught.value.errno in (errno.ECONNABORTED, errno.ENOTCONN)


@needs_fuse
@isolated
def test_a_daemon_that_was_killed_leaves_no_connection() -> None:
    with served() as (server, at, _tree):
        os.stat(at / "top")
        server.kill()
        with pytest.raises(OSError) as caught:
            os.stat(at / "top")
        assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(SetupError, match="daemon of the FUSE lower"):
            server.rules()
        assert "LOOKUP" in {one.operation for one in server.log.since()}  # it can still be read


@needs_fuse
@isolated
def test_a_connection_can_be_aborted() -> None:
    with served() as (server, at, _tree):
        server.abort()
        with pytest.raises(OSError) as caught:
            os.stat(at / "top")
        assert caught.value.errno == errno.ENOTCONN


@needs_fuse
@isolated
def test_rules_go_by_operation_and_path_and_can_be_taken_back() -> None:
    with served() as (server, at, _tree):
        server.rules(Rule(Action.FAIL, READ, "a/*", errno.ENOSPC))
        with pytest.raises(OSError) as caught:
            (at / "a/file").read_bytes()
        assert caught.value.errno == errno.ENOSPC
        assert (at / "top").read_bytes() and os.stat(at / "a/file")
        server.rules()
        assert (at / "a/file").read_bytes() == b"hello"


@needs_fuse
@isolated
def test_it_can_lie() -> None:
    with served() as (server, at, _tree):
        server.rules(Rule(Action.WRONG))
        assert (at / "a/file").read_bytes() == bytes(byte ^ 0xFF for byte in b"hello")
        assert os.listdir(at / "a") == []
        assert os.readlink(at / "a/link") == "elif"
        assert os.getxattr(at / "top", "user.one") == bytes([ord("1") ^ 0xFF])


@needs_fuse
@isolated
def test_a_delay_holds_up_nobody_else() -> None:
    with served() as (server, at, _tree):
        server.rules(Rule(Action.DELAY, READ, "a/file", 0.4))
        began = time.monotonic()
        child = forked(lambda: (at / "a/file").read_bytes())
        while not server.waiting():
            os.sched_yield()
        (at / "top").read_bytes()
        assert time.monotonic() - began < 0.4
        assert ended(child) == 0
        assert time.monotonic() - began >= 0.4


@needs_fuse
@isolated
def test_what_stalls_goes_on_with_other_rules() -> None:
    with served() as (server, at, _tree):
        server.rules(Rule(Action.STALL, READ))
        child = forked(lambda: (at / "a/file").read_bytes())
        while not server.waiting():
            os.sched_yield()
        server.rules()
        assert ended(child) == 0


@needs_fuse
@isolated
def test_what_stalls_can_be_interrupted() -> None:
    with served() as (server, at, _tree):
        for operation, left in ((Op.GETATTR, 0), (Op.READ, 1)):  # the kernel reads ahead in nobody's name
            server.rules(Rule(Action.STALL, frozenset({operation}), "a/file"))
            child = forked(lambda: (at / "a/file").read_bytes())
            while not server.waiting():
                os.sched_yield()
            os.kill(child, signal.SIGKILL)
            assert ended(child) == -signal.SIGKILL
            assert server.waiting() == left


@needs_fuse
@isolated
def test_it_can_die_of_a_request() -> None:
    with served() as (server, at, _tree):
        server.rules(Rule(Action.DIE, frozenset({Op.READDIR}), "many"))
        assert os.listdir(at / "a")
        with pytest.raises(OSError) as caught:
            os.listdir(at / "many")
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)


class Late(Content):
    """Nothing is there until a pipe says so."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._there = False

    def start(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived

    def populated(self, path: str, pid: int) -> bool:
        if path == "top":  # whoever asks for this one brings all
            self._there = True
        return self._there


@needs_fuse
@isolated
def test_a_read_stalls_until_its_content_has_arrived() -> None:
    with served(Late(0)) as (server, at, _tree):
        server.rules(Rule(Action.POPULATE, READ))
        child = forked(lambda: (at / "a/file").read_bytes())
        while not server.waiting():
            os.sched_yield()
        assert os.stat(at / "a/file").st_size == 5  # only what needs the content waits
        (at / "top").read_bytes()
        server.rules(Rule(Action.POPULATE, READ))  # look again
        assert ended(child) == 0


class Trickle(Content):
    """Something arrives all the time."""

    def start(self, arrived: Callable[[], None]) -> None:
        threading.Thread(target=self._trickle, args=(arrived,), daemon=True).start()

    def _trickle(self, arrived: Callable[[], None]) -> None:
        while True:
            arrived()
            os.sched_yield()


@needs_fuse
@isolated
def test_what_is_delayed_is_not_delayed_again_by_all_that_arrives() -> None:
    with served(Trickle()) as (server, at, _tree):
        server.rules(Rule(Action.DELAY, READ, "a/file", 0.2))
        child = forked(lambda: (at / "a/file").read_bytes())
        assert ended(child) == 0


@needs_fuse
@isolated
def test_nothing_is_missed_when_it_has_settled() -> None:
    with served() as (server, at, _tree):
        begin = server.log.position
        fds = [os.open(at / f"many/name-{n:03}", os.O_RDONLY) for n in range(100)]
        for fd in fds:
            os.close(fd)
        server.settle()
        assert sum(one.operation == "OPEN" for one in server.log.since(begin)) == 100


@needs_fuse
@isolated
def test_a_fault_of_the_daemon_is_told() -> None:
    class Broken(Content):
        def open(self, path: str) -> int:
            raise ValueError("broken on purpose")

    with served(Broken()) as (server, at, _tree):
        with pytest.raises(OSError):
            (at / "top").read_bytes()
        with pytest.raises(SetupError, match="broken on purpose"):
            server.waiting()


@needs_fuse
@isolated
def test_it_ends_with_its_mount() -> None:
    with served() as (server, _at, _tree):
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_log_that_is_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requestlog, "SIZE", 4096)
    log = RequestLog()
    with pytest.raises(SetupError, match="full"):
        for _ in range(1000):
            log.write(Op.LOOKUP, "path", 1)
    assert {(one.operation, one.path, one.pid) for one in log.since()} == {("LOOKUP", "path", 1)}


def test_an_operation_of_a_newer_kernel_has_a_number() -> None:
    log = RequestLog()
    log.write(4711, "x", 1)
    assert [one.operation for one in log.since()] == ["operation 4711"]


def forked(work: Callable[[], object]) -> int:
    """A child process that does it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """Its exit code, or minus the number of a signal; it must end within ten seconds."""
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(10_000), "it hangs"
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
