# SPDX-License-Identifier: GPL-2.0-only
"""A Makefile that plays Linux, the same targets and files done in no time, and patches for it."""

from __future__ import annotations

from pathlib import Path

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 5
allnoconfig:
\tgrep -v DROPPED "$(KCONFIG_ALLCONFIG)" >.config
\techo CONFIG_MORE=y >>.config
linux:
\t@echo "  CC      fs/overlayfs/super.o"
\t@echo compiled >>"{count}"
\t@if grep -n "error:" fs/overlayfs/super.c; then exit 1; fi
\t@{action}
\t@printf '#!/bin/sh\\necho 6.12.5$(LOCALVERSION)\\n' >linux; cat fs/overlayfs/super.c >>linux; chmod +x linux
"""

FIX = """\
Some words, and what looks like a header.

--- a/arch/um/fixme.c
+++ b/arch/um/fixme.c
@@ -1,1 +1,1 @@
-# broken
+# mended
"""

PATCH = """\
--- a/fs/overlayfs/super.c
+++ b/fs/overlayfs/super.c
@@ -1,2 +1,2 @@
 # first
-# second
+# patched
--- /dev/null
+++ b/fs/overlayfs/new.c
@@ -0,0 +1,1 @@
+# new
"""


COUNT = """\
--- a/fs/overlayfs/super.c
+++ b/fs/overlayfs/super.c
@@ -1,2 +1,3 @@
 # first
 # patched
+# counted
"""


def make_ingredients(tmp_path: Path) -> Path:
    """A directory with patches, fixes, a flavour and fragments, as `kernel/` has them."""
    root = tmp_path / "kernel"
    for kind in ("patches", "fixes"):
        (root / kind / "6.12").mkdir(parents=True)
    (root / "patches/6.12/0001-change.patch").write_text(PATCH)
    (root / "fixes/6.12/0001-fix.patch").write_text(FIX)
    (root / "uml.config").write_text("# a comment\nCONFIG_ONE=y\nCONFIG_TWO=5\n")
    (root / "flavours/counting-6.12").mkdir(parents=True)
    (root / "flavours/counting-6.12/0001-count.patch").write_text(COUNT)
    (root / "flavours/counting-6.12/uml.config").write_text("CONFIG_TWO=6\n")
    return root


def make_tree(tmp_path: Path, action: str = "true") -> Path:
    """A directory that plays Linux; `action` is a shell command of its compilation."""
    tree = tmp_path / "linux tree"
    for name in ("arch/um", "arch/arm", "fs/overlayfs", "include/generated", ".git"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "Makefile").write_text(MAKEFILE.format(count=tmp_path / "count", action=action))
    (tree / "arch/um/fixme.c").write_text("# broken\n")
    (tree / "fs/overlayfs/super.c").write_text("# first\n# second\n")
    for left_by_a_build in (".config", "include/generated/utsrelease.h", "fs/overlayfs/super.o", "arch/arm/x.c"):
        (tree / left_by_a_build).write_text("left\n")
    return tree
