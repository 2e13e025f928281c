from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from mapd.bpf import Batch, BatchCommand, Buffer, Columns, CreateMap, FreezeMap, SyscallError
from mapd_api.ops import Op
from mapd_api.uapi import ENOTSUPP, MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap

HASHES: Final = (MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH)
ARRAYS: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)
KEYED: Final = (*HASHES, MapType.LPM_TRIE)
ALL: Final = (*KEYED, *ARRAYS)


def scan(made: TestMap, count: int) -> dict[bytes, bytes]:
    """Everything by LOOKUP_BATCH; a key that comes twice is an error."""
    found: dict[bytes, bytes] = {}
    cursor = Buffer.allocate(max(4, made.key_size))
    first = True
    while True:
        keys, values = Buffer.allocate(count * made.key_size), Buffer.allocate(count * made.stride)
        columns = Columns(count, keys, made.key_size, values, made.stride)
        answer = KERNEL.lookup_batch(made.fd, cursor, first, columns)
        for index in range(answer.count):
            key = keys.take(made.key_size, index * made.key_size)
            assert key not in found
            found[key] = values.take(made.stride, index * made.stride)
        if answer.errno == errno.ENOENT:
            return found
        if answer.errno == errno.ENOSPC:
            assert answer.count == 0
            count *= 2
            continue
        assert answer.errno == 0
        first = False


