# SPDX-License-Identifier: GPL-2.0-only
"""`xfstests-overlay/check` with a checkout that only pretends: words, names, results, guests that are lost."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from junitparser import JUnitXml, TestSuite

from kernel.build import build
from kernel.progress import Silent
from overlay_xfstests import check_command, check_options, users
from overlay_xfstests.check_options import Options
from overlay_xfstests.transcript import Transcript
from tests.harness import pretend_check
from tests.harness.isolated import isolated, needs_mounts, needs_overlay
from tests.harness.pretend_check import FAULT, HANG, PANIC, STUCK
from tests.harness.pretend_xfstests import tree
from tests.harness.trouble import in_use
from union import syscalls
from union.errors import Unsupported

PROGRAM = Path(__file__).resolve().parents[2] / "xfstests-overlay/check"
LIMIT = 300  # seconds
SMALL = ("--fs=ext4", "--size=64M", "--memory=512M")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One with tests that pass, of which one is ours."""
    return pretend_check.make(tmp_path / "xfstests", {1: "", 2: "", 3: "", 12: ""}, ours={"detach": 12})


@pytest.fixture
def kernel() -> Path:
    return build("stock-6.12", progress=Silent()).path


def check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=LIMIT)


def suite(results: Path) -> TestSuite:
    """The report, as junitparser reads it."""
    found = JUnitXml.fromfile(str(results / "result.xml"))
    return found if isinstance(found, TestSuite) else next(iter(found))  # its versions differ in this


def verdicts(results: Path) -> dict[str, str]:
    """Each test of the report and what it was."""
    return {
        str(case.name): ", ".join(type(result).__name__.lower() for result in case.result) or "passed"
        for case in suite(results)
    }


# Words --------------------------------------------------------------------------------------------


def parsed(*words: str | Path) -> Options:
    return check_options.parse([str(word) for word in words])


def test_what_words_choose(checkout: Path) -> None:
    choices = {
        (): "012",
        ("detach",): "012",
        ("-g", "overlay/nofollow"): "012",
        ("overlay/001",): "001",
        ("003", "001", "003"): "001 003",
        ("00?",): "001 002 003",
        ("overlay/*",): "001 002 003 012",
        ("-g", "quick"): "001 003",
        ("-g", "overlay/quick", "-e", "003"): "001",
        ("-g", "all"): "001 002 003 012",
        ("-g", "auto", "-x", "quick,nofollow"): "002",
        ("-g", "quick,nofollow", "-e", "001,detach"): "003",
        ("-g", "quick", "002"): "001 002 003",
    }
    for words, numbers in choices.items():
        assert parsed(checkout, *words).tests == tuple(f"overlay/{n}" for n in numbers.split()), words


def test_words_may_come_in_any_order(checkout: Path) -> None:
    one = parsed(checkout, "001", "--kernel=7.2", "-e", "002", "--fs=ext4")
    assert one == parsed("--fs=ext4", "-e", "002", checkout, "--kernel=7.2", "001")
    assert (one.fs, one.kernel, one.size) == ("ext4", "7.2", 12 << 30)


@pytest.mark.parametrize("text", ["xino=nofollow,index=on", "-o xino=nofollow,index=on"])
def test_mount_options_are_taken_in_both_forms(text: str, checkout: Path) -> None:
    assert parsed(checkout, f"--mount-options={text}").mount_options == "-o xino=nofollow,index=on"


WRONG = {
    "unknown option": (["--colour"], "unrecognized arguments: --colour"),
    "no such test": (["031"], "031: .* has no such test$"),
    "a test without a file": (["007"], "007: .* has no such test$"),
    "no such name": (["passes"], "passes: .* has no such test; those of the suite get there by .*/install "),
    "no such group": (["-g", "overlay/quicker"], "overlay/quicker: .* has no such group$"),
    "no such excluded group": (["-g", "quick", "-x", "slow"], "slow: .* has no such group$"),
    "a group of elsewhere": (["-g", "generic/quick"], "generic/quick: .* has no such group$"),
    "nothing left": (["001", "-e", "001"], "no test is left to run"),
    "a size": (["--size=12"], "--size=12: a size is like"),
    "a filesystem": (["--fs=btrfs"], "invalid choice: 'btrfs'"),
    "jobs": (["--jobs=0"], "--jobs takes"),
    "a time limit": (["--time-limit=0"], "--time-limit takes"),
    "mount options": (["--mount-options=xino nofollow"], "--mount-options=xino nofollow: "),
    "a kernel's source": (["--kernel-source=/nowhere"], "/nowhere does not exist"),
    "a blank in the results": (["--results=/tmp/a b"], "no blanks"),
    "results where all is fresh": (["--results=/tmp"], "/tmp: name a directory in it"),
    "a kernel": (["--kernel=2.6"], "2.6: no such kernel"),
}


