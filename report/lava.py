# SPDX-License-Identifier: GPL-2.0-only
"""LAVA's `result.txt`: a line `NAME pass|fail|skip|unknown` per scenario, names unique and of [A-Za-z0-9_-] alone."""

from __future__ import annotations

import re
from collections import Counter

from report.events import Outcome
from report.results import Case, Results

_WORDS = {
    Outcome.PASSED: "pass",
    Outcome.FAILED: "fail",
    Outcome.SKIPPED: "skip",
    Outcome.ERROR: "unknown",
    Outcome.EXPECTED: "pass",  # LAVA knows no other word for what is as it was expected
}


def write(results: Results) -> str:
    """The document."""
    seen: Counter[str] = Counter()
    lines = []
    for case in results.cases:
        name = slug(case)
        seen[name] += 1
        unique = f"{name}_{seen[name]}" if seen[name] > 1 else name
        lines.append(f"{unique} {_WORDS[case.outcome]}\n")
    return "".join(lines)


def slug(case: Case) -> str:
    """`rename-file_3`, with the stage behind it if there are several; `check_D2_D3` for a check."""
    text = case.selector.replace(":", "_") if case.number else f"check_{case.selector}"
    moment = case.stage.rpartition("=")[2]
    return re.sub("[^A-Za-z0-9_-]+", "_", f"{text}_{moment}" if moment else text)
