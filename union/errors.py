# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong in a run as a whole, each with the exit code that `run` gives it."""


class HarnessError(Exception):
    """Base of them: the text is one line for the user; `exit_code` is what `run` exits with."""

    exit_code = 3


class KernelFault(HarnessError):
    """The kernel panicked or reported a fault: whatever the run was at, that has failed."""

    exit_code = 1


class UsageError(HarnessError):
    """The command line is wrong: unknown option, group or file; nothing was touched."""

    exit_code = 2


class SetupError(HarnessError):
    """We could not do our part: a program is missing, a build failed, no space, a guest was lost."""

    exit_code = 3


class Unsupported(HarnessError):
    """Nothing could run here: the kernel lacks what was asked for, or we lack the privilege."""

    exit_code = 4
