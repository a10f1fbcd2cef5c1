# SPDX-License-Identifier: GPL-2.0-only
"""`xfstests-overlay/series`: patches that apply, say what is in them, and leave no trace where they were made."""

from __future__ import annotations

import email
import email.message
import email.policy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.pretend_xfstests import (
    GROUP_NAMES,
    IDENTITY,
    OVERLAY,
    PROGRAM,
    XFSTESTS,
    add_test,
    checkout,
    command,
    git,
    install,
    make_checkout,
    needs_xfstests,
    order,
    refusal,
    suite,
    tree,
)

__all__ = ["checkout", "suite"]
LONG = "a-test-of-which-the-name-is-too-long-for-a-subject\n"


def series(home: Path, *words: str | Path) -> list[email.message.EmailMessage]:
    """The messages that `series` makes, which must succeed and be silent on stderr."""
    done = command(home, "series", *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    *made, last = done.stdout.splitlines()
    patches = list(map(Path, made))
    assert patches[0].name == "0000-cover-letter.patch"
    assert last == f"look at them, then: git send-email {patches[0].parent}/*.patch"
    return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in patches]


def apply(output: Path, base: Path, clone: Path, commit: str = "HEAD") -> None:
    """Applies the patches to a clean clone of the repository `base`, at that commit."""
    git(base, "clone", "-q", "--shared", ".", str(clone))
    git(clone, "checkout", "-q", "--detach", commit)
    patches = sorted(map(str, output.glob("*.patch")))[1:]
    git(clone, "am", "-q", "--whitespace=error", *patches)


def tracked(top: Path) -> dict[str, tuple[int, str]]:
    """The tree without what git does not keep."""
    ignored = (".ovl-detach.json", "group.list")
    return {path: entry for path, entry in tree(top).items() if Path(path).name not in ignored}


def with_git(top: Path) -> dict[str, tuple[int, str]]:
    """The tree and all that is in .git."""
    return tree(top) | {f".git/{path}": entry for path, entry in tree(top / ".git").items()}


@pytest.mark.parametrize("words", [[], ["--from=3"]])
def test_patches_give_what_install_puts_there(
    suite: Path, checkout: Path, tmp_path: Path, words: list[str]
) -> None:
    series(suite, f"--output={tmp_path / 'out'}", *words, checkout)
    apply(tmp_path / "out", checkout, tmp_path / "clone")
    assert git(tmp_path / "clone", "status", "--short") == ""
    before = tracked(checkout)
    install(suite, *words, checkout)
    assert tracked(tmp_path / "clone") == tracked(checkout) != before


def test_nothing_is_touched(suite: Path, checkout: Path, tmp_path: Path) -> None:
    install(suite, checkout)
    (checkout / "check").write_text("# being edited\n")
    (checkout / "common/mine").write_text("# staged\n")
    git(checkout, "add", "common/mine")
    before = with_git(checkout)
    series(suite, f"--output={tmp_path / 'out'}", checkout)
    assert with_git(checkout) == before
    apply(tmp_path / "out", checkout, tmp_path / "clone")
    assert (tmp_path / "clone" / OVERLAY / "006").exists()
    git(checkout, "add", ".")  # control: git's own traces are seen
    assert with_git(checkout) != before


