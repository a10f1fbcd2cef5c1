# SPDX-License-Identifier: GPL-2.0-only
"""One event stream and those who listen to it."""
