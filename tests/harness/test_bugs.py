# SPDX-License-Identifier: GPL-2.0-only
"""Kernels with a bug put in: the patches are what they say, the count and the verdict are right, and one is caught."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import bugs as examined
from bench import findings
from bench.bugs import MOST, NONE, Replay, Row, random_tests, replayed, table
from bench.findings import Counter, Finding
from bench.seeded import bugs, named
from datasets.tree import Directory
from kernel import build as building
from kernel import patching
from kernel.build import build
from kernel.errors import BuildError
from kernel.progress import Silent
from kernel.recipe import series_patches, with_patch
from kernel.source import local
from tests.random.places import Place
from union.errors import SetupError, UsageError
from union.example import Example, Played
from union.history import DropCaches, History
from union.interruption import Interrupted
from union.names import Name
from union.operations import Unlink
from union.worlds import Wrong, batches

CHECKOUT = Path(__file__).resolve().parents[2]
QUICKEST = "opaque-on-disk-only"
FIRST_TEST = "tests/random/test_examples.py::test_a_tree_is_detached_and_nothing_is_lost"
EXAMPLE = Example((Directory(),))
FINE, WRONG = Played((), (), 0), Played(("D4: made up by a test",), (), 0)


# The patches.


def test_each_bug_says_what_it_is_and_which_clauses_it_breaks() -> None:
    contract = (CHECKOUT / "docs/contract.md").read_text()
    assert len(bugs()) >= 14
    for bug in bugs().values():
        assert bug.text.endswith("."), bug
        for clause in bug.clauses.split(", "):
            assert re.search(rf"\b{clause}\b", contract), bug


def test_a_patch_that_does_not_say_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "silent.patch").write_text("SPDX-License-Identifier: GPL-2.0-only\n\n--- a/x\n")
    with pytest.raises(SetupError, match=r"silent\.patch: the lines before the patch"):
        bugs(tmp_path)


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the reference kernel's source that the bugs are in."""
    build("6.12", progress=Silent())  # gets the source, if need be
    source, tree = local("6.12"), tmp_path_factory.mktemp("linux")
    assert source is not None
    wanted = ("*/fs/overlayfs/*", "*/Documentation/filesystems/overlayfs.rst")
    command = ["tar", "-C", str(tree), "--strip-components=1", "--wildcards", "-xf", str(source.path), *wanted]
    subprocess.run(command, check=True, timeout=300)
    for patch in series_patches("6.12"):
        patching.apply(tree, patch, tree / "log")
    return tree


def test_each_bug_can_be_put_into_the_reference_kernel(patched: Path) -> None:
    for bug in bugs().values():
        assert set(patching.touched(bug.patch)) <= {
            f"fs/overlayfs/{path.name}" for path in patched.glob("fs/overlayfs/*")
        }
        with patching.Patched(patched, [bug.patch], patched / "log"):
            pass


def test_one_that_cannot_is_named(patched: Path, tmp_path: Path) -> None:
    twice = next(iter(bugs().values())).patch
    with (
        pytest.raises(BuildError, match=f"{twice.name} does not fit"),
        patching.Patched(patched, [twice, twice], tmp_path / "log"),
    ):
        pass


def test_an_unknown_bug_is_a_wrong_command_line() -> None:
    assert [bug.name for bug in named([QUICKEST])] == [QUICKEST]
    with pytest.raises(UsageError, match=f"no bug 'nonsense'; known: .*{QUICKEST}"):
        named([QUICKEST, "nonsense"])


# The count.


def test_examples_are_counted_up_to_the_first_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [FINE, FINE, WRONG, FINE, WRONG]
    monkeypatch.setattr(Place, "play", lambda self, example: answers.pop(0))
    counter, place = Counter(), Place(lambda: pytest.fail("nothing is to be started"))
    counter.attach(monkeypatch)
    small = replace(EXAMPLE, xino="on")
    for example in (EXAMPLE, EXAMPLE, EXAMPLE, EXAMPLE, small):
        place.play(example)
    assert (counter.first, counter.last, counter.played) == (3, small, 5)
    counter.begin()
    assert (counter.first, counter.last, counter.played) == (None, None, 0)


def test_sequences_of_a_search_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches(1, 1000)[0]
    sequences = [batch.example(sequence) for sequence in batch.sequences()]
    answers = [[], [Wrong(sequences[6], ("made up",)), Wrong(sequences[8], ("made up",))]]
    monkeypatch.setattr(Place, "search", lambda self, batch: answers.pop(0))
    counter, place = Counter(), Place(lambda: pytest.fail("nothing is to be started"))
    counter.attach(monkeypatch)
    place.search(batch)
    place.search(batch)
    assert (counter.first, counter.last) == (len(sequences) + 7, sequences[6])


# The verdict.

