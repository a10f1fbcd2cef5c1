# SPDX-License-Identifier: GPL-2.0-only
"""Random trees and operations: what no scenario says."""
