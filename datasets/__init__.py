# SPDX-License-Identifier: GPL-2.0-only
"""Trees for the lower layer, described without I/O."""
