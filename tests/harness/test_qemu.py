# SPDX-License-Identifier: GPL-2.0-only
"""A guest of QEMU with a distribution's kernel: what goes in and comes out, how it can end, and what KVM has to say.

Booting takes seconds where the CPU is emulated, so one guest shows several things.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel import accelerator, bzimage, distribution, qemu
from kernel.accelerator import KVM, TCG, Accelerator
from kernel.choice import guest_of
from kernel.console import Console
from kernel.errors import UsageError
from kernel.guest import GuestResult, Outcome
from kernel.modules import Modules
from kernel.paths import guests_dir
from kernel.progress import Silent
from kernel.qemu import QemuGuest
from kernel.requirements import find_program
from kernel.uml import UmlGuest
from kernel.watch import UntilMark

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 60.0  # seconds for anything that does not test a limit
OOPS = "BUG: made up by a test"


@pytest.fixture(scope="session")
def image() -> Path:
    return distribution.build("stock-debian-6.12", Silent()).image


@pytest.fixture
def guest(image: Path, tmp_path: Path) -> QemuGuest:
    return QemuGuest(image, log_dir=tmp_path / "logs")


def shell(guest: QemuGuest, script: str, **options: object) -> tuple[GuestResult, bytes, bytes]:
    out: list[bytes] = []
    err: list[bytes] = []
    options = {"time_limit": LIMIT, "boot_limit": LIMIT, **options}
    command = ["/bin/sh", "-c", script]
    result = guest.run(command, on_stdout=out.append, on_stderr=err.append, **options)  # type: ignore[arg-type]
    return result, b"".join(out), b"".join(err)


# What goes in and comes out.


def test_a_command_gets_what_it_was_given(guest: QemuGuest, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    script = """
        echo "$WORD" "$(uname -r)" "$(id -u)" "$(pwd)"
        echo to stderr >&2
        cat; ls /tmp; touch /etc/new
        grep -c -w -e overlay -e xfs /proc/filesystems
        echo written >/tmp/results/file
        exit 7
    """
    shared = [(tmp_path / "results", "/tmp/results")]
    result, out, err = shell(guest, script, env={"WORD": "ü b", "PATH": "/usr/bin:/bin"}, cwd="/usr", shared=shared)
    assert (result.outcome, result.status, result.cpus) == (Outcome.EXITED, 7, 1), result.explain()
    lines = out.decode().splitlines()
    assert lines[0] == f"ü b {guest.release()} 0 /usr"
    assert "results" in lines[1:-1]
    assert tmp_path.parts[2] not in lines[1:-1], "/tmp is fresh"
    assert lines[-1] == "2"
    assert b"to stderr\n" in err
    assert b"Read-only file system" in err
    assert (tmp_path / "results/file").read_text() == "written\n"
    assert list(guests_dir().glob(result.console_log.stem.removeprefix("console-"))) == []


def test_output_is_complete_and_eight_bit_clean(guest: QemuGuest) -> None:
    every = bytes(range(256)) * 2000
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 2000); sys.stderr.buffer.write(b'\\r\\n\\xff')"
    result, out, err = shell(guest, f'exec {sys.executable} -I -S -c "{code}"')
    assert (result.status, out == every, err) == (0, True, b"\r\n\xff")


def test_input_goes_in_and_a_fault_can_end_the_guest(guest: QemuGuest) -> None:
    data = bytes(range(256)) * 40
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    script = f"cat; sleep 0.5; echo '{OOPS}' >/dev/kmsg; sleep 2; echo after; exec sleep 1000"
    result, out, _ = shell(guest, script, stdin=reader, end_at_fault=True)
    os.close(reader)
    assert (result.outcome, result.status, result.reason) == (Outcome.OOPS, None, OOPS)
    assert out == data


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_mark_of_the_end_does_not_get_through(size: int) -> None:
    mark, text = b"aab", b"a-aa-ab" * 3 + b"a"
    for data, seen in ((text + mark, True), (text, False)):
        got: list[bytes] = []
        end = UntilMark(got.append, mark)
        for start in range(0, len(data), size):
            end(data[start : start + size])
        end.finish()
        assert (b"".join(got), end.seen) == (text, seen)


# How it can end.


def test_panic(guest: QemuGuest) -> None:
    result, _, _ = shell(guest, "echo c >/proc/sysrq-trigger")
    assert (result.outcome, result.status) == (Outcome.PANIC, None)
    assert result.reason == "Kernel panic - not syncing: sysrq triggered crash"
    assert result.reason in result.console_log.read_text()


def test_hang(guest: QemuGuest) -> None:
    result, out, _ = shell(guest, "echo before; exec sleep 1000", time_limit=0.5)
    assert (result.outcome, result.status, out) == (Outcome.HANG, None, b"before\n")
    assert result.booted is not None
    assert result.seconds - result.booted < 30


def test_lost_when_its_process_is_killed(image: Path, tmp_path: Path) -> None:
    # A copy, to find this guest's processes by; its modules are not beside it then, and none are needed.
    guest = QemuGuest(Path(shutil.copy2(image, tmp_path / "bzImage")), log_dir=tmp_path)
    group: list[int] = []

    def kill(_: bytes) -> None:
        group.extend(group_of(guest.kernel))
        [machine] = [pid for pid, _, line in processes() if str(guest.kernel) in line and "qemu" in line[0]]
        os.kill(machine, signal.SIGKILL)

    result = guest.run(["/bin/sh", "-c", "echo up; exec sleep 1000"], on_stdout=kill, time_limit=LIMIT)
    assert (result.outcome, result.status) == (Outcome.LOST, None)
    assert len(group) > 1, "a guest is several processes"
    assert all_gone(group)


def test_what_is_no_kernel_does_not_boot(image: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bzImage"
    broken.write_bytes(image.read_bytes()[: 1 << 16] + bytes(1 << 20))
    guest = QemuGuest(broken, log_dir=tmp_path)
    assert guest.release() == bzimage.release(image)
    result, _, _ = shell(guest, "true", boot_limit=0.3)
    assert (result.outcome, result.booted) == (Outcome.NOT_BOOTED, None)


def test_a_kernel_that_cannot_mount_its_root_is_told_what_it_lacks(tmp_path: Path) -> None:
    with Console(tmp_path / "log") as console:
        console.add(b"[    1.8] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n")
    assert console.hint == "the kernel must have virtio-pci and virtio-fs built in, not as modules"


def test_what_cannot_be_a_guest_is_refused(image: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no kernel")
    nameless = bytearray(image.read_bytes()[: 1 << 16])
    nameless[0x20E:0x210] = b"\0\0"
    (tmp_path / "nameless").write_bytes(nameless)
    for name, complaint in {"none": "No such file", "plain": "not a bzImage", "nameless": "its release"}.items():
        with pytest.raises(UsageError, match=complaint):
            QemuGuest(tmp_path / name)
    for cpus in (0, 9):
        with pytest.raises(UsageError, match=f"{cpus} CPUs"):
            QemuGuest(image, cpus=cpus)
    with pytest.raises(UsageError, match="1T"):
        QemuGuest(image, memory="1T")


def test_the_file_says_what_kind_of_guest_it_makes(image: Path) -> None:
    assert isinstance(guest_of(image), QemuGuest)
    assert isinstance(guest_of(Path("/bin/true")), UmlGuest)


OWNER = """
    import sys
    from pathlib import Path
    from kernel.qemu import QemuGuest
    guest = QemuGuest(Path(sys.argv[1]), log_dir=Path(sys.argv[2]))
    command = ["/bin/sh", "-c", "echo up; while :; do :; done"]
    guest.run(command, on_stdout=lambda data: print(data.decode(), flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_guest_dies_with_its_owner(image: Path, tmp_path: Path, number: signal.Signals) -> None:
    copy = Path(shutil.copy2(image, tmp_path / "bzImage"))
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(copy), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        group = group_of(copy)
        [log] = tmp_path.glob("console-*.log")
        private = guests_dir() / log.stem.removeprefix("console-")
        assert private.is_dir()
        owner.send_signal(number)
        owner.wait(20)
    assert len(group) > 1, "a guest is several processes"
    assert all_gone(group)
    assert group_of(copy) == []
    assert private.exists() == (number is signal.SIGKILL), "what a killed run left is removed by the next one"


def processes() -> Iterator[tuple[int, int, list[str]]]:
    """Process id, group and command line of every process."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            group = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[2])
            yield int(path.name), group, path.joinpath("cmdline").read_text(errors="replace").split("\0")


def group_of(kernel: Path) -> list[int]:
    """The processes of the guest of `kernel`: QEMU, with all those of its group."""
    found = list(processes())
    groups = {group for _, group, line in found if str(kernel) in line and "qemu" in line[0]}
    return [pid for pid, group, _ in found if group in groups]


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


# KVM, or not.


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("read word; test $word = quit", None),
        ("echo 'qemu-system-x86_64: failed to initialize kvm: x' >&2; exit 1", "failed to initialize kvm: x"),
        ("kill -ABRT $$", "an empty machine ends with -6"),
        ("exec sleep 1000", "an empty machine hangs"),
    ],
)
def test_kvm_is_found_out_by_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str | None
) -> None:
    monkeypatch.setattr(accelerator, "_LIMIT", 1.0)
    device = tmp_path / "kvm"
    device.touch()
    assert accelerator.unusable(device, str(program(tmp_path / "qemu", script))) == reason


def test_a_device_that_cannot_be_opened_is_no_kvm(tmp_path: Path) -> None:
    assert accelerator.unusable(tmp_path / "kvm") == f"{tmp_path}/kvm: No such file or directory"


def test_emulation_is_said_and_has_longer_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(accelerator, "unusable", lambda: "it is broken")
    assert accelerator.accelerators(said.append) == (TCG,)
    assert said == ["guest: no KVM (it is broken), so its CPU is emulated (TCG); limits are 10 times as long"]
    monkeypatch.setattr(accelerator, "unusable", lambda: None)
    assert accelerator.accelerators(said.append) == (KVM, TCG)
    assert len(said) == 1


def test_when_kvm_gives_up_the_guest_is_emulated(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_program("qemu-system-x86_64")
    fake = f'case "$*" in *made-up*) echo "KVM internal error. Suberror: 1"; exec sleep 1000;; esac; exec {real} "$@"'
    program(tmp_path / "qemu-system-x86_64", fake)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    broken = Accelerator("KVM", ("-made-up",), 1)
    monkeypatch.setattr(qemu, "accelerators", lambda say: (broken, TCG))
    said: list[str] = []
    result, out, _ = shell(QemuGuest(image, log_dir=tmp_path, say=said.append), "echo up")
    assert (result.status, out) == (0, b"up\n")
    [line] = said
    assert line.startswith("guest: it does not boot with KVM, trying TCG: the guest did not boot: KVM internal error")


# Modules.


def test_modules_beside_the_kernel_come_before_those_installed(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    kernel = tmp_path / "boot/vmlinuz-1.2.3"
    assert Modules.of(kernel, "1.2.3") is None
    directory = tmp_path / "lib/modules/1.2.3"
    directory.mkdir(parents=True)
    assert Modules.of(kernel, "1.2.3") is None, "depmod was not there"
    (directory / "modules.dep").touch()
    assert Modules.of(kernel, "1.2.3") == Modules(tmp_path, "1.2.3")
