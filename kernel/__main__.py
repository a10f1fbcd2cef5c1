# SPDX-License-Identifier: GPL-2.0-only
"""`python -m kernel [NAME] [--kernel-source DIR|TARBALL]`: build a kernel into the cache, print its path.

`--key` prints a hash instead, of all that goes into the kernel but the source, which need not be here yet.
"""

import argparse
import sys
from pathlib import Path

from kernel.build import build
from kernel.errors import HarnessError
from kernel.recipe import compiler, names, recipe


def main() -> int:
    """Returns the exit status: 0, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m kernel", description="Build a User-mode Linux kernel.")
    parser.add_argument("name", nargs="?", default="6.12", help=f"one of {', '.join(names())} (default: 6.12)")
    parser.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="instead of Debian's source package")
    parser.add_argument("--key", action="store_true", help="build nothing: print a hash to keep a CI's cache by")
    options = parser.parse_args()
    try:
        if options.key:
            print(recipe(options.name).key("any", compiler()))
            return 0
        print(build(options.name, options.kernel_source).path)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
