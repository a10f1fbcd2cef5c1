# SPDX-License-Identifier: GPL-2.0-only
"""The command line: options, first-run set-up, and the ways a run is carried out."""