CAUGHT = Row("bug", "D4", ("a_1",), (Finding("test_it", 3, 2, "Example()\n"),), Replay(1, 0))


def test_a_bug_that_is_caught_as_it_must_be() -> None:
    assert CAUGHT.wrong() == []
    assert Row(NONE, "-", (), ()).wrong() == []
    header, _, first, second = table([CAUGHT, Row(NONE, "-", (), ())]).splitlines()
    assert header.split("  ")[0] == "bug"
    assert re.split("  +", first) == ["bug", "D4", "1: a_1", "test_it", "3", "2", "yes"]
    assert re.split("  +", second)[0] == NONE


def test_scenarios_that_did_not_run_are_not_said_to_have_passed() -> None:
    row = replace(CAUGHT, scenarios=None)
    assert row.cells()[2] == "not run" and row.wrong() == []
    assert replace(CAUGHT, scenarios=()).cells()[2] == "-"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (replace(CAUGHT, found=()), "bug: caught by no random test"),
        (replace(CAUGHT, found=(), scenarios=()), "bug: caught by nothing"),
        (replace(CAUGHT, found=(replace(CAUGHT.found[0], operations=MOST + 1),)), "bug: boiled down to 6 operations"),
        (replace(CAUGHT, replay=Replay(0, 0)), "bug: its example does not show the bug: no: exit 0, 0 on"),
        (replace(CAUGHT, replay=Replay(1, 1)), "bug: its example does not show the bug: no: exit 1, 1 on"),
        (replace(CAUGHT, replay=None), "bug: its example does not show the bug: not replayed"),
        (replace(CAUGHT, bug=NONE, found=()), f"{NONE}: a_1 fails without a bug"),
        (replace(CAUGHT, bug=NONE, scenarios=()), f"{NONE}: test_it fails without a bug"),
    ],
)
def test_one_that_is_not_is_told(row: Row, complaint: str) -> None:
    [told] = row.wrong()
    assert told.startswith(complaint)


def test_what_keeps_us_from_finding_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kernel: Path) -> tuple[str, ...]:
        raise SetupError("made up by a test")

    monkeypatch.setattr(examined, "scenarios", broken)
    row = examined.tried(None, Path("kernel"), Path("reference"), 1)
    assert row.wrong() == [f"{NONE}: made up by a test"]


def test_all_that_can_be_played_has_a_number_of_operations() -> None:
    drop, tree = DropCaches(), (Directory(),)
    assert findings.operations(Example(tree, (Unlink(path=Name("t/a")),), (Unlink(path=Name("t/b")),))) == 2
    assert findings.operations(History(tree, (drop, drop, drop))) == 3
    assert findings.operations(Interrupted(tree, 4)) == 4
    assert findings.operations(None) == 0


@pytest.mark.parametrize("caught", [True, False])
def test_the_command_fails_when_a_bug_is_not_caught(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caught: bool
) -> None:
    def pretended(name: str, progress: object = None, what: object = None) -> SimpleNamespace:
        return SimpleNamespace(path=Path("bug" if what else "reference"))

    def tested(kernel: Path, seed: int, every: bool) -> tuple[Finding, ...]:
        return CAUGHT.found if caught and kernel.name == "bug" else ()

    monkeypatch.setattr(building, "build", pretended)
    monkeypatch.setattr(examined, "scenarios", lambda kernel: ())
    monkeypatch.setattr(examined, "random_tests", tested)
    monkeypatch.setattr(examined, "_run", lambda words, good: 1 if words[-1].endswith("bug") else 0)
    monkeypatch.setattr("sys.argv", ["sensitivity", "--seed=7", QUICKEST])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / "bench/sensitivity"), run_name="__main__")
    out = capsys.readouterr().out
    assert ended.value.code == (0 if caught else 1)
    assert out.startswith("--seed=7\n")
    assert out.endswith("1 bugs, all caught\n" if caught else f"{QUICKEST}: caught by nothing\n")


# One of them for real.


def test_a_bug_is_caught_by_a_random_test_and_shown_by_what_it_leaves() -> None:
    reference = build("6.12", progress=Silent()).path
    kernel = build("6.12", progress=Silent(), what=with_patch("6.12", bugs()[QUICKEST].patch)).path
    assert kernel != reference
    [found] = random_tests(kernel, 1, every=False, where=[FIRST_TEST])
    assert found.test == FIRST_TEST.rpartition(":")[2] and found.examples < 100 and found.operations == 0
    assert replayed(found.example, kernel, reference).proves


def test_findings_are_read_back(tmp_path: Path) -> None:
    assert findings.read(tmp_path / "none") == []
    (tmp_path / "one").write_text(json.dumps(CAUGHT.found[0].__dict__) + "\n")
    assert findings.read(tmp_path / "one") == list(CAUGHT.found)
