# SPDX-License-Identifier: GPL-2.0-only
"""Workers of pytest-xdist in guests: what passes through, every way to lose a guest, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kernel.build import build
from kernel.progress import Silent

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds for one run
OTHERS = 12

GOOD = f"""
    import os
    import pytest

    @pytest.mark.parametrize("number", range({OTHERS}))
    def test_good(number, tmp_path):
        tmp_path.joinpath("file").write_text("text")
        assert os.uname().machine and os.getpid() < 1000, "this is no guest"
"""


class Project:
    """A directory with tests, and a copy of a kernel to find the processes of its guests by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kernel = Path(shutil.copy2(build("stock-6.12", progress=Silent()).path, path / "linux"))

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(textwrap.dedent(text))

    def command(self, *words: str) -> dict[str, Any]:
        """What starts a run of its tests."""
        plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "tests.guest_workers"]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
        words = (sys.executable, "-m", "pytest", "-v", *plugins, f"--workers-in={self.kernel}", *words)
        return {"args": words, "cwd": self.path, "env": environment, "text": True}

    def run(self, *words: str) -> tuple[str, str]:
        """Its output and the last line of it, without the time."""
        done = subprocess.run(**self.command(*words), capture_output=True, timeout=LIMIT, check=False)
        text = done.stdout + done.stderr
        assert self.guests() == [], text
        [last] = re.findall(r"^=+ (.*) in [\d.]+s(?: .*)?=+$", done.stdout, re.M) or [text]
        return text, last

    def guests(self) -> list[int]:
        """The processes whose command line names its kernel."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self.kernel) in words:
                found.append(int(path.parent.name))
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# What passes through.


def test_results_output_and_tracebacks_are_those_of_any_worker(project: Project) -> None:
    project.write(
        "test_some.py",
        """
        import os, subprocess, sys, pytest

        def test_in_a_guest():
            assert os.path.exists("/proc/1/cmdline") and b"init.pyc" in open("/proc/1/cmdline", "rb").read()

        def test_that_fails():
            print("printed by the test")
            raise ValueError("raised by the test")

        def test_that_is_skipped():
            pytest.skip("not today")

        def test_that_is_noisy():
            # Where output of the tests could get among that of the worker.
            for fd in (0, 1, 2):
                try:
                    os.write(fd, bytes(range(256)) * 16)
                except OSError:
                    pass
            print("noise", file=sys.__stdout__, flush=True)
            subprocess.run(["/bin/echo", "noise"])
            for name in ("/dev/console", "/dev/kmsg"):
                with open(name, "wb", buffering=0) as file:
                    file.write(b"noise\\n")
        """,
    )
    text, last = project.run("-rs", "-n1")
    assert last == "1 failed, 2 passed, 1 skipped", text
    assert "ValueError: raised by the test" in text and "printed by the test" in text
    assert re.search(r"^SKIPPED \[1\] test_some.py:\d+: not today$", text, re.M)


def test_a_million_bytes_go_each_way(project: Project) -> None:
    project.write(
        "conftest.py",
        """
        PAYLOAD = bytes(range(256)) * 4096

        def pytest_configure_node(node):
            node.workerinput["payload"] = PAYLOAD

        def pytest_sessionfinish(session):
            if hasattr(session.config, "workerinput"):
                session.config.workeroutput["payload"] = session.config.workerinput["payload"][::-1]

        def pytest_testnodedown(node, error):
            print("came back:", node.workeroutput["payload"] == PAYLOAD[::-1])
        """,
    )
    project.write("test_one.py", "def test_one(): pass")
    text, last = project.run("-n1", "-s")
    assert last == "1 passed" and "came back: True" in text, text


def test_without_n_one_worker_runs_all(project: Project) -> None:
    project.write("test_good.py", GOOD)
    text, last = project.run("-n0")
    assert last == f"{OTHERS} passed" and "[gw0]" in text, text


# Guests that are lost.

LOST = {
    "panic": (
        """
        import os
        open("/proc/sys/vm/panic_on_oom", "w").write("2")
        # Each of these may take half of the memory.
        for name in ("/tmp/all", "/run/all", "/var/tmp/all"):
            fd = os.open(name, os.O_CREAT | os.O_RDWR)
            space = os.fstatvfs(fd)
            os.posix_fallocate(fd, 0, space.f_bavail * space.f_bsize)
        """,
        "the kernel panicked: Kernel panic - not syncing: Out of memory",
    ),
    # It would pass.
    "fault": (
        'open("/dev/kmsg", "w").write("BUG: made up by a test\\n")',
        "the kernel reported a fault: BUG: made up by a test; console: ",
    ),
    "hang": ("import signal; signal.pause()", "the time limit passed; console: "),
    "restart": (
        "import ctypes; ctypes.CDLL(None).reboot(0x01234567)",
        "the guest went away without a status: it restarted; console: ",
    ),
    "exit": ("import os; os._exit(0)", ""),
}


def test_every_way_to_lose_a_guest_is_one_crashed_test(project: Project) -> None:
    project.write("test_good.py", GOOD)
    bodies = (
        f"def test_{name}():\n{textwrap.indent(textwrap.dedent(body), '    ')}" for name, (body, _) in LOST.items()
    )
    project.write("test_bad.py", "\n".join(bodies))
    text, last = project.run("-n2", "--test-limit=4")
    assert last == f"{len(LOST)} failed, {OTHERS} passed", text
    assert len(re.findall(r"^replacing crashed worker gw\d$", text, re.M)) == len(LOST), text
    for name, (_, said) in LOST.items():
        report = re.search(
            rf"^worker 'gw\d' crashed while running 'test_bad.py::test_{name}'\n(?P<rest>(?:[^_=].*\n)*)", text, re.M
        )
        assert report, f"{name} is missing in:\n{text}"
        assert report["rest"].startswith(said), f"{name}: {report['rest']}"
        assert ("\nthe console ends with:\n" in report["rest"]) == bool(said)
    assert re.search(r"^ \[<[0-9a-f]+>\] ", text, re.M), "the panic's trace"


def test_a_killed_guest_is_one_crashed_test(project: Project) -> None:
    # The hook runs on the host. With one worker there is one guest to be found.
    project.write(
        "conftest.py",
        """
        import os, signal, pathlib

        def pytest_runtest_logstart(nodeid):
            kernel = os.fsencode(pathlib.Path(__file__).with_name("linux"))
            if "test_bad" not in nodeid or os.getpid() == 1:
                return
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                if path.read_bytes().split(b"\\0")[0] == kernel:
                    os.kill(int(path.parent.name), signal.SIGKILL)
        """,
    )
    project.write("test_good.py", GOOD)
    project.write("test_bad.py", "def test_bad(): import signal; signal.pause()")
    text, last = project.run("-n1")
    assert last == f"1 failed, {OTHERS} passed", text
    assert "\nthe guest went away without a status" in text


# Life and death.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_guests_end_with_the_run(project: Project, number: signal.Signals) -> None:
    project.write("test_long.py", "def test_long(): import signal; signal.pause()")
    with subprocess.Popen(**project.command("-n1"), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = b""
            while b"test_long.py::test_long" not in said:  # is said before it runs, and not the end of a line
                said += os.read(process.stdout.fileno(), 1 << 16)
            guests = [os.pidfd_open(pid) for pid in project.guests()]
            assert guests
            process.send_signal(number)
            process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    for guest in guests:
        assert select.select([guest], [], [], 10)[0], "a guest outlived its run"
        os.close(guest)


# What cannot be done.


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workers-in=/bin/true"], "/bin/true: not a User-mode Linux kernel"),
        (["--workers-in=/no/such/kernel"], "/no/such/kernel: no such kernel"),
        (["-p", "no:xdist"], "a guest for the tests needs pytest-xdist"),
        (["--pdb"], "--pdb does not reach into a guest"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(project: Project, words: list[str], complaint: str) -> None:
    project.write("test_good.py", GOOD)
    done = subprocess.run(**project.command(*words), capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert [line for line in done.stderr.splitlines() if line] == [f"ERROR: {complaint}"]
