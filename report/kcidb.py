# SPDX-License-Identifier: GPL-2.0-only
"""KCIDB JSON, schema version 5.3 of kernelci's kcidb-io: a test object per scenario."""

from __future__ import annotations

import json
import re
import socket
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from report.events import Outcome
from report.results import Case, Results

VERSION: Final = {"major": 5, "minor": 3}
EXCERPT_MAX: Final = 16384  # characters
_STATUS: Final = {
    Outcome.PASSED: "PASS",
    Outcome.FAILED: "FAIL",
    Outcome.ERROR: "ERROR",
    Outcome.SKIPPED: "SKIP",
    Outcome.EXPECTED: "DONE",  # neither good nor bad news
}


def write(results: Results, origin: str, build: str, started: datetime | None = None) -> str:
    """The document. `origin` is the name of the CI system (lower-case letters, digits, _), `build` KCIDB's id of the
    kernel's build, which begins with it.
    """
    begin = (started or datetime.now(UTC)).isoformat()
    run = uuid.uuid4().hex
    tests = [_test(results, case, f"{origin}:{run}-{n}", origin, build, begin) for n, case in enumerate(results.cases)]
    return json.dumps({"version": VERSION, "tests": tests}, indent=1) + "\n"


def _test(results: Results, case: Case, identity: str, origin: str, build: str, begin: str) -> dict[str, Any]:
    test: dict[str, Any] = {
        "id": identity,
        "build_id": build,
        "origin": origin,
        "path": path(case),
        "comment": _clean(case.label),
        "status": _STATUS[case.outcome],
        "start_time": begin,
        "duration": round(case.seconds, 3),
        "environment": {"comment": socket.gethostname()},
        "misc": {"reproduce": results.reproducer(case), **{n: "; ".join(v) for n, v in results.evidence.items()}},
    }
    if case.complaints:
        test["log_excerpt"] = _clean("\n".join(case.complaints))[:EXCERPT_MAX]
    return test


def _clean(text: str) -> str:
    """The schema takes no NUL."""
    return text.replace("\0", "\\0")


def path(case: Case) -> str:
    """`ovl_detach.after.rename_file.rename-file.3`: words of letters, digits, _ and -, the most general first."""
    moment = case.stage.rpartition("=")[2]
    words = ["ovl_detach", moment, case.family, case.group, str(case.number or "")]
    return ".".join(re.sub("[^a-zA-Z0-9_-]+", "_", word) for word in words if word)
