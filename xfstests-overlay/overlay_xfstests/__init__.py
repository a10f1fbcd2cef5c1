# SPDX-License-Identifier: GPL-2.0-only
"""The tests in xfstests' own form: put into a checkout, built, run there, and sent to the list."""
