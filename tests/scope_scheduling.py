# SPDX-License-Identifier: GPL-2.0-only
"""How pytest-xdist hands out tests: whole scopes, and a test that ended its worker is not tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ScopeScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Scopes are what `scope_of` says of an id."""

    def __init__(self, config: pytest.Config, log: Any, scope_of: Callable[[str], str]) -> None:
        super().__init__(config, log)
        self._scope_of = scope_of

    def _split_scope(self, nodeid: str) -> str:
        return self._scope_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Take a worker out; the test that it crashed in, which the parent class would hand out again."""
        for unit in self.assigned_work[node].values():
            for nodeid, completed in unit.items():
                if not completed:
                    unit[nodeid] = True
                    super().remove_node(node)
                    return str(nodeid)
        super().remove_node(node)
        return None
