# SPDX-License-Identifier: GPL-2.0-only
"""POSIX ACLs as values."""

from __future__ import annotations

import struct

import pytest

from datasets.acl import Acl


def test_an_acl_is_read_back_as_it_was_written() -> None:
    value = Acl.of("u::rwx,u:7:r--,g::---,g:8:-w-,m::rw-,o::--x")
    assert Acl.parse(value.raw) == value
    assert value.raw[:4] == struct.pack("<I", 2) and len(value.raw) == 4 + 6 * 8
    assert value.mode == 0o761
    with pytest.raises(ValueError, match="no 5 bytes"):
        Acl.parse(b"12345")


@pytest.mark.parametrize(
    ("text", "valid", "minimal"),
    [
        ("u::rw-,g::r--,o::r--", True, True),
        ("u::rw-,g::r--,m::r--,o::r--", True, False),
        ("u::rw-,u:1:r--,g::r--,m::r--,o::r--", True, False),
        ("u::rw-,u:1:r--,g::r--,o::r--", False, False),
        ("u::rw-,o::r--", False, True),
        ("g::r--,u::rw-,o::r--", False, True),
        ("u::rw-,g::r--,m::r--,m::r--,o::r--", False, False),
    ],
)
def test_which_acls_the_kernel_takes_and_which_are_no_more_than_bits(text: str, valid: bool, minimal: bool) -> None:
    assert (Acl.of(text).valid, Acl.of(text).minimal) == (valid, minimal)


def test_chmod_and_inheritance_change_the_mask_if_there_is_one() -> None:
    masked, plain = Acl.of("u::rwx,u:1:rwx,g::r-x,m::rwx,o::---"), Acl.of("u::rwx,g::r-x,o::r-x")
    assert masked.with_mode(0o640) == Acl.of("u::rw-,u:1:rwx,g::r-x,m::r--,o::---")
    assert plain.with_mode(0o640) == Acl.of("u::rw-,g::r--,o::---")
    assert masked.inherited(0o666) == Acl.of("u::rw-,u:1:rwx,g::r-x,m::rw-,o::---")


@pytest.mark.parametrize(
    ("text", "who", "access", "may"),
    [
        ("u::---,u:1:rw-,g::rw-,m::rw-,o::rw-", "owner", 4, False),
        ("u::rw-,u:1:rw-,g::---,m::r--,o::---", "named", 4, True),
        ("u::rw-,u:1:rw-,g::---,m::r--,o::rw-", "named", 2, False),
        ("u::rw-,g::---,g:1:rw-,m::rw-,o::---", "named", 6, True),
        ("u::rw-,g::---,g:1:r--,m::rw-,o::rwx", "named", 2, False),
        ("u::rw-,u:7:---,g::---,m::rw-,o::r--", "named", 4, True),
    ],
)
def test_whom_an_acl_permits_what(text: str, who: str, access: int, may: bool) -> None:
    assert Acl.of(text).permits(who == "owner", 1, 1, 0, access) is may
