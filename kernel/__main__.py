# SPDX-License-Identifier: GPL-2.0-only
"""`python -m kernel [NAME] [--kernel-source DIR|TARBALL]`: build a kernel into the cache, print its path."""

import argparse
import sys
from pathlib import Path

from kernel.build import build
from kernel.errors import HarnessError
from kernel.recipe import names


def main() -> int:
    """Returns the exit status: 0, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m kernel", description="Build a User-mode Linux kernel.")
    parser.add_argument("name", nargs="?", default="6.12", help=f"one of {', '.join(names())} (default: 6.12)")
    parser.add_argument("--kernel-source", type=Path, metavar="DIR|TARBALL", help="instead of Debian's source package")
    options = parser.parse_args()
    try:
        print(build(options.name, options.kernel_source).path)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
