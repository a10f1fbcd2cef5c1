# SPDX-License-Identifier: GPL-2.0-only
"""Random trees and operations, and searches through small worlds: what no scenario says."""

import os
from typing import Final

PROFILE: Final = os.environ.get("OVL_DETACH_PROFILE", "quick")
"""How much is tried: quick, nightly or soak."""
