# SPDX-License-Identifier: GPL-2.0-only
"""Kernels to run the suite on: source -> patched, configured, built, cached -> booted as a guest."""