@pytest.mark.parametrize("map_type", ALL)
def test_an_updated_element_is_looked_up(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(5)
    assert made.lookup([made.key(n) for n in range(5)]) == [made.value(n) for n in range(5)]


@pytest.mark.parametrize("map_type", KEYED)
def test_an_absent_key_is_enoent_and_the_others_are_answered(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(2)
    keys = [made.key(1), made.key(50), made.key(0)]
    assert made.lookup(keys) == [made.value(1), errno.ENOENT, made.value(0)]
    assert made.each(Op.DELETE, keys) == [0, errno.ENOENT, 0]
    assert made.walk() == []


@pytest.mark.parametrize("map_type", KEYED)
def test_noexist_and_exist_are_conditions(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    one, two = [made.key(1)], [made.value(2)]
    assert made.each(Op.UPDATE_EXIST, one, two) == [errno.ENOENT]
    assert made.each(Op.UPDATE_NOEXIST, one, two) == [0]
    assert made.each(Op.UPDATE_NOEXIST, one, two) == [errno.EEXIST]
    assert made.each(Op.UPDATE_EXIST, one, [made.value(3)]) == [0]
    assert made.lookup(one) == [made.value(3)]


@pytest.mark.parametrize("map_type", HASHES)
def test_lookup_and_delete_takes_the_element_out(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(2)
    assert made.lookup([made.key(0), made.key(7)], Op.LOOKUP_AND_DELETE) == [made.value(0), errno.ENOENT]
    assert made.walk() == [made.key(1)]


def test_lookup_and_delete_on_lpm_is_unsupported(maps: Maps) -> None:
    made = maps.create(MapType.LPM_TRIE)
    made.fill(1)
    assert made.lookup([made.key(0)], Op.LOOKUP_AND_DELETE) == [ENOTSUPP]


@pytest.mark.parametrize("map_type", ARRAYS)
def test_an_array_refuses_delete_and_indexes_past_its_end(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type, max_entries=4)
    assert made.lookup([made.key(3), made.key(4)]) == [made.value(0), errno.ENOENT]
    assert made.each(Op.UPDATE, [made.key(4)], [made.value(1)]) == [errno.E2BIG]
    assert made.each(Op.DELETE, [made.key(0)]) == [errno.EINVAL]
    assert made.walk() == [made.key(n) for n in range(4)]


def test_a_full_hash_says_e2big_for_the_element_only(maps: Maps) -> None:
    made = maps.create(MapType.HASH, max_entries=2)
    keys, values = [made.key(n) for n in (0, 1, 2, 0)], [made.value(n) for n in (0, 1, 2, 9)]
    assert made.each(Op.UPDATE, keys, values) == [0, 0, errno.E2BIG, 0]
    assert made.lookup(keys[:1]) == [made.value(9)]


def test_a_full_trie_says_enospc(maps: Maps) -> None:
    made = maps.create(MapType.LPM_TRIE, max_entries=1)
    keys, values = [made.key(n) for n in (0, 1)], [made.value(n) for n in (0, 1)]
    assert made.each(Op.UPDATE, keys, values) == [0, errno.ENOSPC]


def test_a_trie_answers_with_the_longest_match(maps: Maps) -> None:
    made = maps.create(MapType.LPM_TRIE)
    prefixes = [bytes([8, 0, 0, 0, 10, 0, 0, 0]), bytes([16, 0, 0, 0, 10, 1, 0, 0])]
    assert made.each(Op.UPDATE, prefixes, [made.value(8), made.value(16)]) == [0, 0]
    hosts = [bytes([32, 0, 0, 0, *ip]) for ip in ((10, 1, 2, 3), (10, 2, 2, 3), (11, 0, 0, 1))]
    assert made.lookup(hosts) == [made.value(16), made.value(8), errno.ENOENT]


def test_per_cpu_slots_are_eight_bytes_apart_and_their_own(maps: Maps) -> None:
    made = maps.create(MapType.PERCPU_HASH, value_size=4)
    value = b"".join(cpu.to_bytes(4, "little") + bytes(4) for cpu in range(made.stride // 8))
    assert made.each(Op.UPDATE, [made.key(1)], [value]) == [0]
    assert made.lookup([made.key(1)]) == [value]


def test_a_queue_is_spoken_to_without_keys(maps: Maps) -> None:
    made = maps.create(MapType.QUEUE, key_size=0, max_entries=2)
    none = [b"", b"", b""]
    assert made.each(Op.UPDATE, none, [made.value(n) for n in (5, 6, 7)]) == [0, 0, errno.E2BIG]
    assert made.lookup(none[:1]) == [made.value(5)]
    assert made.lookup(none, Op.LOOKUP_AND_DELETE) == [made.value(5), made.value(6), errno.ENOENT]


def test_flags_that_an_operation_lacks_are_refused(maps: Maps) -> None:
    made = maps.create()
    assert made.each(Op.UPDATE, [made.key(1)], [made.value(1)], flags=1 << 20) == [errno.EINVAL]
    assert made.each(Op.DELETE, [made.key(1)], flags=1) == [errno.EINVAL]


def test_columns_may_begin_anywhere(maps: Maps) -> None:
    made = maps.create()
    made.fill(3)
    keys = Buffer.of(b"??" + b"".join(made.key(n) + b"##" for n in range(3)))
    values = Buffer.allocate(5 + 3 * 12)
    columns = Columns(2, keys, 10, values, 12, key_offset=12, value_offset=17)
    assert KERNEL.each(made.fd, Op.LOOKUP, columns) == [0, 0]
    assert bytes(values.view) == bytes(17) + made.value(1) + bytes(4) + made.value(2) + bytes(4)


def test_columns_that_the_kernel_would_overrun_are_refused(maps: Maps) -> None:
    made = maps.create()
    keys, values = Buffer.allocate(16), Buffer.allocate(16)
    for columns in (
        Columns(3, keys, 8, values, 8),
        Columns(2, keys, 8, values, 8, key_offset=1),
        Columns(2, keys, 8, values, 9),
        Columns(2, keys, 8),
        Columns(2, keys, 8, Buffer.of(bytes(16)), 8),
    ):
        with pytest.raises(ValueError, match=r"column|exceed"):
            KERNEL.each(made.fd, Op.LOOKUP, columns)


@pytest.mark.parametrize("map_type", ALL)
def test_next_key_walks_every_key_once(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(made.max_entries // 2)
    expected = made.max_entries if map_type in ARRAYS else made.max_entries // 2
    assert sorted(made.walk()) == sorted(made.key(n) for n in range(expected))


def test_next_key_of_another_length_is_refused(maps: Maps) -> None:
    made = maps.create()
    with pytest.raises(ValueError, match="3 bytes"):
        KERNEL.next_key(made.fd, b"abc", made.key_size)


def test_next_key_of_a_type_without_raises(maps: Maps) -> None:
    made = maps.create(MapType.QUEUE, key_size=0)
    with pytest.raises(SyscallError, match="BPF_MAP_GET_NEXT_KEY: EINVAL"):
        KERNEL.next_key(made.fd, None, 0)


@pytest.mark.parametrize("map_type", ALL)
def test_a_scan_by_batches_finds_every_element_once(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type, max_entries=1000)
    made.fill(900)
    expected = {
        made.key(n): made.value(n if n < 900 else 0) for n in range(1000 if map_type in ARRAYS else 900)
    }
    if map_type is MapType.LRU_HASH:  # may have evicted a few
        found = scan(made, 64)
        assert len(found) > 800
        assert found.items() <= expected.items()
        return
    assert scan(made, 64) == expected


@pytest.mark.parametrize("map_type", HASHES)
def test_a_bucket_larger_than_count_says_enospc_and_growing_ends_the_scan(
    maps: Maps, map_type: MapType
) -> None:
    made = maps.create(map_type, max_entries=1024)
    made.fill(512)
    one = Columns(1, Buffer.allocate(8), 8, Buffer.allocate(made.stride), made.stride)
    cursor = Buffer.allocate(8)
    answer, first, before = Batch(0, 0), True, b""
    for _ in range(made.max_entries):
        before = cursor.take(4)
        answer = KERNEL.lookup_batch(made.fd, cursor, first, one)
        if answer.errno:
            break
        first = False
    assert answer == Batch(0, errno.ENOSPC)
    assert first or cursor.take(4) == before
    assert len(scan(made, 1)) == 512


@pytest.mark.parametrize("map_type", ALL)
def test_update_batch_writes_all(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    keys, values = [made.key(n) for n in range(32)], [made.value(n) for n in range(32)]
    assert made.batch(BatchCommand.UPDATE, keys, values) == Batch(32, 0)
    assert made.lookup(keys) == values


def test_update_batch_stops_at_the_first_error(maps: Maps) -> None:
    made = maps.create(MapType.HASH, max_entries=4)
    keys, values = [made.key(n) for n in range(6)], [made.value(n) for n in range(6)]
    assert made.batch(BatchCommand.UPDATE, keys, values) == Batch(4, errno.E2BIG)


@pytest.mark.parametrize("map_type", KEYED)
def test_delete_batch_stops_at_the_first_absent_key(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(4)
    keys = [made.key(n) for n in (0, 1, 50, 2)]
    assert made.batch(BatchCommand.DELETE, keys) == Batch(2, errno.ENOENT)
    assert sorted(made.walk()) == [made.key(2), made.key(3)]


def test_an_early_refusal_of_a_batch_counts_nothing_as_done(maps: Maps) -> None:
    array, made = maps.create(MapType.ARRAY), maps.create()
    assert array.batch(BatchCommand.DELETE, [array.key(0)]) == Batch(0, ENOTSUPP)
    noexist = 1
    pair = [made.key(0), made.key(1)], [made.value(0), made.value(1)]
    assert made.batch(BatchCommand.UPDATE, *pair, flags=noexist) == Batch(0, errno.EINVAL)
    queue = maps.create(MapType.QUEUE, key_size=0)
    columns = Columns(3, Buffer.allocate(0), 0, Buffer.allocate(24), 8)
    assert KERNEL.lookup_batch(queue.fd, Buffer.allocate(8), True, columns) == Batch(0, ENOTSUPP)


@pytest.mark.parametrize("map_type", ALL)
def test_a_frozen_map_is_read_and_not_written(maps: Maps, map_type: MapType) -> None:
    made = maps.create(map_type)
    made.fill(2)
    assert not KERNEL.info(made.fd).frozen
    KERNEL.control(FreezeMap(), [made.fd])
    assert KERNEL.info(made.fd).frozen
    keys, values = [made.key(0), made.key(1)], [made.value(5), made.value(6)]
    assert made.each(Op.UPDATE, keys, values) == [errno.EPERM]  # of the map: the second is not tried
    assert made.batch(BatchCommand.UPDATE, [], []) == Batch(0, errno.EPERM)
    assert made.lookup(keys) == [made.value(0), made.value(1)]
    with pytest.raises(SyscallError, match="BPF_MAP_FREEZE: EPERM"):
        KERNEL.control(FreezeMap(), [made.fd])


def test_info_says_what_was_created_and_what_bpftool_says(maps: Maps) -> None:
    made = maps.create(MapType.HASH, value_size=12, flags=MapFlag.NO_PREALLOC, kernel_name="mapd.info_1")
    info = KERNEL.info(made.fd)
    assert (info.map_type, info.key_size, info.value_size, info.max_entries) == (MapType.HASH, 8, 12, 64)
    assert (info.name, info.map_flags, info.frozen) == ("mapd.info_1", MapFlag.NO_PREALLOC, False)
    shown = json.loads(
        subprocess.run(
            ["bpftool", "-j", "map", "show", "id", str(info.id)], capture_output=True, check=True
        ).stdout
    )
    assert (shown["name"], shown["bytes_key"], shown["bytes_value"]) == ("mapd.info_1", 8, 12)
    assert shown["bytes_memlock"] == info.memlock


def test_bpftool_dumps_what_was_written(maps: Maps) -> None:
    made = maps.create()
    made.fill(8)
    command = ["bpftool", "-j", "map", "dump", "id", str(KERNEL.info(made.fd).id)]
    dump = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = {bytes(int(b, 16) for b in e["key"]): bytes(int(b, 16) for b in e["value"]) for e in dump}
    assert found == scan(made, 64)


def test_what_is_no_map_raises(maps: Maps) -> None:
    del maps
    with Path("/dev/null").open() as file, pytest.raises(SyscallError, match="EINVAL"):
        KERNEL.info(file.fileno())
    with pytest.raises(SyscallError, match="BPF_OBJ_GET_INFO_BY_FD: EBADF"):
        KERNEL.info(999_999)
    columns = Columns(1, Buffer.allocate(8), 8, Buffer.allocate(8), 8)
    assert KERNEL.each(999_999, Op.LOOKUP, columns) == [errno.EBADF]


@pytest.mark.parametrize("name", ["sixteen_letters_", "with-dash", "ü"])
def test_a_name_that_the_kernel_refuses_is_einval(name: str) -> None:
    request = CreateMap(map_type=MapType.HASH, key_size=8, value_size=8, max_entries=1, kernel_name=name)
    with pytest.raises(SyscallError, match="BPF_MAP_CREATE: EINVAL"):
        KERNEL.control(request)
