# SPDX-License-Identifier: GPL-2.0-only
"""The operations: each a small dataclass that knows its system call and its reproducer line.

An operation carries what the scenario expects (`fails`, and the value where there is one). It is
performed on the union here and predicted by `union.model`; neither knows of the other.
"""

from union.operations.attributes import *  # noqa: F403
from union.operations.base import *  # noqa: F403
from union.operations.classical import *  # noqa: F403
from union.operations.data import *  # noqa: F403
from union.operations.descriptors import *  # noqa: F403
from union.operations.events import *  # noqa: F403
from union.operations.filehandles import *  # noqa: F403
from union.operations.listing import *  # noqa: F403
from union.operations.mappings import *  # noqa: F403
from union.operations.naming import *  # noqa: F403
