# SPDX-License-Identifier: GPL-2.0-only
"""The table and the plot of a lazy run, of runs that were never carried out."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command.lazy import draw
from tests.harness.small_image import files
from union.errors import SetupError
from union.fuse.log import Asked
from union.lazy import image
from union.lazy.crew import Account, Result
from union.lazy.plan import Rate
from union.lazy.population import Population
from union.lazy.run import Plan, Told
from union.lazy.table import copied_twice, kind_of, record, rows
from union.lazy.workload import Changes

MIGRATOR, WORKER = 7, 8
MB = 1 << 20
RECORD: dict[str, Any] = {
    "title": "story, 6.12",
    "seconds": 9.5,
    "requests": {"names": [5, 900, 1200, 30, 0, 0, 0, 0, 0, 0], "content": [1, 300, 800, 3, 0, 0, 0, 0, 0, 0]},
    "populated": [[0.5, 0.1], [1.5, 0.6], [2.0, 1.0]],
    "migrated": [[1.0, 0.2], [2.5, 0.7], [3.5, 1.0]],
    "events": {"first byte": 0.1, "populated": 2.0, "detached": 3.6, "killed": 6.6},
}


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """Of a run that began at second 100, was detached at 103 and lost its daemon at 104."""
    tree = files(tmp_path / "tree", 10)
    content = image.read(tree)
    population = Population(content, tmp_path, Rate())
    for number, _ in enumerate(population.files):
        population._times[3 * number] = 100.5 + number / 10
    population._times[1], population._times[2] = 100.25, WORKER
    path, other = population.files[:2]
    results = [
        Result(0, 100.1, 0.2, "read", f"read {path}", "ok", ""),
        Result(1, 104.5, 0.25, "exec", "run true", "ok", ""),
    ]
    asked = [("LOOKUP", path), ("OPEN", path), ("LSEEK", path), ("READ", path), ("GETATTR", other), ("LSEEK", other)]
    return Told(
        Plan(tree),
        content,
        100.0,
        events={"mounted": 100.0, "migration begins": 100.1, "detached": 103.0, "killed": 104.0},
        population=population,
        migrated=[(101.0, 0.5), (102.5, 1.0)],
        migrator=MIGRATOR,
        requests=[Asked(operation, path, MIGRATOR, 101.5, True) for operation, path in asked],
        upper={path: content[path].size for path in population.files},
        account=Account(results, Changes(), {path}, []),
    )


def test_the_table_says_what_was_measured(told: Told) -> None:
    table = dict(rows(told))
    assert table["first byte"] == "0.30 s" and table["first program"] == "4.75 s" and "first import" not in table
    assert (table["populated"], table["migrated"], table["detached"]) == ("1.40 s", "2.50 s", "3.00 s")
    assert table["requests of the lower"] == "6: 1 names, 1 attributes, 4 content"
    assert table["requests after the detach"] == "0" and table["files copied up twice"] == "0"
    assert table["stalls of the workload"] == "1, the longest 0.25 s, in all 0.2 s"
    assert table["steps without the daemon"] == "1, the longest 0.25 s (exec)"


def test_what_did_not_happen_is_not_made_up(told: Told) -> None:
    told.events = {"mounted": 100.0}
    told.migrated = []
    assert told.population is not None
    told.population._times[0] = 0
    table = dict(rows(told))
    assert table["populated"] == table["migrated"] == "never" and "detached" not in table


def test_a_file_that_is_copied_up_twice_is_counted(told: Told) -> None:
    path = told.requests[0].path
    told.requests.append(Asked("LSEEK", path, WORKER, 102.0, True))
    assert copied_twice(told) == [path]
    content = {**told.image, path: told.image[path]._replace(links=2)}  # each of its names gets a copy
    assert copied_twice(replace(told, image=content)) == []
    content = {**told.image, path: told.image[path]._replace(size=MB + 1)}  # in two chunks
    assert copied_twice(replace(told, image=content)) == []


def test_operations_are_counted_in_classes() -> None:
    names = ("LOOKUP", "GETXATTR", "READDIR", "READ", "IOCTL", "STATFS", "operation 99")
    assert list(map(kind_of, names)) == [
        *("names", "attributes", "listings", "content", "content", "attributes", "others"),
    ]


def test_the_record_has_what_is_drawn(told: Told) -> None:
    found = record(told)
    assert found.keys() == RECORD.keys()
    assert found["requests"] == {"names": [0, 1, 0, 0, 0], "attributes": [0, 1, 0, 0, 0], "content": [0, 4, 0, 0, 0]}
    assert found["populated"][-1] == [pytest.approx(1.4), 1.0] and len(found["populated"]) == 10
    assert found["migrated"] == [[1.0, 0.5], [2.5, 1.0]]
    assert found["events"]["killed"] == 4.0


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    images = []
    for name, recorded in (("some", RECORD), ("none", {**RECORD, "requests": {}, "populated": [], "migrated": []})):
        (tmp_path / name).write_text(json.dumps(recorded))
        draw(tmp_path / name, tmp_path / f"{name}.png")
        images.append((tmp_path / f"{name}.png").read_bytes())
    assert images[0].startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", images[0][16:24])
    assert width >= 600 and height >= 300
    assert len(images[0]) > len(images[1]) + 1000  # what is to be seen is seen


def test_a_plot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(json.dumps(RECORD))
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(SetupError, match=r"--plot: .*taken\.png cannot be drawn: .*directory"):
        draw(tmp_path / "record", tmp_path / "taken.png")
