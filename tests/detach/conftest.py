# SPDX-License-Identifier: GPL-2.0-only
"""Kernels for the tests of this folder, built at need and shared with `./run` through the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.build import build


@pytest.fixture(scope="session")
def patched() -> Path:
    """The kernel with the reference patches."""
    return build("6.12").path


@pytest.fixture(scope="session")
def stock() -> Path:
    """The same kernel without them."""
    return build("stock-6.12").path
