"""POSIX ACLs in the kernel's own bytes, compared with what getfacl(1) shows for them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mapd.rpc.acl import ATTRIBUTE, admit, encode


def entry(tag: str, permissions: str, number: str = "ffffffff") -> str:
    """One entry as hex: tag and permissions of two bytes, an id of four, little-endian."""
    return tag + permissions + number


def test_an_acl_is_version_2_and_entries_sorted_by_tag_and_id() -> None:
    # getfacl: user::rw- user:1000:rw- user:65534:rw- group::--- group:7:rw- mask::rw- other::---
    expected = (
        "02000000"
        + entry("0100", "0600")
        + entry("0200", "0600", "e8030000")
        + entry("0200", "0600", "feff0000")
        + entry("0400", "0000")
        + entry("0800", "0600", "07000000")
        + entry("1000", "0600")
        + entry("2000", "0000")
    )
    assert encode(6, [65_534, 1_000, 1_000], {7}, 6).hex() == expected


def test_a_folder_is_searched_by_those_admitted_and_nobody_else() -> None:
    # getfacl: user::rwx group::--- group:7:r-x mask::r-x other::---
    assert encode(7, (), (7,), 5).hex() == (
        "02000000"
        + entry("0100", "0700")
        + entry("0400", "0000")
        + entry("0800", "0500", "07000000")
        + entry("1000", "0500")
        + entry("2000", "0000")
    )


def test_the_kernel_takes_it_and_gives_it_back(tmp_path: Path) -> None:
    file = tmp_path / "socket"
    file.touch(0o755)
    try:
        os.setxattr(file, ATTRIBUTE, encode(6, {1}, (), 6))
    except OSError:
        pytest.skip("this file system keeps no ACLs")
    admit(str(file), 6, {65_534, 12}, {7}, 6)
    assert os.getxattr(file, ATTRIBUTE) == encode(6, {12, 65_534}, {7}, 6)
    # The group bits of the mode show the mask; others have nothing.
    assert stat.S_IMODE(file.stat().st_mode) == 0o660


def test_without_anybody_to_admit_the_mode_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "socket"
    file.touch(0o777)
    admit(str(file), 6, (), (), 6)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    admit(str(tmp_path), 7, (), (), 5)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
