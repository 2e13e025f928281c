"""A snapshot's file: written whole or not at all, and nothing that was changed in it is believed."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mapd_api.uapi import MapFlag, MapType
from mapd_client import MapNotFound, Misuse, replies
from mapd_client.snapshots import BadSnapshot, Snapshot, read
from mapd_client.snapshots.manifest import MEMBER, Kept, Manifest, Part, spec_of
from mapd_client.snapshots.taking import unfit
from mapd_client.snapshots.writing import Writer
from tests.unit.mapd_client.daemon import map_info

_KEYS = bytes(range(8))
_VALUES = bytes(range(16))


def kept(*parts: Part, **more: Any) -> Kept:
    fields: dict[str, Any] = {
        "name": "ns/flows",
        "label": "flows",
        "type": "hash",
        "key_size": 4,
        "value_size": 8,
        "key_stride": 4,
        "value_stride": 8,
        "max_entries": 10,
        "flags": 0,
        "map_extra": 0,
        "kernel_name": "flows",
        "pin_path": "",
        "frozen": False,
        "slots": 1,
        "entries": sum(part.rows for part in parts),
        "types": None,
        "parts": parts,
        "trailer": {"complete": True},
    }
    return Kept(**{**fields, **more})


def written(path: Path, **more: Any) -> Path:
    writer = Writer(path)
    part = writer.rows("0000/000000.rows", memoryview(_KEYS), memoryview(_VALUES), 2)
    writer.finish(manifest(kept(part, **more)))
    return path


def _names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def manifest(*maps: Kept) -> Manifest:
    return Manifest(taken_at="2026-01-01T00:00:00+00:00", host={"byteorder": "little"}, maps=maps)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with read(written(tmp_path / "x.snap")) as found:
        one = found["flows"]
        assert list(one.items()) == [(_KEYS[:4], _VALUES[:8]), (_KEYS[4:], _VALUES[8:])]
        assert one.kept.type == "hash"
        assert found["ns/flows"] is one
        with pytest.raises(MapNotFound, match="it has flows"):
            _ = found["other"]


def test_only_its_owner_reads_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = written(tmp_path / "x.snap")
    assert path.stat().st_mode & 0o777 == 0o600
    assert _names(tmp_path) == ["x.snap"]


def test_any_unzip_opens_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path / "x.snap")) as archive:
        assert archive.testzip() is None
        said = json.loads(archive.read(MEMBER))
    assert (said["format"], said["version"]) == ("mapd-snapshot", 1)


def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    data = written(tmp_path / "x.snap").read_bytes()
    cut = tmp_path / "cut.snap"
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        with pytest.raises(BadSnapshot, match=r"cut\.snap"):
            read(cut)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "x.snap")
    data = path.read_bytes()
    with read(path) as found:
        whole = [(asdict(one.kept), list(one.items())) for one in found.maps]
    refused = 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            with read(path) as found:
                assert [(asdict(one.kept), list(one.items())) for one in found.maps] == whole, at
        except BadSnapshot:
            refused += 1
    assert refused > len(data) // 2, "the rest is what zip keeps twice, or nobody reads"


_GONE = object()


def _rewritten(path: Path, where: str, what: object) -> Path:
    """The same archive with another manifest, and a CRC that fits it."""
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    said: Any = json.loads(members[MEMBER])
    *folders, last = where.split(".")
    inside = said
    for one in folders:
        inside = inside[int(one) if one.isdigit() else one]
    if what is _GONE:
        del inside[last]
    else:
        inside[last] = what
    members[MEMBER] = json.dumps(said).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("where", "what", "why"),
    [
        ("version", 2, "of version 2, this mapctl reads version 1"),
        ("format", "other", "format 'other'"),
        ("maps", _GONE, "KeyError: 'maps'"),
        ("maps.0.flags", _GONE, "'flags'"),
        ("maps.0.key_size", "4", "key_size is '4', no int"),
        ("maps.0.type", "nosuch", "type 'nosuch' is not known"),
        ("maps.0.entries", 3, "3 elements are said"),
        ("maps.0.value_stride", 16, "a value of 8 bytes has 8 in a column, not 16"),
        ("maps.0.parts.0.member", "../x", "../x is missing"),
        ("maps.0.parts.0.sha256", "0" * 64, "not what was written"),
        ("maps.0.parts", 7, "TypeError"),
        ("maps.0.parts.0.rows", -2, "rows is -2, less than nothing"),
        ("maps.0.parts.0.rows", 2.0, "rows is 2.0, no int"),
        ("maps.0.parts.0.member", ["x"], "member is ['x'], no str"),
        (
            "maps.0.types",
            {"member": "x", "sha256": "", "key_type_id": "1", "value_type_id": 2},
            "key_type_id is '1', no int",
        ),
        ("maps.0.max_entries", -1, "max_entries is -1, less than nothing"),
        ("maps.0.key_size", 8, "a key of 8 bytes has 8 in a column, not 4"),
        ("maps.0.value_size", 4, "a value of 4 bytes has 4 in a column, not 8"),
        ("maps.0.slots", 2, "a map of type hash has no values of 2 CPUs"),
        ("maps.0.type", "percpu_hash", None),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    tmp_path: Path, where: str, what: object, why: str | None
) -> None:
    path = _rewritten(written(tmp_path / "x.snap"), where, what)
    if why is None:  # as good as it was
        read(path).close()
        return
    with pytest.raises(BadSnapshot, match=r"x\.snap") as caught:
        read(path)
    assert why in str(caught.value)


def test_a_member_that_swells_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.snap"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, bytes(65 << 20))
    with pytest.raises(BadSnapshot, match="at most 8388608 are read"):
        read(path)


def test_a_manifest_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.snap"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, b"[" * 1_000_000)
    with pytest.raises(BadSnapshot, match="RecursionError"):
        read(path)


def test_a_snapshot_whose_manifest_nobody_would_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapd_client.snapshots.writing.MOST", 10)
    writer = Writer(tmp_path / "x.snap")
    with pytest.raises(Misuse, match="at most 10 are read: take fewer maps"):
        writer.finish(manifest(kept()))
    writer.abandon()
    assert not _names(tmp_path)


def test_one_member_is_the_rows_of_one_part(tmp_path: Path) -> None:
    """Else a small file would be read for hours: a million parts of one member that swells."""
    path = tmp_path / "x.snap"
    writer = Writer(path)
    part = writer.rows("0000/000000.rows", memoryview(_KEYS), memoryview(_VALUES), 2)
    writer.finish(manifest(kept(part, part)))
    with pytest.raises(BadSnapshot, match=r"0000/000000\.rows is named twice"):
        read(path)


def test_rows_that_swell_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.snap"
    writer = Writer(path)
    part = writer.rows("rows", memoryview(bytes(8 << 20)), memoryview(b""), 1)
    writer.finish(manifest(kept(part)))
    seen: list[str] = []
    read_whole = Snapshot.member

    def noted(self: Snapshot, name: str, sha256: str) -> bytes:
        seen.append(name)
        return read_whole(self, name, sha256)

    monkeypatch.setattr(Snapshot, "member", noted)
    with pytest.raises(BadSnapshot, match="rows has 8388608 bytes, 1 elements of flows have 12"):
        read(path)
    assert not seen


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_are_stored_or_deflated(tmp_path: Path, method: int) -> None:
    """LZMA's decoder takes the memory that the file asks for."""
    path = written(tmp_path / "x.snap")
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(BadSnapshot, match="neither stored nor deflated"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"no zip", bytes(100)])
def test_another_file_is_no_snapshot(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(BadSnapshot, match="no snapshot"):
        read(path)
    with pytest.raises(BadSnapshot, match="No such file"):
        read(tmp_path / "nothing")


def test_the_file_is_on_disk_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, fsync = tmp_path / "x.snap", list[tuple[str, bool]](), os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().suffix, path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    written(path)
    assert synced == [(".partial", False), ("", True)]


_PLAIN = {
    "hash",
    "array",
    "percpu_hash",
    "percpu_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "queue",
    "stack",
    "stack_trace",
    "bloom_filter",
    "ringbuf",
    "user_ringbuf",
    "arena",
    "unspec",
}
"""What is in these are bytes; whether they can be dumped and loaded is another matter."""


@pytest.mark.parametrize("type", MapType, ids=lambda one: one.name.lower())
def test_contents_that_are_objects_of_the_kernel_are_kept_in_no_file(type: MapType) -> None:
    able = replace(replies.map_info(map_info("ns/x", type)), supported_operations=frozenset({"dump", "load"}))
    assert ("objects of the kernel" in unfit(able)) is (able.type_name not in _PLAIN)
    unable = replace(able, supported_operations=frozenset({"dump"}))
    assert unfit(unable)


def test_flags_of_a_descriptor_or_a_host_are_no_part_of_a_map() -> None:
    info = replies.map_info(map_info("ns/x"))
    flags = MapFlag.NO_PREALLOC | MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.NUMA_NODE | MapFlag.RDONLY_PROG
    said = spec_of(replace(info, flags=flags), "x")
    assert said["flags"] == MapFlag.NO_PREALLOC | MapFlag.RDONLY_PROG


def test_what_was_abandoned_leaves_nothing_and_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.snap")
    data = path.read_bytes()
    writer = Writer(path)
    writer.add("0000/btf", b"begun")
    writer.abandon()
    assert _names(tmp_path) == ["x.snap"]
    assert path.read_bytes() == data


def test_what_a_dead_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x[1].snap"
    dead, other = tmp_path / ".x[1].snap.abcd.partial", tmp_path / ".y.snap.abcd.partial"
    for left in (dead, other):
        left.write_bytes(b"begun")
    live = Writer(path)
    second = Writer(path)
    assert not dead.exists(), "nobody holds it locked"
    assert other.exists(), "of another snapshot"
    live.finish(manifest())
    second.finish(manifest())
    assert _names(tmp_path) == [".y.snap.abcd.partial", "x[1].snap"]
