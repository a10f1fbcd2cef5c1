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
PLOT_TIME = ("matplotlib",)
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
    python = _made("test" if tests else "run")
    os.environ[MARK] = str(tests)
    sys.stdout.flush()
    os.execv(python, [python, *argv])


def interpreter(group: str) -> str:
    """An interpreter that has what the optional dependencies `group` of pyproject.toml name, made at first use.

    It is this one if it has that: `group` is "plot". Exits 3 with one line when it cannot be made.
    """
    wanted = {"plot": PLOT_TIME}[group]
    return sys.executable if all(importlib.util.find_spec(name) for name in wanted) else _made(group)


def _made(group: str) -> str:
    """The interpreter of the environment of that kind."""
    home = _home(group)
    if not (home / "ready").exists():
        from command import environment  # needed once

        environment.make(home, requirements(group))
    return str(home / "bin" / "python")


def _home(group: str) -> Path:
    """Where the environment for what pyproject.toml asks for is, or will be."""
    import hashlib  # here and below: imported where the restart leads not, as loading takes time

    key = hashlib.sha256("\n".join([sys.version, *requirements(group)]).encode()).hexdigest()[:12]
    return cache_directory() / "environments" / f"{group}-{key}"


def requirements(group: str) -> list[str]:
    """What pyproject.toml asks for, with its bounds; `group` is "run", or the optional dependencies that come along."""
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(project["optional-dependencies"][group] if group != "run" else [])]


def fail(message: str, code: int = 3) -> NoReturn:
    """One line on stderr, and exit."""
    print(f"run: {message}", file=sys.stderr)
    sys.exit(code)
