# SPDX-License-Identifier: GPL-2.0-only
"""`--play FILE`: an example that a generator found, played once more, without the generator."""

from __future__ import annotations

from pathlib import Path

from command.options import Options
from tests.guest_unions import GuestLost, InGuest
from tests.scenario_kernel import choose
from tests.scopes import stages
from tests.union_server import Here
from union.errors import SetupError, Unsupported, UsageError
from union.spelling import read

LIMIT = 300  # seconds


def run(options: Options, file: Path) -> int:
    """Play the example in `file`, print its operations and what was wrong; 1 if anything was."""
    try:
        example = read(file.read_text())
    except OSError as error:
        raise UsageError(f"--play: {file}: {error.strerror}") from error
    asked = None if options.kernel == "auto" else options.kernel
    kernel = choose(stages("ov-xino" if example.detaches else "ov"), asked, collecting=False)
    place = InGuest(Path(kernel.program), LIMIT, options.log_dir) if kernel.program else Here()
    try:
        if example.detaches and (why := place.facts().options.get("xino=nofollow")):
            raise Unsupported(f"kernel {kernel.release} refuses xino=nofollow: {why}")
        played = place.play(example)
    except GuestLost as lost:
        raise SetupError(f"the guest was lost: {lost}") from lost
    finally:
        place.close()
    print("\n".join([*played.steps, *(f"FAILED {line}" for line in played.complaints)]))
    print("failed" if played.complaints else "passed", f"on {kernel.release}")
    return 1 if played.complaints else 0
