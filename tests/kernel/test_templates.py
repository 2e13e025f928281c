"""The programs that mapd loads: one CPU's slot written, elements counted by the kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from mapd.bpf import Buffer, CreateMap, LoadTemplate, SyscallError, Template, possible_cpus
from mapd.bpf.templates import COUNTED, MAX_KEY_BYTES, ONE_CPU_HEAD, one_cpu_context
from mapd.bpf.vmlinux import VMLINUX, NoSuchFunction, find_function, function_id
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.btf import Btf
from tests.kernel.maps import KERNEL, Maps, TestMap

PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)


def write_one(made: TestMap, cpu: int, key: bytes, value: bytes) -> int:
    request = LoadTemplate(
        template=Template.WRITE_ONE_CPU, key_size=made.key_size, value_size=made.value_size
    )
    ctx = Buffer.allocate(one_cpu_context(made.key_size, made.value_size))
    ONE_CPU_HEAD.pack_into(ctx.view, 0, cpu)
    ctx.view[8 : 8 + len(key)] = key
    at = 8 + round_up8(len(key))
    ctx.view[at : at + len(value)] = value
    with KERNEL.control(request, [made.fd]) as program, program.lease() as prog_fd:
        return KERNEL.run(prog_fd, ctx)


def counted(made: TestMap) -> int:
    request = LoadTemplate(
        template=Template.COUNT_ENTRIES, key_size=made.key_size, value_size=made.value_size
    )
    ctx = Buffer.allocate(COUNTED.size)
    with KERNEL.control(request, [made.fd]) as program, program.lease() as prog_fd:
        assert KERNEL.run(prog_fd, ctx) == 0
    (entries,) = COUNTED.unpack_from(ctx.view)
    return int(entries)


def slots(made: TestMap, key: bytes) -> list[bytes]:
    (value,) = made.lookup([key])
    assert isinstance(value, bytes)
    slot = made.stride // possible_cpus()
    return [value[at : at + made.value_size] for at in range(0, made.stride, slot)]


@pytest.mark.parametrize("map_type", PER_CPU)
@pytest.mark.parametrize("value_size", [1, 3, 7, 8, 9, 20, 4096, 32752])
def test_one_cpus_slot_is_written_and_no_other(maps: Maps, map_type: MapType, value_size: int) -> None:
    made = maps.create(map_type, value_size=value_size, max_entries=8)
    key = made.key(1)
    before = [bytes([0x50 + cpu]) * value_size for cpu in range(possible_cpus())]
    column = b"".join(slot.ljust(round_up8(value_size), b"\0") for slot in before)
    assert made.each(Op.UPDATE, [key], [column]) == [0]
    for cpu in range(possible_cpus()):
        value = bytes((cpu + at) & 0xFF for at in range(value_size))
        assert write_one(made, cpu, key, value) == 0
        before[cpu] = value
        assert slots(made, key) == before


def test_the_slot_of_an_absent_key_is_no_slot(maps: Maps) -> None:
    made = maps.create(MapType.PERCPU_HASH)
    assert write_one(made, 0, made.key(1), bytes(8)) == errno.ENOENT
    array = maps.create(MapType.PERCPU_ARRAY, max_entries=4)
    assert write_one(array, 0, array.key(4), bytes(8)) == errno.ENOENT
    assert write_one(array, possible_cpus(), array.key(3), bytes(8)) == errno.ENOENT


@pytest.mark.parametrize("key_size", [1, 5, MAX_KEY_BYTES])
def test_keys_of_many_sizes_reach_their_slot(maps: Maps, key_size: int) -> None:
    made = maps.create(MapType.PERCPU_HASH, key_size=key_size)
    key = bytes(range(1, 128))[:key_size].ljust(key_size, b"\xee")
    made.each(Op.UPDATE, [key], [bytes(made.stride)])
    assert write_one(made, 1, key, b"12345678") == 0
    assert slots(made, key)[1] == b"12345678"


def test_a_key_too_large_for_a_program_is_refused(maps: Maps) -> None:
    made = maps.create(MapType.PERCPU_HASH, key_size=MAX_KEY_BYTES + 1)
    with pytest.raises(SyscallError, match="EINVAL"):
        write_one(made, 0, bytes(made.key_size), bytes(8))
    wide = maps.create(MapType.PERCPU_HASH, value_size=32_760)
    with pytest.raises(SyscallError, match="EINVAL"):
        write_one(wide, 0, bytes(wide.key_size), bytes(8))


@pytest.mark.parametrize(
    ("map_type", "flags"),
    [
        (MapType.HASH, 0),
        (MapType.HASH, MapFlag.NO_PREALLOC),
        (MapType.LRU_HASH, 0),
        (MapType.PERCPU_HASH, 0),
        (MapType.PERCPU_HASH, MapFlag.NO_PREALLOC),
        (MapType.LRU_PERCPU_HASH, 0),
    ],
)
def test_the_kernel_counts_what_is_there(maps: Maps, map_type: MapType, flags: int) -> None:
    made = maps.create(map_type, max_entries=4096, flags=flags)
    assert counted(made) == 0
    made.fill(500)
    assert counted(made) == len(made.walk()) == 500
    made.each(Op.UPDATE, [made.key(1), made.key(499)], [made.value(7), made.value(8)])
    assert counted(made) == 500
    made.each(Op.DELETE, [made.key(number) for number in range(100, 160)])
    assert counted(made) == len(made.walk()) == 440
    made.lookup([made.key(0)], Op.LOOKUP_AND_DELETE)
    assert counted(made) == 439


def test_the_kernel_counts_an_lru_map_that_evicts(maps: Maps) -> None:
    made = maps.create(MapType.LRU_HASH, max_entries=256)
    for number in range(2_000):
        made.each(Op.UPDATE, [made.key(number)], [made.value(number)])
    assert 0 < counted(made) == len(made.walk()) <= 256


def test_the_kernel_counts_maps_in_a_hash(maps: Maps) -> None:
    inner = maps.create(MapType.ARRAY, max_entries=1)
    request = CreateMap(
        map_type=MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=8, with_inner=True
    )
    outer = maps.adopt(KERNEL.control(request, [inner.fd]))
    keys = [outer.key(number) for number in range(3)]
    assert not any(outer.each(Op.UPDATE, keys, [struct.pack("=I", inner.fd)] * 3))
    assert counted(outer) == 3
    outer.each(Op.DELETE, keys[:1])
    assert counted(outer) == 2


def test_the_kernel_does_not_count_arrays_and_tries(maps: Maps) -> None:
    array = maps.create(MapType.ARRAY, max_entries=4)
    array.fill(3)
    assert counted(array) == 0
    trie = maps.create(MapType.LPM_TRIE)
    with pytest.raises(SyscallError, match="EINVAL"):
        counted(trie)


def test_a_kernel_function_is_found_by_name() -> None:
    blob = VMLINUX.read_bytes()
    for name in ("bpf_map_sum_elem_count", "bpf_task_from_pid"):
        assert find_function(blob, name) == function_id(name) == Btf(blob).find(name, 12)


@pytest.mark.parametrize("name", ["", "no_such_function", "\0"])
def test_a_function_that_is_not_there_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(NoSuchFunction):
        find_function(VMLINUX.read_bytes(), name)


def test_damaged_type_information_is_refused_and_not_run_past() -> None:
    blob = VMLINUX.read_bytes()
    for damaged in (b"", b"\0" * 64, blob[:20], blob[:4096], blob[:24] + b"\xff" * 4096):
        with pytest.raises(NoSuchFunction):
            find_function(damaged, "bpf_map_sum_elem_count")
