"""Blobs are whole or not there, of this boot, and not more than they may be."""

from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mapd.maps.blobs import BtfBlobs

BOOT = uuid.UUID(int=7)
TYPES = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 3) + bytes(12) + b"\0a\0"
"""A header, types and strings, as long as the header says."""


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_blob_is_found_by_its_map_also_after_a_restart(tmp_path: Path) -> None:
    BtfBlobs(tmp_path / "state" / "btf", BOOT).keep(41, TYPES)
    again = BtfBlobs(tmp_path / "state" / "btf", BOOT)
    assert again.find(41) == TYPES
    assert again.find(42) is None
    file = tmp_path / "state" / "btf" / str(BOOT) / "41"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_another_boot_has_none_of_them(tmp_path: Path) -> None:
    BtfBlobs(tmp_path, BOOT).keep(41, b"types")
    (tmp_path / "mine").touch()
    assert BtfBlobs(tmp_path, uuid.UUID(int=8)).find(41) is None
    assert files(tmp_path) == {"mine"}


def test_the_oldest_go_when_there_is_no_more_room(tmp_path: Path) -> None:
    blobs = BtfBlobs(tmp_path, BOOT, total=10)
    for number in range(1, 5):
        blobs.keep(number, bytes(4))
    assert files(tmp_path) == {f"{BOOT}/3", f"{BOOT}/4"}
    blobs.keep(5, bytes(11))
    assert blobs.find(5) is None


def test_a_smaller_room_is_kept_from_the_start_on(tmp_path: Path) -> None:
    blobs = BtfBlobs(tmp_path, BOOT)
    for number in range(1, 4):
        blobs.keep(number, bytes(4))
        os.utime(tmp_path / str(BOOT) / str(number), ns=(number, number))
    BtfBlobs(tmp_path, BOOT, total=8)
    assert files(tmp_path) == {f"{BOOT}/2", f"{BOOT}/3"}


def test_what_was_not_finished_is_none_and_goes(tmp_path: Path) -> None:
    BtfBlobs(tmp_path, BOOT)
    (tmp_path / str(BOOT) / "41.new").write_bytes(b"ty")
    assert BtfBlobs(tmp_path, BOOT).find(41) is None
    assert files(tmp_path) == set()


@pytest.mark.parametrize("kept", [b"", TYPES[:23], TYPES[:-1], TYPES + b"\0", b"\0" + TYPES[1:]])
def test_a_blob_of_another_length_than_its_header_says_is_damaged_and_not_given(
    tmp_path: Path, kept: bytes
) -> None:
    blobs = BtfBlobs(tmp_path, BOOT)
    blobs.keep(41, TYPES)
    assert not blobs.is_damaged(41)
    blobs.path_of(41).write_bytes(kept)
    assert blobs.is_damaged(41)
    assert blobs.find(41) is None
    assert blobs.path_of(41).read_bytes() == kept, "whoever looks for the reason finds it as it was"


def test_a_map_without_a_blob_has_no_damaged_one(tmp_path: Path) -> None:
    assert not BtfBlobs(tmp_path, BOOT).is_damaged(41)


def test_a_blob_that_cannot_be_written_is_told_in_the_log(tmp_path: Path) -> None:
    blobs = BtfBlobs(tmp_path, BOOT)
    (tmp_path / str(BOOT)).rmdir()
    with capture_logs() as logged:
        blobs.keep(41, b"types")
    assert [(event["map"], event["log_level"]) for event in logged] == [(41, "warning")]
    assert blobs.find(41) is None


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        BtfBlobs(tmp_path / "file" / "btf", BOOT)
