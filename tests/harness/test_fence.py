# SPDX-License-Identifier: GPL-2.0-only
"""The fence: it bites, it says so, and it never falls on a filesystem that is not ours."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from datasets.reference import reference
from datasets.tree import Directory
from tests.harness.isolated import isolated, needs_xfs
from union import programs, syscalls
from union.configuration import Configuration
from union.errors import SetupError, Unsupported
from union.fence import CannotFence
from union.fences import disk
from union.fences.disk import Shutdown
from union.filesystems import Layer
from union.layers import LayerStack, build_layers

TREE = reference({"top": 1})


def xfs(stack: ExitStack, tree: Directory = TREE) -> LayerStack:
    return build_layers(stack, [tree], Configuration(lower_fs="xfs"))


def test_a_tmpfs_cannot_be_fenced() -> None:
    with pytest.raises(CannotFence, match="lower layer is tmpfs") as caught:
        Shutdown(Layer(Path("/nowhere"), "tmpfs", 1, "lower_layer", "0:1"))
    assert isinstance(caught.value, Unsupported)


@needs_xfs
@isolated
def test_the_fence_bites_on_a_read_only_xfs_and_says_so() -> None:
    with ExitStack() as stack:
        made = xfs(stack)
        shutdown = Shutdown(made.lower)
        with pytest.raises(SetupError, match="after the fence"):
            shutdown.self_test()
        shutdown.fence()
        evidence = shutdown.self_test()
        assert "12 bytes of top/foo100" in evidence
        assert "EIO" in evidence
        assert shutdown.caught == dict.fromkeys(["lookup", "stat", "listing", "read"], "EIO")
        assert shutdown.self_test(cold=True) == evidence
        with pytest.raises(OSError, match="Input/output error"):
            (made.lower.root / "top/rootfile100").read_bytes()


@needs_xfs
@isolated
def test_a_fence_that_does_not_bite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        shutdown = Shutdown(xfs(stack).lower)
        monkeypatch.setattr(disk, "run_quietly", lambda *args: None)
        shutdown.fence()
        with pytest.raises(SetupError, match=r"does not bite.*lookup as before.*read as before.*instead of EIO"):
            shutdown.self_test()


@needs_xfs
@isolated
def test_what_is_mounted_over_the_layer_is_not_fenced() -> None:
    with ExitStack() as stack:
        made, other = xfs(stack), xfs(stack)
        syscalls.mount(str(other.lower.root), made.lower.root, None, syscalls.MS_BIND)
        stack.callback(syscalls.umount, made.lower.root)
        with pytest.raises(SetupError, match="not what this run mounted there"):
            Shutdown(made.lower).fence()
        assert (other.lower.root / "top/foo100").read_bytes()


@needs_xfs
@isolated
def test_a_layer_that_is_gone_is_not_fenced() -> None:
    with ExitStack() as stack:
        lower = xfs(stack).lower
        stack.pop_all().close()
        with pytest.raises(SetupError, match="gone"):
            Shutdown(lower).fence()


@needs_xfs
@isolated
def test_a_lower_that_was_dead_before_proves_nothing() -> None:
    with ExitStack() as stack:
        made = xfs(stack)
        Shutdown(made.lower).fence()
        with pytest.raises(SetupError, match="cannot be read before the fence"):
            Shutdown(made.lower).fence()


@needs_xfs
@isolated
def test_a_lower_without_content_has_no_canary() -> None:
    with ExitStack() as stack, pytest.raises(SetupError, match="has no file"):
        Shutdown(xfs(stack, Directory({"empty": Directory()})).lower).fence()


@needs_xfs
@isolated
def test_a_missing_or_failing_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        lower = xfs(stack).lower
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(programs, "_SYSTEM_PATH", str(tmp_path))
        with pytest.raises(SetupError, match=r"xfs_io is not installed .*xfsprogs"):
            Shutdown(lower).fence()
        (tmp_path / "xfs_io").write_text("#!/bin/sh\necho 'foreign file active'\n")
        (tmp_path / "xfs_io").chmod(0o755)
        with pytest.raises(SetupError, match=r"xfs_io -x -c shutdown .*: foreign file active"):
            Shutdown(lower).fence()
