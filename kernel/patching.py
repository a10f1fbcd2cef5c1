# SPDX-License-Identifier: GPL-2.0-only
"""Apply patches to a source tree and take them off again, leaving the build's objects usable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kernel.errors import BuildError
from kernel.process import run_logged

_TOUCHED = re.compile(r"^(?:---|\+\+\+) [ab]/(\S+)", re.M)


class Patched:
    """Context: `tree` with `patches` (names sorted by the caller) applied; on exit its files are as they were.

    Only the files that the patches touch get a new time, so that a build of the same tree with other patches is a
    matter of seconds. Raises `BuildError`, naming patch and file, for a patch that does not fit exactly.
    """

    def __init__(self, tree: Path, patches: Sequence[Path], log: Path) -> None:
        self._tree = tree
        self._patches = patches
        self._log = log
        self._original: dict[Path, bytes | None] = {}

    def __enter__(self) -> Patched:
        try:
            for patch in self._patches:
                self._remember(patch)
                apply(self._tree, patch, self._log)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def original(self, path: Path) -> bytes | None:
        """What the file `path` of the tree is without the patches; None if it is not there without."""
        return self._original[path] if path in self._original else path.read_bytes()

    def _remember(self, patch: Path) -> None:
        for name in touched(patch):
            path = self._tree / name
            if path not in self._original:
                self._original[path] = path.read_bytes() if path.exists() else None

    def _restore(self) -> None:
        for path, content in self._original.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


def touched(patch: Path) -> list[str]:
    """The files a patch changes, makes or removes, relative to the tree."""
    return sorted(set(_TOUCHED.findall(patch.read_text(errors="replace"))))


def apply(tree: Path, patch: Path, log: Path) -> None:
    """Apply one patch, all of it or nothing; context lines must match exactly."""
    fits, failed = _try(tree, patch, log, "--dry-run")
    if not fits:
        where = f" at {', '.join(failed)}" if failed else ""
        raise BuildError(f"{patch.name} does not fit this source{where}", log)
    if not _try(tree, patch, log)[0]:
        raise BuildError(f"{patch.name} could not be applied", log)


def applied_already(tree: Path, patch: Path, log: Path) -> bool:
    """Whether the tree has the change of `patch`."""
    return _try(tree, patch, log, "--dry-run", "--reverse")[0]


def _try(tree: Path, patch: Path, log: Path, *options: str) -> tuple[bool, list[str]]:
    """Run patch(1); returns whether it went well, and the files where it did not."""
    lines: list[str] = []
    # Not --batch: with it, patch(1) turns a patch around that seems to be applied and calls that a success.
    command = ["patch", "-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-", *options]
    try:
        run_logged([*command, "-i", patch.resolve()], log, "patch", cwd=tree, on_line=lines.append)
    except BuildError:
        return False, _failed(lines)
    return True, []


def _failed(lines: Sequence[str]) -> list[str]:
    """The files for which patch(1) says that a hunk failed or that there is no such file."""
    failed, file = [], ""
    for line in lines:
        if found := re.match(r"(?:(?:checking|patching) file '?|\|\+\+\+ [ab]/)([^'\s]+)'?", line):
            file = found[1]
        elif file and file not in failed and re.search(r"FAILED|ignored|previously applied|find file", line):
            failed.append(file)
    return failed
