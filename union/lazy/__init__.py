# SPDX-License-Identifier: GPL-2.0-only
"""A layer that is loaded lazily: its image, its daemon's content, the workload above it, and the run."""
