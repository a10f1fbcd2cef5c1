# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the model: what each kind of operation must do, a module per family."""

from union.rules import attributes, classical, data, descriptors, events, listing, naming, xattrs
from union.rules.common import Rules

RULES: Rules = {
    **classical.RULES,
    **attributes.RULES,
    **xattrs.RULES,
    **naming.RULES,
    **listing.RULES,
    **descriptors.RULES,
    **data.RULES,
    **events.RULES,
}
