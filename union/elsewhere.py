# SPDX-License-Identifier: GPL-2.0-only
"""Work done in a child process that is root of a user namespace of its own, and what it finds."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

from union import syscalls
from union.errors import SetupError


class NoNamespace(Exception):
    """There can be no user namespace here; with the reason."""


def as_root_of_a_namespace(work: Callable[[], Any]) -> Any:
    """What `work` returns (it is pickled) in a child that is root of a new user and mount namespace.

    What the child mounts goes with it. An OSError of the work is raised here, any other exception as SetupError with
    its words; NoNamespace if the kernel or its policy does not allow the namespace.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(_outcome(work), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise SetupError("the child in the user namespace died")
    error, result = pickle.loads(data)
    if error is not None:
        raise error
    return result


def _outcome(work: Callable[[], Any]) -> tuple[Exception | None, Any]:
    try:
        syscalls.unshare_user()
    except OSError as error:
        return NoNamespace(str(error.strerror)), None
    try:
        return None, work()
    except OSError as error:
        return error, None
    except Exception:  # noqa: BLE001 - whatever it is, the parent tells it
        return SetupError(f"in the user namespace: {traceback.format_exc()}"), None
