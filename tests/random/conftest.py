# SPDX-License-Identifier: GPL-2.0-only
"""Where examples are played, and how many hypothesis makes up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.guest_unions import InGuest
from tests.random import PROFILE
from tests.random.places import Place
from tests.scenario_kernel import choose
from tests.scopes import stages
from tests.union_server import Here
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


@pytest.fixture(scope="session")
def place(pytestconfig: pytest.Config) -> Iterator[Place]:
    """A kernel with `xino=nofollow`: the one of `--kernel`, the running one if it has it, else a guest."""
    try:
        kernel = choose(stages("ov-xino"), pytestconfig.getoption("--kernel"), collecting=False)
    except HarnessError as error:
        pytest.fail(str(error))
    limit = pytestconfig.getoption("--test-limit")
    where = Place(lambda: InGuest(Path(kernel.program), limit) if kernel.program else Here())
    yield where
    where.close()
