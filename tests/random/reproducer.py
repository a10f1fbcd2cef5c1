# SPDX-License-Identifier: GPL-2.0-only
"""An example that failed, kept where `./run --play` finds it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from union.example import Example
from union.history import History
from union.spelling import spelled


def reproducer(example: Example | History) -> str:
    """The line that plays it again; it is written to a file of this process, which the next one replaces."""
    file = Path(tempfile.gettempdir(), f"ovl-detach-example-{os.getpid()}")
    file.write_text(spelled(example))
    return f"reproduce: ./run --play {file}"
