# SPDX-License-Identifier: GPL-2.0-only
"""What we claim about speed, as scripts; each prints a ratio against the peer measured in the same run."""
