# SPDX-License-Identifier: GPL-2.0-only
"""The contract of the detach run, shown on real kernels."""
