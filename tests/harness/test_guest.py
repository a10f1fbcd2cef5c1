# SPDX-License-Identifier: GPL-2.0-only
"""A guest: what goes in and comes out, every way it can end, and that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.build import build
from kernel.console import Console
from kernel.errors import SetupError, UsageError
from kernel.guest import GuestResult, Outcome
from kernel.paths import guests_dir
from kernel.progress import Silent
from kernel.uml import UmlGuest

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 60.0  # seconds for anything that does not test a limit


@dataclass
class Done:
    result: GuestResult
    out: bytes
    err: bytes


@pytest.fixture(scope="session")
def binary() -> Path:
    return build("stock-6.12", progress=Silent()).path


@pytest.fixture
def guest(binary: Path, tmp_path: Path) -> UmlGuest:
    return UmlGuest(binary, log_dir=tmp_path / "logs")


def run(guest: UmlGuest, *argv: str, **options: object) -> Done:
    out: list[bytes] = []
    err: list[bytes] = []
    options.setdefault("time_limit", LIMIT)
    result = guest.run(argv, on_stdout=out.append, on_stderr=err.append, **options)  # type: ignore[arg-type]
    return Done(result, b"".join(out), b"".join(err))


def python(guest: UmlGuest, code: str, **options: object) -> Done:
    return run(guest, sys.executable, "-I", "-S", "-c", textwrap.dedent(code), **options)


# What goes in and comes out.


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)])
def test_exit_status_passes_through(guest: UmlGuest, script: str, status: int) -> None:
    done = run(guest, "/bin/sh", "-c", script)
    assert (done.result.outcome, done.result.status) == (Outcome.EXITED, status)
    assert done.result.booted is not None
    assert 0 < done.result.booted < done.result.seconds


def test_a_command_that_is_not_there_says_so(guest: UmlGuest) -> None:
    done = run(guest, "/no/such/command")
    assert (done.result.outcome, done.result.status) == (Outcome.EXITED, 127)
    assert done.err == b"/no/such/command: No such file or directory\n"


def test_arguments_and_environment_arrive_as_they_are(guest: UmlGuest) -> None:
    words = ["", "two words", "line\nend", 'a "quote"', "'", "\\", "ünïcode", "%s {console} $HOME", "x" * 20_000]
    code = "import os, sys; os.write(1, repr((sys.argv[1:], dict(os.environ), os.getcwd())).encode())"
    argv = [sys.executable, "-I", "-X", "utf8", "-c", code, *words]
    out: list[bytes] = []
    env = {"ONE": "1 2\n3", "PATH": "/usr/bin:/bin", "LC_CTYPE": "C.UTF-8"}
    result = guest.run(argv, env=env, cwd="/usr", on_stdout=out.append, time_limit=LIMIT)
    assert result.status == 0
    assert eval(b"".join(out)) == (words, env, "/usr")


def test_output_is_complete_and_eight_bit_clean(guest: UmlGuest) -> None:
    done = python(
        guest,
        """
        import os
        piece = bytes(range(256)) * 16
        for _ in range(512):
            for fd, data in ((1, piece), (2, piece[::-1])):
                while data:
                    data = data[os.write(fd, data):]
        """,
    )
    piece = bytes(range(256)) * 16
    assert done.result.status == 0
    assert done.out == piece * 512
    assert done.err == piece[::-1] * 512


def test_output_arrives_while_the_command_runs(guest: UmlGuest) -> None:
    class SeenError(Exception):
        pass

    def see(data: bytes) -> None:
        assert data.startswith(b"now")
        raise SeenError

    with pytest.raises(SeenError):  # also: an error in a sink ends the guest and is passed on
        guest.run(["/bin/sh", "-c", "echo now; exec sleep 1000"], on_stdout=see, time_limit=LIMIT)


def test_stdin_is_empty(guest: UmlGuest) -> None:
    assert run(guest, "/bin/sh", "-c", "wc -c").out.strip() == b"0"


def test_what_the_command_leaves_behind_does_not_keep_the_guest(guest: UmlGuest) -> None:
    # One that never stops talking would also keep the terminals from ever being empty.
    script = "sleep 1000 & (setsid sleep 1000 &) ; (setsid sh -c 'while :; do echo more; done' &) ; echo started"
    done = run(guest, "/bin/sh", "-c", script, time_limit=20)
    assert (done.result.outcome, done.result.status) == (Outcome.EXITED, 0)
    assert set(done.out.splitlines()) <= {b"started", b"more"}


# The guest's files.


def test_the_root_is_the_hosts_and_read_only(guest: UmlGuest, tmp_path: Path) -> None:
    code = """
        import errno, os
        for name in ("/written-by-a-guest", "/etc/written-by-a-guest"):
            try:
                open(name, "w")
            except OSError as error:
                print(errno.errorcode[error.errno])
        os.write(1, open("/etc/passwd", "rb").read())
    """
    done = python(guest, code)
    assert done.out == b"EROFS\nEROFS\n" + Path("/etc/passwd").read_bytes()
    assert not Path("/written-by-a-guest").exists()


def test_temporary_directories_are_fresh_and_take_devices(guest: UmlGuest) -> None:
    # What the guest cannot do without stays visible: the checkout, and the interpreter.
    kept = {part for path in (CHECKOUT, sys.prefix) for part in Path(path).parts}
    code = f"""
        import os, stat
        for name in ("/tmp", "/run", "/var/tmp", "/dev/shm"):
            assert set(os.listdir(name)) <= {kept!r}, os.listdir(name)
            os.mknod(name + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            open(name + "/null", "w").write("x")
            os.setxattr(name, "trusted.x", b"1")
        print("ok")
    """
    with tempfile.TemporaryDirectory(dir="/tmp"):
        done = python(guest, code)
    assert (done.out, done.err) == (b"ok\n", b"")


def test_what_is_needed_stays_visible_below_a_fresh_directory(guest: UmlGuest) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="with blank, and comma ") as name:
        for part in ("kept", "kept/inner", "other", "cwd"):
            Path(name, part).mkdir()
            Path(name, part, "file").write_text(f"from the host's {part}\n")
        script = 'cat "$1/kept/inner/file" file; ls "$1/other"; echo x >"$1/kept/file"; echo y >/tmp/y; cat /tmp/y'
        visible = [Path(name, "kept"), Path(name, "kept/inner")]
        done = run(guest, "/bin/sh", "-c", script, "sh", name, cwd=Path(name, "cwd"), visible=visible)
        assert done.out == b"from the host's kept/inner\nfrom the host's cwd\ny\n"
        assert b"Read-only file system" in done.err
        assert b"cannot access" in done.err
        assert Path(name, "kept/file").read_text() == "from the host's kept\n"


def test_a_checkout_below_a_fresh_directory_works(binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="a checkout ") as name:
        for package in ("kernel", "union"):
            shutil.copytree(CHECKOUT / package, Path(name, package), ignore=shutil.ignore_patterns("__pycache__"))
        program = f"""
            import sys
            from pathlib import Path
            from kernel.uml import UmlGuest
            argv = [sys.executable, "-c", "import kernel.init; print(kernel.init.__file__)"]
            env = {{"PYTHONPATH": {name!r}, "PYTHONDONTWRITEBYTECODE": "1"}}
            guest = UmlGuest(Path({str(binary)!r}), log_dir=Path({name!r}))
            print(guest.run(argv, env=env, on_stdout=sys.stdout.buffer.write, time_limit={LIMIT}).explain())
        """
        # Its cache, too, has a path that no kernel command line takes.
        env = {**os.environ, "PYTHONPATH": name, "XDG_CACHE_HOME": f"{name}/cache"}
        command = [sys.executable, "-u", "-c", textwrap.dedent(program)]
        done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True)
    assert done.stdout == f"{name}/kernel/init.py\nthe command ended with status 0\n", done.stderr


def test_shared_directories_take_results(guest: UmlGuest, tmp_path: Path) -> None:
    shared = tmp_path / "results, and more"
    shared.mkdir()
    data = os.urandom(3_000_000)
    (shared / "in").write_bytes(data)
    script = "cp /tmp/results/in /tmp/results/out && mkdir /tmp/results/d && mv /tmp/results/in /tmp/results/d"
    done = run(guest, "/bin/sh", "-c", script, shared=[(shared, "/tmp/results")])
    assert (done.result.status, done.err) == (0, b"")
    assert (shared / "out").read_bytes() == data
    assert (shared / "d/in").read_bytes() == data


# The ways it ends.


def test_panic(binary: Path, tmp_path: Path) -> None:
    small = UmlGuest(binary, memory="96M", log_dir=tmp_path)
    code = """
        open("/proc/sys/vm/panic_on_oom", "w").write("2")
        hoard = []
        while True:
            hoard.append(bytearray(1 << 20))
    """
    result = python(small, code).result
    assert result.outcome is Outcome.PANIC
    assert result.status is None
    assert result.reason.startswith("Kernel panic - not syncing: Out of memory")
    assert "Kernel panic - not syncing: Out of memory" in result.console_log.read_text()
    assert str(result.console_log) in result.explain()
    assert 0 < len(result.console_tail.splitlines()) <= 25


def test_oops(guest: UmlGuest) -> None:
    result = run(guest, "/bin/sh", "-c", "echo 'BUG: made up by a test' >/dev/kmsg; exit 3").result
    assert (result.outcome, result.status) == (Outcome.OOPS, 3)
    assert result.reason == "BUG: made up by a test"


def test_a_warning_is_no_oops(guest: UmlGuest) -> None:
    script = "echo 'WARNING: CPU: 0 PID: 1 at fs/x.c:1' >/dev/kmsg; echo 'a DEBUG: message' >/dev/kmsg"
    assert run(guest, "/bin/sh", "-c", script).result.outcome is Outcome.EXITED


def test_output_that_looks_like_a_panic_is_none(guest: UmlGuest) -> None:
    done = run(guest, "/bin/echo", "Kernel panic - not syncing: not at all")
    assert done.result.outcome is Outcome.EXITED


def test_hang(guest: UmlGuest) -> None:
    done = run(guest, "/bin/sh", "-c", "echo before; exec sleep 1000", time_limit=1)
    assert (done.result.outcome, done.result.status, done.out) == (Outcome.HANG, None, b"before\n")
    assert done.result.seconds < 30


def test_lost_when_its_process_is_killed(binary: Path, tmp_path: Path) -> None:
    # A copy, to find this guest's processes by and not those of other tests.
    guest = UmlGuest(Path(shutil.copy2(binary, tmp_path / "linux")), log_dir=tmp_path)

    def kill(_: bytes) -> None:
        for pid in guest_processes(guest.binary):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    result = guest.run(["/bin/sh", "-c", "echo up; exec sleep 1000"], on_stdout=kill, time_limit=LIMIT)
    assert (result.outcome, result.status) == (Outcome.LOST, None)


@pytest.mark.parametrize("command", [0x4321FEDC, 0x01234567], ids=["power off", "restart"])
def test_lost_when_the_command_ends_the_machine(guest: UmlGuest, command: int) -> None:
    code = f"import ctypes; ctypes.CDLL(None).reboot(ctypes.c_int({command}))"
    assert run(guest, sys.executable, "-c", code).result.outcome is Outcome.LOST


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["/bin/true", "/bin/sleep"])
def test_a_program_that_is_no_kernel_does_not_boot(tmp_path: Path, name: str) -> None:
    fake = UmlGuest(Path(name), log_dir=tmp_path)
    assert run(fake, "/bin/true").result.outcome is Outcome.NOT_BOOTED
    with pytest.raises(UsageError, match="not a User-mode Linux kernel"):
        fake.release()


def test_a_kernel_without_init_does_not_boot(binary: Path, tmp_path: Path) -> None:
    text = f'#!/bin/bash\nexec {binary} "${{@/#init=*/init=/no/such/init}}"\n'
    result = run(UmlGuest(program(tmp_path / "k", text), log_dir=tmp_path), "/bin/true").result
    assert result.outcome is Outcome.NOT_BOOTED
    assert "/no/such/init" in result.reason


def test_a_guest_that_cannot_mount_says_what(guest: UmlGuest) -> None:
    result = run(guest, "/bin/true", shared=[(Path("/etc/passwd"), "/tmp/results")]).result
    assert result.outcome is Outcome.NOT_BOOTED
    assert "mount hostfs" in result.reason


def test_a_kernel_that_never_gets_anywhere_does_not_boot(tmp_path: Path) -> None:
    stuck = program(tmp_path / "k", "#!/bin/sh\necho on its way\nexec sleep 1000\n")
    result = run(UmlGuest(stuck, log_dir=tmp_path), "/bin/true", boot_limit=1).result
    assert result.outcome is Outcome.NOT_BOOTED
    assert result.reason == "on its way"
    assert guest_processes(Path("/bin/sleep"), "1000") == []


def test_a_broken_program_does_not_boot(tmp_path: Path) -> None:
    broken = program(tmp_path / "k", "\x7fELF and no more")
    result = run(UmlGuest(broken, log_dir=tmp_path), "/bin/true").result
    assert result.outcome is Outcome.NOT_BOOTED
    assert "cannot execute" in result.reason


def test_a_path_that_cannot_be_a_kernel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    for path in (tmp_path / "none", tmp_path / "plain", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            UmlGuest(path)
    with pytest.raises(UsageError, match="1T"):
        UmlGuest(Path("/bin/true"), memory="1T")


def test_release(binary: Path) -> None:
    assert UmlGuest(binary).release().startswith("6.12.")


def test_memory_that_the_host_does_not_have_is_an_error(binary: Path) -> None:
    with pytest.raises(SetupError, match="no directory with 99999999G free"):
        UmlGuest(binary, memory="99999999G").memory_dir()


# Life and death.


def test_two_at_once(binary: Path, tmp_path: Path) -> None:
    both_run = threading.Barrier(2, timeout=LIMIT)
    results: dict[str, GuestResult] = {}

    def one(name: str) -> None:
        guest = UmlGuest(binary, log_dir=tmp_path)
        # The barrier is passed only if each guest has said something while the other one was alive.
        results[name] = guest.run(["/bin/echo", name], on_stdout=lambda _: both_run.wait(), time_limit=LIMIT)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result.status for name, result in results.items()} == {"a": 0, "b": 0}


def processes() -> Iterator[tuple[int, int, list[str]]]:
    """Process id, group and command line of every process."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            group = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[2])
            yield int(path.name), group, path.joinpath("cmdline").read_text(errors="replace").split("\0")


def guest_processes(binary: Path, *words: str) -> list[int]:
    """Host processes of the program `binary`, with all those of their groups."""
    found = list(processes())
    groups = {group for _, group, line in found if line[0] == str(binary) and set(words) <= set(line)}
    return [pid for pid, group, _ in found if group in groups]


OWNER = """
    import sys
    from pathlib import Path
    from kernel.uml import UmlGuest
    guest = UmlGuest(Path(sys.argv[1]), log_dir=Path(sys.argv[2]))
    command = ["/bin/sh", "-c", "echo up; while :; do :; done"]
    guest.run(command, on_stdout=lambda data: print(data.decode(), flush=True))
"""


@pytest.fixture
def owned(binary: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process of its own that owns a running guest, and the guest's program, a copy to find its processes by."""
    copy = tmp_path / "linux"
    shutil.copy2(binary, copy)
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(copy), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        yield owner, copy
        owner.kill()


def all_gone(pids: list[int]) -> bool:
    """Wait until none of the processes is left; false when that takes too long."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            gone = poll.poll(10_000)
            os.close(fd)
            if not gone:
                return False
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_guest_dies_with_its_owner(owned: tuple[subprocess.Popen[str], Path], number: signal.Signals) -> None:
    owner, copy = owned
    pids = guest_processes(copy)
    assert len(pids) > 1, "a guest is several processes"
    owner.send_signal(number)
    owner.wait(20)
    assert all_gone(pids)
    assert guest_processes(copy) == []


def test_the_guest_dies_with_its_keeper(owned: tuple[subprocess.Popen[str], Path]) -> None:
    owner, copy = owned
    pids = guest_processes(copy)
    [keeper] = [pid for pid, _, line in processes() if str(copy) in line and line[0] == sys.executable and "-S" in line]
    os.kill(keeper, signal.SIGKILL)
    assert all_gone(pids)
    assert owner.wait(20) == 0, "the owner sees a lost guest, which is no error of its own"


def test_ctrl_c_leaves_no_directory(owned: tuple[subprocess.Popen[str], Path]) -> None:
    owner, copy = owned
    [line] = {tuple(line) for _, _, line in processes() if line[0] == str(copy)}
    private = Path(next(word for word in line if word.startswith("uml_dir=")).removeprefix("uml_dir="))
    assert private.is_dir()
    owner.send_signal(signal.SIGINT)
    owner.wait(20)
    assert not private.exists()


@pytest.fixture
def own_cache(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other guests of the same user come and go there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_a_killed_run_left_is_removed_and_nothing_else(
    own_cache: None, owned: tuple[subprocess.Popen[str], Path], guest: UmlGuest
) -> None:
    [alive] = guests_dir().iterdir()
    dead = guests_dir() / "left-by-a-killed-run"
    dead.mkdir()
    (dead / "spec").write_text("")
    assert run(guest, "/bin/true").result.status == 0
    assert list(guests_dir().iterdir()) == [alive]


# The console, without a guest.


def test_console_is_kept_whole_and_cut_anywhere(tmp_path: Path) -> None:
    text = "\r\n".join(["line", "x\udcff", "[    1.5] Oops: 0002", "Kernel panic - not syncing: VFS", "last"])
    data = text.encode(errors="surrogateescape")
    with Console(tmp_path / "log") as console:
        for i in range(len(data)):
            console.add(data[i : i + 1])
        console.finish()
    assert (tmp_path / "log").read_bytes() == data
    assert console.panic == "Kernel panic - not syncing: VFS"
    assert console.oops == "Oops: 0002"
    assert console.last() == "last"
    assert console.tail().splitlines()[1] == "x\ufffd"


def test_a_console_that_cannot_be_kept_is_an_error() -> None:
    with pytest.raises(SetupError, match="cannot write /dev/full: No space"), Console(Path("/dev/full")) as console:
        console.add(b"x")
    with pytest.raises(SetupError, match="cannot create /no/such/log: No such file"):
        Console(Path("/no/such/log"))


def test_console_knows_the_register_file_problem(tmp_path: Path) -> None:
    with Console(tmp_path / "log") as console:
        console.add(b"userspace - ptrace set fp regs failed, errno = 14\nKernel panic - not syncing: x\n")
    assert console.hint is not None
    assert "AMX" in console.hint
