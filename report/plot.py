# SPDX-License-Identifier: GPL-2.0-only
"""Draw what a lazy run has recorded: requests of the lower over time, how much is there, what happened when.

    python -m report.plot RECORD.json PLOT.png

A program of its own, as nothing else needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")  # draws into a file, wherever it is started

from matplotlib.figure import Figure

_MARKED: Final = (
    *("first byte", "first program", "first import", "populated", "detached", "killed", "stopped", "goes on"),
)
_COLOURS: Final = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#bbbbbb")


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw it into the PNG file `path`. Raises OSError."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    requests = figure.subplots()
    if counts := record["requests"]:
        seconds = [second + 0.5 for second in range(max(map(len, counts.values())))]
        requests.stackplot(seconds, *counts.values(), labels=counts.keys(), colors=_COLOURS, step="mid")
    requests.set_xlim(0, record["seconds"])
    requests.set_xlabel("seconds since the mount")
    requests.set_ylabel("requests of the lower per second")
    requests.set_title(f"Lazy loading: {record['title']}", loc="left")
    share = requests.twinx()
    share.set_ylim(0, 105)
    share.set_ylabel("% of the files, of the objects")
    for what, colour in (("populated", "#ee6677"), ("migrated", "#aa3377")):
        points = [(0.0, 0.0), *record[what]]
        share.plot([when for when, _ in points], [100 * part for _, part in points], color=colour, label=f"{what} %")
    _mark(share, record)
    figure.legend(loc="outside lower center", ncols=7, fontsize=9)
    figure.savefig(path, format="png", dpi=80)


def _mark(axes: Any, record: dict[str, Any]) -> None:
    """A line for each event, its name at a height of its own."""
    events = sorted((when, words) for words, when in record["events"].items() if words in _MARKED)
    for number, (when, words) in enumerate(events):
        axes.axvline(when, color="#333333", linewidth=0.8, linestyle=":")
        late = when > 0.8 * record["seconds"]  # no room on its right
        axes.annotate(f"{words} {when:.1f} s", (when, 100 - 6 * (number % 8)), xytext=(-3 if late else 3, 0),
                      textcoords="offset points", fontsize=8, ha="right" if late else "left")  # fmt: skip


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
