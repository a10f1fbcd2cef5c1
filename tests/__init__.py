# SPDX-License-Identifier: GPL-2.0-only
"""The tests: operation scenarios, the detach contract, property tests, tests of the harness."""
