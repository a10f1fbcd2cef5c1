# SPDX-License-Identifier: GPL-2.0-only
"""The command `install`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from overlay_xfstests import installing, suite
from overlay_xfstests.changes import alone, apply, is_unfinished, undo
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.words import Words, home
from union.errors import UsageError

HELP = """\
Puts our tests of xino=nofollow into a checkout of xfstests, as tests/overlay/NNN with the first free numbers, and what
they share as common/nofollow. Their group nofollow goes into doc/group-names.txt, and into tests/overlay/group.list if
make has generated that. Once more, it brings them up to date: they keep their numbers.

Nothing that is not ours is overwritten or removed: a file of that name, or one of ours that was edited since, ends it
before anything is changed. It makes all changes or none. CHECKOUT/.ovl-detach.json says what is installed."""

EPILOG = """\
exit codes: 0 done; 2 refused, or wrong words: nothing was changed; 3 failed (disk full...): all was taken back"""


def main(argv: Sequence[str]) -> int:
    """Does what `argv` says, prints which test got which number, and returns 0.

    Raises:
        HarnessError: it could not be done, and nothing has changed.
    """
    words = Words("install", HELP, EPILOG)
    words.add_argument("checkout", metavar="CHECKOUT", type=Path, help="directory of xfstests")
    words.add_argument("--remove", action="store_true", help="take them out again: the checkout is as it was before")
    words.add_argument("--from", dest="first", metavar="N", type=words.number, help="new tests get free numbers from N")
    words.add_argument("--dry-run", action="store_true", help="only say what would be done")
    said = words.parse_args(argv)
    if said.remove and said.first is not None:
        words.error("--from says nothing about --remove")
    checkout = Checkout(said.checkout)
    with alone(checkout.top):
        if is_unfinished(checkout.top):
            if said.dry_run:
                raise UsageError(f"{checkout.top}: an install was killed there; the next one takes back what it did")
            undo(checkout.top)
        plan = (
            installing.remove(checkout) if said.remove else installing.install(suite.read(), checkout, said.first)
        )
        if not said.dry_run:
            apply(checkout.top, plan.changes)
    width = max(len(name) for _, name, _ in plan.rows)
    for test, name, done in plan.rows:
        print(f"{test}  {name:{width}}  {done}")
    if said.dry_run:
        print("dry run: nothing was changed; it would be:", *(change.path for change in plan.changes))
    elif not said.remove:
        print(f"run them: {home()}/check {said.checkout}")
    return 0
