# SPDX-License-Identifier: GPL-2.0-only
"""Finds an interpreter that has our few libraries; standard library only, and on the way of every start."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent
BUNDLED = CHECKOUT / "lib"  # the libraries of a tarball made by ci/kselftest/make_tarball
RUN_TIME = ("tabulate", "tqdm")
TEST_TIME = (*RUN_TIME, "pytest", "xdist", "hypothesis", "mypy", "ruff", "yaml", "check_jsonschema")
MARK = "OVL_DETACH_VENV"  # set when we have started ourselves again, so that it happens only once


def cache_directory() -> Path:
    """Where kernels, environments and logs are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovl-detach"


def ensure_libraries(argv: Sequence[str], *, tests: bool = False) -> None:
    """Return if this interpreter has what we need, else start again under one that has.

    Makes that environment at first use and says so on stdout. Exits 3 with one line on stderr when
    it cannot be made.
    """
    if BUNDLED.is_dir():
        sys.path.append(str(BUNDLED))
    wanted = TEST_TIME if tests else RUN_TIME
    if all(importlib.util.find_spec(name) for name in wanted):
        return
    if os.environ.get(MARK) == str(tests):
        fail(f"the environment {sys.prefix} lacks libraries; remove it and run again")
    home = _home(tests)
    if not (home / "ready").exists():
        from command import environment  # needed once

        environment.make(home, requirements(tests))
    os.environ[MARK] = str(tests)
    sys.stdout.flush()
    python = home / "bin" / "python"
    os.execv(python, [str(python), *argv])


def _home(tests: bool) -> Path:
    """Where the environment for what pyproject.toml asks for is, or will be."""
    import hashlib  # here and below: imported where the restart leads not, as loading takes time

    key = hashlib.sha256("\n".join([sys.version, *requirements(tests)]).encode()).hexdigest()[:12]
    return cache_directory() / "environments" / f"{'test' if tests else 'run'}-{key}"


def requirements(tests: bool) -> list[str]:
    """What pyproject.toml asks for, with its bounds."""
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(project["optional-dependencies"]["test"] if tests else [])]


def fail(message: str, code: int = 3) -> NoReturn:
    """One line on stderr, and exit."""
    print(f"run: {message}", file=sys.stderr)
    sys.exit(code)