@pytest.mark.parametrize(("words", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_word_is_one_line_and_touches_nothing(words: list[str], complaint: str, checkout: Path) -> None:
    with (checkout / "tests/overlay/group.list").open("a") as file:
        file.write("007 auto\n")
    before = tree(checkout.parent)
    done = check(checkout, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert re.search(complaint, done.stderr, re.MULTILINE), done.stderr
    assert tree(checkout.parent) == before


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    for words in ([], [tmp_path], [tmp_path / "missing"]):
        done = check(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done


def test_a_blank_in_the_path_of_the_checkout_is_refused(tmp_path: Path) -> None:
    done = check(pretend_check.make(tmp_path / "x y", {1: ""}), "001")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "no blanks" in done.stderr


def test_without_our_tests_install_is_named(checkout: Path) -> None:
    (checkout / ".ovl-detach.json").unlink()
    (checkout / "tests/overlay/group.list").write_text("001 auto quick\n")
    for words in ([], ["detach"], ["-g", "overlay/nofollow"]):
        done = check(checkout, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert done.stderr.endswith(f"get there by xfstests-overlay/install {checkout}\n")


@pytest.mark.parametrize("lacking", ["ltp/fsstress", "ltp/fsx", "include/builddefs", "tests/overlay/group.list"])
def test_what_is_not_built_names_build(lacking: str, checkout: Path) -> None:
    (checkout / lacking).unlink()
    done = check(checkout, "001")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done
    assert lacking in done.stderr and done.stderr.endswith(f"xfstests-overlay/build {checkout}\n")


def test_the_running_kernel_needs_root(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(Unsupported, match="--kernel=native: mounting needs root"):
        check_command.main(["--kernel=native", str(checkout), "001"])


# Parts --------------------------------------------------------------------------------------------


def test_a_test_is_known_as_soon_as_it_starts() -> None:
    text = b"FSTYP  -- overlay\n\noverlay/001  \t 3s\noverlay/002        [failed]\n    overlay/003 x\noverlay/01"
    for cuts in range(1, 20):
        transcript = Transcript(["overlay/001", "overlay/002", "overlay/003", "overlay/010"])
        heard = [transcript.add(text[at : at + cuts]) for at in range(0, len(text), cuts)]
        assert transcript.started == ["overlay/001", "overlay/002"]
        assert sum(heard) in (1, 2) and transcript.line_is_open
        assert transcript.add(b"0 ") and transcript.started[2:] == ["overlay/010"]
        transcript.add(b" 1s\nRan: overlay/003\noverlay/003 - unknown test, ignored\n")
        assert transcript.started[3:] == [] and not transcript.line_is_open


PASSWD = "root:x:0:0::/root:/bin/sh\nfsgqa2:x:4200:4200::/:/bin/sh\n"
GROUP = "root:x:0:\nfsgqa2:x:4200:\nfsgqa:x:900:"


def test_users_that_are_missing_are_added_and_nothing_else() -> None:
    passwd, group = users.extended(PASSWD, GROUP)
    assert passwd == (
        f"{PASSWD}fsgqa:*:4201:900:for xfstests:/:/bin/bash\n123456-fsgqa:*:4203:4203:for xfstests:/:/bin/bash\n"
    )
    assert group == f"{GROUP}\n123456-fsgqa:*:4203:\n"
    assert users.extended(passwd, group) == (passwd, group)


# In a guest ---------------------------------------------------------------------------------------

LOOK = """\
mount "$TEST_DEV" "$TEST_DIR" && mount "$SCRATCH_DEV" "$SCRATCH_MNT" || exit
findmnt -no FSTYPE -M "$TEST_DIR"
umount "$TEST_DIR" "$SCRATCH_MNT"
for user in fsgqa fsgqa2 123456-fsgqa; do
    getent group $user >/dev/null && su $user -c "id -un" || exit
done
python3 -c "import tabulate, tqdm; print('libraries')"
test -x "$UNIONMOUNT_TESTSUITE/run" -a -f "$HOST_OPTIONS" -a ! -s "$HOST_OPTIONS" && echo suite
echo "options: $OVERLAY_MOUNT_OPTIONS, $FSTYP, $SECRET"
! touch here 2>/dev/null && echo "read-only: $PWD"
"""
SEEN = "ext4\nfsgqa\nfsgqa2\n123456-fsgqa\nlibraries\nsuite\noptions: -o index=on, ext4, \n"


def test_a_run_in_a_guest(tmp_path: Path, kernel: Path) -> None:
    checkout = pretend_check.make(tmp_path / "xfstests", {1: "", 2: "exit 77", 3: LOOK, 4: "echo so; exit 5"})
    (checkout / "local.config").write_text("export SECRET=interferes\n")
    results = tmp_path / "results"
    done = check(checkout, "overlay/*", f"--kernel={kernel}", f"--results={results}", "--mount-options=index=on",
                 *SMALL)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert (results / "overlay/003.full").read_text() == f"{SEEN}read-only: {checkout}\n"
    assert (results / "overlay/004.full").read_text() == "so\n"
    assert "overlay/004        [failed, exit status 5]\nRan: " in done.stdout
    assert done.stdout.endswith(f"\n2 passed, 1 failed, 1 not run\nresults: {results}\n")
    assert verdicts(results) == {
        "overlay/001": "passed", "overlay/002": "skipped", "overlay/003": "passed", "overlay/004": "failure"
    }  # fmt: skip
    assert [path.name[:8] for path in results.glob("*.log")] == ["console-"]


@needs_mounts
@pytest.mark.parametrize("where", ["guest", "native"])
@isolated
def test_users_that_the_machine_lacks_are_there(where: str, tmp_path: Path, kernel: Path) -> None:
    for name in ("passwd", "group"):
        lines = Path("/etc", name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(line for line in lines if "fsgqa" not in line))
        syscalls.mount(str(tmp_path / name), f"/etc/{name}", None, syscalls.MS_BIND)
    assert subprocess.run(["id", "fsgqa"], capture_output=True).returncode == 1
    look = "".join(f"su {user} -c 'id -un; id -gn'; " for user in users.USERS)
    checkout, results = pretend_check.make(tmp_path / "x", {1: look}), tmp_path / "results"
    which = "native" if where == "native" else str(kernel)
    done = check(checkout, "001", f"--kernel={which}", f"--results={results}", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert (results / "overlay/001.full").read_text().split() == [name for name in users.USERS for _ in range(2)]
    assert "fsgqa" not in Path("/etc/passwd").read_text()


@pytest.mark.parametrize(("body", "code"), [("", 0), ("exit 1", 1), ("exit 77", 4)])
def test_exit_codes(body: str, code: int, tmp_path: Path, kernel: Path) -> None:
    done = check(pretend_check.make(tmp_path / "x", {7: body}), "007", f"--kernel={kernel}", *SMALL)
    assert (done.returncode, done.stderr) == (code, "")
    [results] = re.findall(r"^results: (/.*/ovl-detach/xfstests/\d{8}-\d{6}-\d+)$", done.stdout, re.MULTILINE)
    assert Path(results, "overlay/007.full").exists()


LOSSES = {
    "panic": (PANIC, "the kernel panicked: Kernel panic - not syncing: Out of memory"),
    "fault": (FAULT, "the kernel reported a fault: BUG: made up by a test"),
    "hang": (HANG, "it took longer than 5 s"),
    "stuck": (STUCK, "the time limit passed"),
}


@pytest.mark.parametrize(("body", "why"), LOSSES.values(), ids=LOSSES.keys())
def test_a_lost_guest_costs_the_test_that_ran(body: str, why: str, tmp_path: Path, kernel: Path) -> None:
    checkout = pretend_check.make(tmp_path / "x", {1: "", 2: body, 3: "", 4: body, 5: "exit 77"})
    results = tmp_path / "results"
    limit = ["--time-limit=5"] if body in (HANG, STUCK) else []
    done = check(checkout, "00?", f"--kernel={kernel}", f"--results={results}", *SMALL, *limit)
    assert (done.returncode, done.stderr) == (1, "")
    assert verdicts(results) == {
        "overlay/001": "passed", "overlay/002": "failure", "overlay/003": "passed", "overlay/004": "failure",
        "overlay/005": "skipped"
    }  # fmt: skip
    found = suite(results)
    assert (found.tests, found.failures, found.errors, found.skipped) == (5, 2, 0, 1)
    assert f"\noverlay/002 FAILED: {why}" in done.stdout and "\ngoing on after it, with 3 more\n" in done.stdout
    assert done.stdout.endswith(f"\n2 passed, 2 failed, 1 not run\nresults: {results}\n")
    for number in ("002", "004"):
        kept = (results / f"overlay/{number}.dmesg").read_text()
        assert kept.startswith(why) and len(kept.splitlines()) > 10, kept
    assert not (results / "overlay/003.dmesg").exists()
    assert sorted(path.name for path in results.glob("*.xml")) == ["result.xml"]
    assert len(list(results.glob("console-*.log"))) == 3


def test_several_jobs_give_one_tree_of_results(tmp_path: Path, kernel: Path) -> None:
    times = 'echo "overlay/00$(($# + 1)) 1" >>$RESULT_BASE/check.time; echo "${0##*/}" >>$RESULT_BASE/check.log\n'
    checkout = pretend_check.make(tmp_path / "x", {1: times, 2: times + FAULT, 3: "exit 1", 4: times, 5: "exit 77"})
    results = tmp_path / "results"
    words = [str(checkout), "00?", f"--kernel={kernel}", f"--results={results}", "--jobs=2", *SMALL]
    for _ in range(2):  # the second time with the results of the first one
        done = check(*words)
        assert (done.returncode, done.stderr) == (1, "")
        assert verdicts(results) == {
            "overlay/001": "passed", "overlay/002": "failure", "overlay/003": "failure", "overlay/004": "passed",
            "overlay/005": "skipped"
        }  # fmt: skip
        assert f"    (see {results}/overlay/002.dmesg)\n" in done.stdout and "part-" not in done.stdout
        assert done.stdout.count("FSTYP ") == 3
        assert done.stdout.endswith(f"\n2 passed, 2 failed, 1 not run\nresults: {results}\n")
        assert not list(results.glob("part-*")) and (results / "overlay/004.full").exists()
        assert (results / "check.time").read_text() == "overlay/001 1\n"
    assert sorted((results / "check.log").read_text().split()) == sorted(["001", "002", "004"] * 2)


def test_a_job_that_cannot_be_set_up_is_named(tmp_path: Path, kernel: Path) -> None:
    checkout = pretend_check.make(tmp_path / "x", {1: "", 2: "touch /refuse"})
    (checkout / "refuse").touch()
    done = check(checkout, "00?", f"--kernel={kernel}", "--jobs=2", *SMALL)
    assert (done.returncode, done.stderr.count("no test was begun")) == (3, 2)
    assert done.stderr.endswith("xfstests-overlay/check: 2 of 2 jobs could not be carried out\n")


def test_a_check_that_runs_nothing_is_no_failed_test(tmp_path: Path, kernel: Path) -> None:
    checkout = pretend_check.make(tmp_path / "x", {1: ""})
    (checkout / "refuse").touch()
    done = check(checkout, "001", f"--kernel={kernel}", *SMALL)
    assert done.returncode == 3
    assert done.stderr == "xfstests-overlay/check: no test was begun: check: it does not want to\n"


def test_devices_that_cannot_be_made_are_one_line(tmp_path: Path, kernel: Path) -> None:
    checkout = pretend_check.make(tmp_path / "x", {1: ""})
    done = check(checkout, "001", f"--kernel={kernel}", "--size=20M", "--fs=xfs")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "mkfs.xfs /dev/loop0: " in done.stderr


# On the running kernel ----------------------------------------------------------------------------

LEAVE = """\
for device in "$TEST_DEV" "$SCRATCH_DEV"; do
    echo "$device $(cat /sys/block/${device#/dev/}/diskseq)"
done
mount "$TEST_DEV" "$TEST_DIR" && mount "$SCRATCH_DEV" "$SCRATCH_MNT" || exit
for image in "$TEST_DIR/image" /tmp/image; do
    truncate -s 1M $image
    device=$(losetup -f --show $image) || exit
    echo "$device $(cat /sys/block/${device#/dev/}/diskseq)"
done
setsid sleep MARK &
cp /proc/self/mountinfo "$RESULT_BASE/mounts"
pwd -P
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


def nothing_stays(results: Path, mark: str, temporary: Path) -> bool:
    """That it was there, and that it is gone: four loop devices, mounts, a process, files."""
    lines = (results / "overlay/001.full").read_text().splitlines()[:4]
    devices = [(Path("/sys/block", Path(line.split()[0]).name), f"{line.split()[1]}\n") for line in lines]
    assert len(devices) == 4 and "ovl-xfstests/scratch" in (results / "mounts").read_text()
    here = "ovl-xfstests" in Path("/proc/self/mountinfo").read_text() or Path("/tmp/ovl-xfstests").exists()
    processes = [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"\0{mark}\0".encode() in _reads(path)]
    return not (any(in_use(*device) for device in devices) or here or processes or list(temporary.iterdir()))


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def leaving(top: Path, more: str) -> tuple[Path, str]:
    """A checkout with a test that leaves all that it can, then does `more`; what tells its process."""
    mark = str(random.randrange(10**8, 10**9))
    return pretend_check.make(top, {1: LEAVE.replace("MARK", mark) + more, 2: ""}), mark


@needs_overlay
def test_a_run_here_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    checkout, mark = leaving(tmp_path / "x", "cat /etc/passwd >$RESULT_BASE/passwd; touch written")
    results = tmp_path / "results"
    before = Path("/etc/passwd").read_bytes()
    done = check(checkout, "00?", "--kernel=native", f"--results={results}", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\n2 passed, 0 failed, 0 not run\nresults: {results}\n")
    assert verdicts(results) == {"overlay/001": "passed", "overlay/002": "passed"}
    assert nothing_stays(results, mark, temporary)
    assert (results / "overlay/001.full").read_text().endswith(f"\n{checkout}\n")
    assert {"fsgqa", "fsgqa2", "123456-fsgqa"} <= set((results / "passwd").read_text().replace("\n", ":").split(":"))
    assert Path("/etc/passwd").read_bytes() == before


@needs_overlay
def test_a_test_that_hangs_here_costs_itself(tmp_path: Path, temporary: Path) -> None:
    checkout, mark = leaving(tmp_path / "x", HANG)
    results = tmp_path / "results"
    done = check(checkout, "00?", "--kernel=native", f"--results={results}", "--time-limit=2", *SMALL)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\noverlay/001 FAILED: it took longer than 2 s\n" in done.stdout
    assert verdicts(results) == {"overlay/001": "failure", "overlay/002": "passed"}
    assert nothing_stays(results, mark, temporary)


ENDS = {
    signal.SIGINT: (130, "xfstests-overlay/check: interrupted\n"),
    signal.SIGTERM: (143, ""),
    signal.SIGKILL: (-signal.SIGKILL, ""),
}


@needs_overlay
@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_an_ended_run_here_leaves_nothing(number: signal.Signals, tmp_path: Path, temporary: Path) -> None:
    cleanup = "trap 'touch $RESULT_BASE/clean' EXIT\ntrap 'exit 1' TERM\n"
    checkout, mark = leaving(tmp_path / "x", f"{cleanup}echo ready >$RESULT_BASE/ready\nsleep infinity\n")
    results = tmp_path / "results"
    results.mkdir()
    os.mkfifo(results / "ready")
    words = [str(checkout), "00?", "--kernel=native", f"--results={results}", *SMALL]
    with subprocess.Popen([sys.executable, PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:  # fmt: skip
        assert (results / "ready").read_text() == "ready\n"
        assert not nothing_stays(results, mark, temporary), "nothing to be left behind"
        [helper] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        alive = os.pidfd_open(int(helper))
        process.send_signal(number)
        _, err = process.communicate(timeout=LIMIT)
        assert select.select([alive], [], [], LIMIT)[0]
        os.close(alive)
    assert (process.returncode, err) == ENDS[number]
    assert nothing_stays(results, mark, temporary)
    assert (results / "clean").exists(), "the test had no time to clear up"


@needs_overlay
def test_ended_jobs_leave_nothing(tmp_path: Path, temporary: Path) -> None:
    checkout, mark = leaving(tmp_path / "x", "echo ready >ready\nsleep infinity\n")
    results = tmp_path / "results"
    os.mkfifo(checkout / "ready")
    words = [str(checkout), "00?", "--kernel=native", f"--results={results}", "--jobs=2", *SMALL]
    with subprocess.Popen([sys.executable, PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:  # fmt: skip
        assert (checkout / "ready").read_text() == "ready\n"
        assert not nothing_stays(results / "part-1", mark, temporary), "nothing to be left behind"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err.splitlines()[-1]) == (130, "xfstests-overlay/check: interrupted")
    assert nothing_stays(results, mark, temporary)


# The real one -------------------------------------------------------------------------------------


@pytest.mark.skipif("XFSTESTS" not in os.environ, reason="XFSTESTS names no built checkout of xfstests")
def test_tests_of_xfstests_pass_in_a_guest(tmp_path: Path, kernel: Path) -> None:
    results = tmp_path / "results"
    done = check(os.environ["XFSTESTS"], "002", "overlay/031", f"--kernel={kernel}", f"--results={results}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert verdicts(results) == {"overlay/002": "passed", "overlay/031": "passed"}
    found = suite(results)
    assert (found.tests, found.failures, found.skipped) == (2, 0, 0)
    assert {"check.log", "check.time", "result.xml"} <= set(os.listdir(results))
