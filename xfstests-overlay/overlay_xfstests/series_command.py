# SPDX-License-Identifier: GPL-2.0-only
"""The command `series`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from overlay_xfstests import letters, places, suite
from overlay_xfstests.checkout import Checkout
from overlay_xfstests.letters import Letter
from overlay_xfstests.repository import Repository
from overlay_xfstests.suite import HOME, TESTS, Suite
from overlay_xfstests.words import Words
from union.errors import SetupError, UsageError

RECIPIENTS = ("--to=fstests@vger.kernel.org", "--cc=linux-unionfs@vger.kernel.org")
SUBJECT_PLACE = "*** SUBJECT HERE ***"  # what git puts into a cover letter to be replaced
TEXT_PLACE = "*** BLURB HERE ***"

HELP = """\
Makes a series of patches for fstests@vger.kernel.org that add our tests of xino=nofollow to CHECKOUT, a git repository
of xfstests: helpers and the group first, then the tests, and a cover letter. The files are those that install puts
there; author and Signed-off-by are you, as git knows you.

Nothing is changed in CHECKOUT: its files, index, branches and objects stay as they are, and whether our tests are
installed does not matter."""

EPILOG = """\
Words after -- go to git format-patch: series CHECKOUT -- -v2 --cc=somebody@example.org

exit codes: 0 done; 2 wrong words, or no such base; 3 failed"""


def main(argv: Sequence[str]) -> int:
    """Does what `argv` says, prints the files made and how to send them, and returns 0.

    Raises:
        HarnessError: it could not be done.
    """
    words = Words("series", HELP, EPILOG)
    words.add_argument("checkout", metavar="CHECKOUT", type=Path, help="directory of xfstests")
    words.add_argument("options", metavar="OPTION", nargs="*", help="after --: for git format-patch")
    words.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("nofollow-series"), help="for the patches (%(default)s)"
    )
    words.add_argument("--base", metavar="COMMIT", default="HEAD", help="what the patches shall apply to (%(default)s)")
    words.add_argument("--from", dest="first", metavar="N", type=words.number, help="the tests get free numbers from N")
    said = words.parse_args(argv)
    if any(said.output.glob("*.patch")):
        raise UsageError(f"{said.output} has patches already: remove them, or say --output=DIR")
    checkout = Checkout(said.checkout)
    with tempfile.TemporaryDirectory(prefix="ovl-detach-") as scratch:
        repository = Repository(checkout.top, said.base, Path(scratch))
        cover = letters.from_file(HOME / "cover-letter")
        _commit(repository, suite.read(), letters.from_file(HOME / "first-letter"), said.first)
        said.output.mkdir(parents=True, exist_ok=True)
        patches = repository.format_patches(said.output.resolve(), [*RECIPIENTS, *said.options])
        _fill_in(patches[0], cover)
    for patch in patches:
        print(said.output / patch.name)
    print(f"look at them, then: git send-email {said.output}/*.patch")
    return 0


def _commit(repository: Repository, ours: Suite, first_letter: Letter, first: int | None) -> None:
    """Commits helpers and group, then each part of the tests.

    Raises:
        UsageError: the base has files of ours already.
    """
    there = [path for path in ours.common if repository.read(path) is not None]
    if there:
        raise UsageError(f"the base has {there[0]} already: say --base=COMMIT, one without our tests")
    names = repository.read(places.GROUP_NAMES)
    if names is None:
        raise UsageError(f"the base has no {places.GROUP_NAMES}")
    files = dict(ours.common)
    if not places.describes_group(names.text):
        files[places.GROUP_NAMES] = names.of_text(places.with_group(names.text))
    signature = repository.signature()
    repository.commit(files, _message(first_letter, signature))
    tests = list(ours.tests)
    free = places.free_numbers(places.used_numbers(repository.names(TESTS)), len(tests), first)
    numbers = {test.name: number for test, number in zip(tests, free, strict=True)}
    for part in ours.parts:
        files = {path: file for test in part.tests for path, file in test.files(numbers[test.name]).items()}
        repository.commit(files, _message(letters.of_part(part, numbers), signature))


def _message(letter: Letter, signature: str) -> str:
    return f"{letter.subject}\n\n{letter.text}\n\n{signature}\n"


def _fill_in(path: Path, cover: Letter) -> None:
    """Puts our words into the cover letter that git has made."""
    text = path.read_text()
    if SUBJECT_PLACE not in text or TEXT_PLACE not in text:
        raise SetupError(f"{path}: git has made a cover letter without `{SUBJECT_PLACE}` and `{TEXT_PLACE}`")
    path.write_text(text.replace(SUBJECT_PLACE, cover.subject).replace(TEXT_PLACE, cover.text))
