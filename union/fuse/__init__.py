# SPDX-License-Identifier: GPL-2.0-only
"""FUSE filesystems of ours: the protocol, the daemons that speak it, what they log."""
