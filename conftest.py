# SPDX-License-Identifier: GPL-2.0-only
"""The pytest face: the plugins of the project."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent

# Every worker and every child process finds the packages, wherever pytest was started.
FOLDERS = [str(CHECKOUT), str(CHECKOUT / "xfstests-overlay")]
sys.path[:0] = [folder for folder in FOLDERS if folder not in sys.path]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*FOLDERS, os.environ.get("PYTHONPATH", "")]))

# In a job in the background SIGINT is ignored, and by all that it starts: tests would wait for what they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.guest_workers", "tests.scenario_items"]