def test_a_base(suite: Path, checkout: Path, tmp_path: Path) -> None:
    """Numbers, groups and files are those of the base, whatever HEAD has."""
    older = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / OVERLAY / "009").write_text("# newer\n")
    (checkout / "doc/group-names.txt").write_text(GROUP_NAMES + "newer\t\tgroup\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "newer")
    for base, number in (("HEAD", 10), ("main~1", 6), (older, 6)):
        output = tmp_path / base
        messages = series(suite, f"--output={output}", f"--base={base}", checkout)
        assert f"{OVERLAY}/{number:03}" in messages[-2].get_content()
        apply(output, checkout, tmp_path / f"clone-{base}", base)


def test_what_they_say(suite: Path, checkout: Path, tmp_path: Path) -> None:
    cover, helpers, detach, passes = series(suite, f"--output={tmp_path / 'out'}", checkout)
    assert [message["Subject"] for message in (cover, helpers, detach, passes)] == [
        "[PATCH 0/3] overlay: tests of detaching an overlay from its lower layers",
        "[PATCH 1/3] overlay: add helpers for tests of xino=nofollow",
        "[PATCH 2/3] overlay: add a test: show that detach holds",
        "[PATCH 3/3] overlay: add a test: show that passes holds",
    ]
    for message in (cover, helpers, detach, passes):
        assert message["From"] == "A U Thor <author@example.org>"
        assert message["To"] == "fstests@vger.kernel.org"
        assert message["Cc"] == "linux-unionfs@vger.kernel.org"
    for message in (helpers, detach, passes):
        assert "\nSigned-off-by: A U Thor <author@example.org>\n---\n" in message.get_content()
    assert detach.get_content().startswith(
        "Show that detach holds.  NNN stays here.\n\nNot run where the kernel lacks the option.\n\nSigned-off-by:"
    )
    text = cover.get_content()
    assert "***" not in text
    assert "A U Thor (3):\n  overlay: add helpers for tests of xino=nofollow\n" in text
    assert "6 files changed" in text
    assert f"base-commit: {git(checkout, 'rev-parse', 'HEAD').strip()}" in text
    for fact in ("xino=nofollow", "No released kernel", "not run", "reference", "./check -overlay -g overlay/nofollow"):
        assert fact in text


def test_tests_that_belong_together(suite: Path, checkout: Path, tmp_path: Path) -> None:
    add_test(suite, "another")
    (suite / "tests/order").write_text("detach\n\n# why\nSubject: overlay: add tests of two things\npasses\nanother\n")
    messages = series(suite, f"--output={tmp_path / 'out'}", checkout)
    assert messages[-1]["Subject"] == "[PATCH 3/3] overlay: add tests of two things"
    assert messages[-1].get_content().startswith(
        "overlay/007:\nShow that passes holds.  NNN stays here.\n\noverlay/008:\nShow that another holds."
    )
    apply(tmp_path / "out", checkout, tmp_path / "clone")
    assert (tmp_path / "clone" / OVERLAY / "008.out").exists()


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("detach\n" + LONG, f"tests/order needs `Subject:` above detach, {LONG.strip()}, with one line of at most 72"),
        (f"Subject: {'x' * 73}\ndetach\n", "tests/order needs `Subject:` above detach, with one line of at most 72"),
        ("Subject: a\nSubject: b\ndetach\n", "several `Subject: b`, or no test with it"),
        ("Subject: a\n", "several `Subject: a`, or no test with it"),
        ("detach\n\ndetach\n", "no test, or one named twice"),
        ("# nothing\n", "no test, or one named twice"),
        ("missing\n", "tests/missing: No such file"),
    ],
)
def test_an_order_that_cannot_be(suite: Path, checkout: Path, tmp_path: Path, order: str, said: str) -> None:
    (suite / "tests/order").write_text(order)
    add_test(suite, LONG.strip())
    before = with_git(checkout)
    done = command(suite, "series", f"--output={tmp_path / 'out'}", checkout)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
    assert with_git(checkout) == before


def test_without_a_subject(suite: Path, checkout: Path, tmp_path: Path) -> None:
    """What the description begins with, or the names."""
    path = suite / "tests/passes"
    path.write_text(path.read_text().replace("Show", "FUSE begins\n# with a long sentence to show, of all things,"))
    add_test(suite, "another")
    order(suite, ["detach", "passes", "detach-too\nanother"])
    add_test(suite, "detach-too")
    subjects = [message["Subject"] for message in series(suite, f"--output={tmp_path / 'out'}", checkout)]
    assert subjects[2:] == [
        "[PATCH 2/4] overlay: add a test: show that detach holds",
        "[PATCH 3/4] overlay: add a test: passes",
        "[PATCH 4/4] overlay: add tests: detach-too, another",
    ]


def test_a_group_that_is_described_already(suite: Path, checkout: Path, tmp_path: Path) -> None:
    (checkout / "doc/group-names.txt").write_text(GROUP_NAMES.replace("nested", "nofollow\t\tknown\nnested"))
    git(checkout, "commit", "-qam", "group")
    messages = series(suite, f"--output={tmp_path / 'out'}", checkout)
    assert "group-names.txt" not in messages[1].get_content()


