# SPDX-License-Identifier: GPL-2.0-only
"""The kernel that scenarios run on when they are tests: chosen once, before anything is collected."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from command import native
from command.guest import DEFAULT, compile_packages
from kernel import choice
from kernel.gateway import WATCHED
from kernel.recipe import NATIVE
from tests.scopes import Stage


class Kernel(NamedTuple):
    """A name for ids, what `--kernel` takes, the release, and the program, empty for the running kernel."""

    label: str
    word: str
    release: str
    program: str


def running(label: str = NATIVE, word: str = NATIVE) -> Kernel:
    """The running kernel, under these names."""
    return Kernel(label, word, os.uname().release, "")


def choose(stages: Sequence[Stage], asked: str | None, *, collecting: bool) -> Kernel:
    """The kernel `asked` for, else the running one if it will do for all stages, else one of ours.

    It is built unless we are only `collecting`. Raises HarnessError.
    """
    if any(stage.configuration.detach for stage in stages):
        native.ensure_programs()
    word = asked or (NATIVE if not any(native.unsuitable(stage.configuration) for stage in stages) else DEFAULT)
    if word == NATIVE or WATCHED in os.environ:
        return running()
    named = word in choice.names()
    if named and collecting:
        return Kernel(word, word, "", "")
    program = choice.kernel_file(word).absolute()
    release = choice.guest_of(program).release()
    compile_packages()
    return Kernel(word if named else release, word, release, str(program))
