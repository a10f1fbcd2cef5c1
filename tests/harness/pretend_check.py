# SPDX-License-Identifier: GPL-2.0-only
"""A checkout of xfstests in miniature whose `./check` runs what we want: each test is a shell script of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.harness.pretend_xfstests import OVERLAY, golden, make_checkout, make_group_list, script

CHECK = '''\
#!/usr/bin/env python3
"""Prints and writes what ./check does. A test that exits with 77 was not run."""

import os, subprocess, sys
from xml.sax.saxutils import quoteattr

results = os.environ["RESULT_BASE"]
tests = [word for word in sys.argv[1:] if "/" in word]
assert sys.argv[1:4] == ["-overlay", "-R", "xunit"], sys.argv
cases = []


def report():
    kinds = [kind for _, kind in cases]
    counts = f'tests="{len(cases)}" failures="{kinds.count("failure")}" skipped="{kinds.count("skipped")}"'
    with open(f"{results}/result.xml", "w") as file:
        file.write(f'<?xml version="1.0"?><testsuite name="xfstests" {counts} time="{len(cases)}">')
        for name, kind in cases:
            inner = f"<{kind} message={quoteattr('it ' + kind)}/>" if kind else ""
            file.write(f'<testcase classname="xfstests.global" name="{name}" time="1">{inner}</testcase>')
        file.write("</testsuite>")


def say(text):
    print(text, end="", flush=True)


os.makedirs(f"{results}/overlay", exist_ok=True)
say("FSTYP         -- overlay\\n\\n")
if os.path.exists("refuse"):
    say("check: it does not want to\\n")
    sys.exit(1)
for test in tests:
    report()
    say(f"{test:12}")
    say("       ")
    with open(f"{results}/{test}.full", "w") as full:
        code = subprocess.call([f"tests/{test}"], stdout=full, stderr=full)
    kind = {0: "", 77: "skipped"}.get(code, "failure")
    cases.append((test, kind))
    say({"": " 1s\\n", "skipped": "[not run] it says so\\n", "failure": f"[failed, exit status {code}]\\n"}[kind])
report()
say("Ran: " + " ".join(tests) + "\\n")
sys.exit(any(kind == "failure" for _, kind in cases))
'''

PANIC = """\
echo 2 >/proc/sys/vm/panic_on_oom
exec python3 -c '
hoard = []
while True:
    hoard.append(bytearray(1 << 20))
'
"""
FAULT = "echo 'BUG: made up by a test' >/dev/kmsg\nexec sleep infinity\n"
HANG = "exec sleep infinity\n"
STUCK = 'kill -STOP $(ps -o ppid= $PPID)\nexec sleep infinity\n'
"""Stops who waits for ./check: the guest does not keep its own time."""


def make(top: Path, tests: Mapping[int, str], *, ours: Mapping[str, int] | None = None) -> Path:
    """A built checkout with tests of these numbers, each a shell script; `ours` are the names of some, as installed."""
    make_checkout(top, ())
    (top / "check").write_text(CHECK)
    for number, body in tests.items():
        groups = f"auto{' quick' if number % 2 else ''}{' nofollow' if number in (ours or {}).values() else ''}"
        path = top / OVERLAY / f"{number:03}"
        form = script("it", f"{number:03}", groups)
        path.write_text(f"#!/bin/bash\n: <<'END'\n{form}END\n{body}")  # the form is for readers of it only
        path.chmod(0o755)
        path.with_name(path.name + ".out").write_text(golden("it", f"{number:03}"))
    for name in ("include/builddefs", "ltp/fsstress", "ltp/fsx"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).touch()
    make_group_list(top)
    if ours is not None:
        record = {"version": 1, "tests": dict(ours), "files": {}, "group": True}
        (top / ".ovl-detach.json").write_text(json.dumps(record))
    return top
