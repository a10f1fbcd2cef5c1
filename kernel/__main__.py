# SPDX-License-Identifier: GPL-2.0-only
"""`python -m kernel [NAME] [--kernel-source DIR|TARBALL]`: get a kernel into the cache, print its path.

Of a distribution's kernel (`debian-6.12`) the second line is the path of its overlay.ko. `--key` prints a hash instead,
of all that goes into the kernel but the source, which need not be here yet.
"""

import argparse
import sys
from pathlib import Path

from kernel import choice, distribution
from kernel.build import build
from kernel.errors import HarnessError
from kernel.recipe import compiler, recipe, with_patch


def main() -> int:
    """Returns the exit status: 0, or that of the error."""
    known = ", ".join(choice.names())
    parser = argparse.ArgumentParser(prog="python -m kernel", description="Build or get a kernel for a guest.")
    parser.add_argument("name", nargs="?", default="6.12", help=f"one of {known} (default: 6.12)")
    parser.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="instead of Debian's source package")
    parser.add_argument("--key", action="store_true", help="build nothing: print a hash to keep a CI's cache by")
    parser.add_argument("--patch", type=Path, metavar="FILE", help="one more patch, applied last")
    options = parser.parse_args()
    if options.name not in choice.names():
        parser.error(f"unknown kernel {options.name!r}; known: {known}")
    if options.kernel_source and options.name in distribution.names():
        parser.error(f"--kernel-source has no use with {options.name}")
    if options.patch and options.name in distribution.names():
        parser.error(f"--patch has no use with {options.name}")
    try:
        what = with_patch(options.name, options.patch) if options.patch else None
        if options.key:
            print((what or recipe(options.name)).key("any", compiler()))
        elif options.name in distribution.names():
            kernel = distribution.build(options.name)
            print(kernel.image, kernel.module, sep="\n")
        else:
            print(build(options.name, options.kernel_source, what=what).path)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
