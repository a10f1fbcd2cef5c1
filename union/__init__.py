# SPDX-License-Identifier: GPL-2.0-only
"""The harness: layers -> union -> migrate -> fence -> operations -> witness."""