def test_words_for_git(suite: Path, checkout: Path, tmp_path: Path) -> None:
    messages = series(suite, f"--output={tmp_path / 'out'}", checkout, "--", "--subject-prefix=RFC v2", "--cc=x@y.org")
    assert messages[1]["Subject"].startswith("[RFC v2 1/3] overlay: ")
    assert "x@y.org" in messages[1]["Cc"]


def test_refusals(suite: Path, checkout: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "has no commit nowhere" in refusal(suite, "series", f"--output={out}", "--base=nowhere", checkout)
    assert "only 1 of 2 numbers are free" in refusal(suite, "series", f"--output={out}", "--from=999", checkout)
    assert not out.exists()
    series(suite, f"--output={out}", checkout)  # control
    before = tree(out)
    assert f"{out} has patches already" in refusal(suite, "series", f"--output={out}", checkout)
    assert tree(out) == before
    apply(out, checkout, tmp_path / "clone")
    again = [f"--output={tmp_path / 'again'}", str(tmp_path / "clone")]
    assert "the base has common/nofollow already: say --base=COMMIT" in refusal(suite, "series", *again)
    series(suite, *again, "--base=HEAD~3")  # control


def test_no_repository_of_its_own(suite: Path, checkout: Path, tmp_path: Path) -> None:
    out = f"--output={tmp_path / 'out'}"
    (checkout / ".git").rename(tmp_path / "away")
    assert f"{checkout} is no git repository of its own" in refusal(suite, "series", out, checkout)
    git(tmp_path, "init", "-q")
    assert f"{checkout} is not the top of its git repository" in refusal(suite, "series", out, checkout)
    (tmp_path / "away").rename(checkout / ".git")  # control
    series(suite, out, checkout)


def test_whoever_git_does_not_know(suite: Path, checkout: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(suite / "series"), f"--output={tmp_path / 'out'}", str(checkout)]
    nobody = {key: word for key, word in os.environ.items() if not key.startswith("GIT_")}
    nobody["EMAIL"] = "me@example.org"  # with which git could guess a name
    nobody |= {key: IDENTITY[key] for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")}
    done = subprocess.run(words, capture_output=True, text=True, env=nobody)
    assert (done.returncode, done.stdout) == (2, "")
    assert "git does not know who you are: git -C" in done.stderr
    git(checkout, "config", "user.name", "Sombra")  # control
    git(checkout, "config", "user.email", "s@example.org")
    assert subprocess.run(words, env=nobody).returncode == 0
    patch = next((tmp_path / "out").glob("0001-*.patch"))
    assert "Signed-off-by: Sombra <s@example.org>" in patch.read_text()


def test_help_says_who_gets_them(suite: Path) -> None:
    done = command(suite, "series", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("fstests@vger.kernel.org", "--output", "--base", "--from", "Signed-off-by", "exit codes"):
        assert word in done.stdout


def test_our_own_series(tmp_path: Path) -> None:
    """The tests as they are, on a checkout in miniature."""
    home = PROGRAM / "xfstests-overlay"
    checkout = make_checkout(tmp_path / "xfstests")
    messages = series(home, f"--output={tmp_path / 'out'}", checkout)
    said = [message.get_content().partition("\n---\n")[0] for message in messages[1:]]
    long = [line for text in [messages[0].get_content(), *said] for line in text.splitlines() if len(line) > 75]
    assert long == []
    apply(tmp_path / "out", checkout, tmp_path / "clone")
    before = tracked(checkout)
    install(home, checkout)
    assert tracked(tmp_path / "clone") == tracked(checkout) != before


@needs_xfstests
def test_a_real_checkout(tmp_path: Path) -> None:
    home = PROGRAM / "xfstests-overlay"
    real = tmp_path / "xfstests"
    git(tmp_path, "clone", "-q", "--shared", str(XFSTESTS), str(real))
    before = tracked(real)
    series(home, f"--output={tmp_path / 'out'}", real)
    assert tracked(real) == before
    apply(tmp_path / "out", real, tmp_path / "clone")
    install(home, real)
    assert tracked(tmp_path / "clone") == tracked(real) != before
