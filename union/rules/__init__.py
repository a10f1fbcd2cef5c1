# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the model: what each kind of operation must do, a module per family."""

from union.rules import classical, data, descriptors, events
from union.rules.common import Rules

RULES: Rules = {**classical.RULES, **descriptors.RULES, **data.RULES, **events.RULES}
