# SPDX-License-Identifier: GPL-2.0-only
"""Where examples are played, and how many hypothesis makes up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.random import PROFILE
from tests.random.places import Asked, Place, the_place
from union.errors import HarnessError

CHECKOUT: Final = Path(__file__).resolve().parents[2]

# No deadline: an example takes a tenth of a second, and many times that on a busy machine.
# Quiet: a failure tells its example itself, shorter than hypothesis would, which knows nothing of long runs of a byte.
_COMMON = settings(
    database=DirectoryBasedExampleDatabase(CHECKOUT / ".hypothesis" / "examples"),
    derandomize=False,
    deadline=None,
    verbosity=Verbosity.quiet,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
for _name, _examples in (("nightly", 3000), ("soak", 100_000)):
    settings.register_profile(_name, _COMMON, max_examples=_examples)
# A CI gives the same verdict each time.
_QUICK = settings(_COMMON, derandomize=True, database=None) if "CI" in os.environ else _COMMON
settings.register_profile("quick", _QUICK, max_examples=100)
settings.load_profile(PROFILE)


def pytest_configure(config: pytest.Config) -> None:
    """Remember what the command line asks for."""
    Asked.kernel, Asked.limit = config.getoption("--kernel"), config.getoption("--test-limit")


@pytest.fixture(scope="session")
def place() -> Place:
    """Where examples are played."""
    try:
        return the_place()
    except HarnessError as error:
        pytest.fail(str(error))


def pytest_unconfigure() -> None:
    """End it, and its guest."""
    if the_place.cache_info().currsize:
        the_place().close(for_good=True)
