# SPDX-License-Identifier: GPL-2.0-only
"""Commits on top of a repository that leave no trace in it: index and objects are elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from overlay_xfstests.suite import File
from union.errors import SetupError, UsageError


class Repository:
    """The git repository of the checkout `top`, on whose commit `base` the new ones are; `scratch` gets these.

    Raises:
        UsageError: there is none, or no such commit.
        SetupError: git is missing.
    """

    def __init__(self, top: Path, base: str, scratch: Path) -> None:
        self._top = top
        self._environment = dict(os.environ)
        if self._asked(f"{top} is no git repository of its own", "rev-parse", "--show-cdup"):
            raise UsageError(f"{top} is not the top of its git repository")
        objects = self._git("rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
        self.base = self._asked(f"{top} has no commit {base}", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        (scratch / "objects").mkdir()
        others = os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "")
        self._environment |= {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(filter(None, [objects, others])),
        }
        self._tip = self.base
        self._git("read-tree", self.base)

    def names(self, folder: str) -> list[str]:
        """The names in that folder of the base."""
        listing = self._git("ls-tree", "-z", "--name-only", self.base, f"{folder}/")
        return [Path(name).name for name in listing.split("\0") if name]

    def read(self, path: str) -> File | None:
        """The file at `path` in the base, or None; its mode is what git keeps of it."""
        entry = self._git("ls-tree", "-z", self.base, path)
        if not entry:
            return None
        mode, _, name = entry.partition("\t")[0].split(" ")
        return File(self._run("cat-file", "blob", name), int(mode, 8) & 0o777)

    def signature(self) -> str:
        """Who the user is, as a commit's trailer says it.

        Raises:
            UsageError: git does not know.
        """
        unknown = f"git does not know who you are: git -C {self._top} config user.name, and user.email"
        who = self._asked(unknown, "var", "GIT_COMMITTER_IDENT")
        return f"Signed-off-by: {who.rpartition('>')[0]}>"

    def commit(self, files: Mapping[str, File], message: str) -> None:
        """One commit more, with these files."""
        for path, file in files.items():
            name = self._run("hash-object", "-w", "--stdin", data=file.data).decode().strip()
            mode = "100755" if file.mode & 0o100 else "100644"
            self._git("update-index", "--add", "--cacheinfo", f"{mode},{name},{path}")
        tree = self._git("write-tree").strip()
        self._tip = self._run("commit-tree", tree, "-p", self._tip, data=message.encode()).decode().strip()

    def format_patches(self, folder: Path, options: Sequence[str]) -> list[Path]:
        """Writes the new commits as patches with a cover letter into `folder`; their paths."""
        written = self._git(
            *("format-patch", "--cover-letter", "--numbered", f"--base={self.base}", f"--output-directory={folder}"),
            *(*options, f"{self.base}..{self._tip}"),
        )
        return [Path(line) for line in written.splitlines()]

    def _asked(self, otherwise: str, *words: str) -> str:
        """What git answers; if it refuses, the user is told `otherwise`."""
        try:
            return self._git(*words).strip()
        except SetupError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise
            raise UsageError(f"{otherwise}; {error}") from error

    def _git(self, *words: str) -> str:
        return self._run(*words).decode(errors="surrogateescape")

    def _run(self, *words: str, data: bytes = b"") -> bytes:
        try:
            done = subprocess.run(
                ["git", "-C", str(self._top), "-c", "user.useConfigOnly=true", *words],  # no guessed name
                input=data,
                capture_output=True,
                env=self._environment,
            )
        except FileNotFoundError as error:
            raise SetupError("git is missing") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise SetupError(f"git {words[0]} failed: {said or done.returncode}")
        return done.stdout
