# SPDX-License-Identifier: GPL-2.0-only
"""The pytest face: the plugins of the project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent

# Every worker and every child process finds the packages, wherever pytest was started.
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))

pytest_plugins = ["tests.guest_workers", "tests.scenario_items"]
