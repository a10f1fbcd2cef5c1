# SPDX-License-Identifier: GPL-2.0-only
"""Lazy runs that must go wrong, to be carried out in a guest: python -m tests.detach.lazy_controls IMAGE.

Prints a line of JSON for each: its name, its complaints, how many objects or steps gave wrong data, how many errors.
"""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

from union.fuse.server import Action, Rule
from union.fuse.wire import Op
from union.lazy import image
from union.lazy import run as lazy
from union.lazy.run import Plan
from union.workspace import enter_private_namespace


def main(tree: Path) -> None:
    """Carry all of them out."""
    enter_private_namespace()
    content = image.read(tree)
    plan = Plan(tree, pause=0.02, goes_on=0.5)
    some = "srv/d1/*"
    controls = {
        "xino=on": replace(plan, xino="on"),
        "wrong data": replace(plan, rules=(Rule(Action.WRONG, frozenset({Op.READ}), some),)),
        "empty listings": replace(plan, rules=(Rule(Action.WRONG, frozenset({Op.READDIR}), some),)),
        "names are missing": replace(plan, rules=(Rule(Action.FAIL, frozenset({Op.LOOKUP}), some, errno.ENOENT),)),
        "errors": replace(plan, rules=(Rule(Action.FAIL, frozenset({Op.OPEN}), some, errno.EIO),)),
        "no control": plan,
    }
    for name, control in controls.items():
        told = lazy.play(control, content)
        print(json.dumps([name, told.complaints, told.wrong, told.errors]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
