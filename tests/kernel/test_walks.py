"""A scan of every type that can be walked, on the real kernel: what is there comes, once, and nothing else."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Callable

import pytest

from mapd.bpf import Buffer, CreateMap, ProgramType, load_program, possible_cpus, run_program
from mapd.bpf.asm import Assembler, Helper, Reg
from mapd.maps.errors import MapError
from mapd.maps.opened import facts
from mapd.maps.scan import Scan, ScanOptions
from mapd.maps.types import TYPES
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.programs import program_id, returning

REUSE_STACKID = 1 << 10
"""BPF_F_REUSE_STACKID: a stack that falls on another's number replaces it."""
BOOT = uuid.UUID(int=7)
HASHES = (MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)


def read(made: TestMap, page_bytes: int = 4_096, *, resume: bool = False) -> tuple[Scan, dict[bytes, bytes]]:
    """All of a map, each key once; with ``resume`` every page by a scan of its own, from the last one's token."""
    found: dict[bytes, bytes] = {}
    of = facts(KERNEL.info(made.fd), possible_cpus())
    scan = Scan(KERNEL, of, ScanOptions(), BOOT)
    while not scan.done:
        page = scan.page(made.fd, page_bytes)
        for at in range(page.count):
            key = page.keys[at * made.key_size : (at + 1) * made.key_size]
            assert key not in found, "a key came twice"
            found[key] = page.values[at * made.stride : (at + 1) * made.stride]
        if resume and page.token and not scan.done:
            scan = Scan(KERNEL, of, ScanOptions(token=page.token), BOOT)
    assert scan.incomplete == ""
    return scan, found


def u32(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers)


def objects(maps: Maps, map_type: MapType, *, value_size: int = 4, max_entries: int = 64) -> TestMap:
    """A map of kernel objects, with keys of four bytes."""
    return maps.create(map_type, key_size=4, value_size=value_size, max_entries=max_entries)


def devices(maps: Maps, map_type: MapType) -> tuple[TestMap, dict[bytes, bytes]]:
    made = objects(maps, map_type)
    loopback = u32(socket.if_nametoindex("lo"))
    wanted = {u32(key): loopback for key in (0, 5, 63)}
    assert not any(made.each(Op.UPDATE, [*wanted], [*wanted.values()]))
    return made, wanted


def queues(maps: Maps) -> tuple[TestMap, dict[bytes, bytes]]:
    made = objects(maps, MapType.CPUMAP, max_entries=possible_cpus())
    wanted = {u32(possible_cpus() - 1): u32(64)}
    assert not any(made.each(Op.UPDATE, [*wanted], [*wanted.values()]))
    return made, wanted


def programs(maps: Maps) -> tuple[TestMap, dict[bytes, bytes]]:
    made = objects(maps, MapType.PROG_ARRAY, max_entries=20_000)
    with load_program(returning(0), ProgramType.SOCKET_FILTER) as owned, owned.lease() as prog_fd:
        keys = [u32(key) for key in (1, 16_383, 16_384, 19_999)]
        assert not any(made.each(Op.UPDATE, keys, [u32(prog_fd)] * len(keys)))
        return made, dict.fromkeys(keys, u32(program_id(prog_fd)))


def inner_maps(maps: Maps, map_type: MapType) -> tuple[TestMap, dict[bytes, bytes]]:
    inner = maps.create(MapType.ARRAY, max_entries=1)
    request = CreateMap(map_type=map_type, key_size=4, value_size=4, max_entries=64, with_inner=True)
    made = maps.adopt(KERNEL.control(request, [inner.fd]))
    wanted = {u32(key): u32(KERNEL.info(inner.fd).id) for key in (0, 7, 63)}
    assert not any(made.each(Op.UPDATE, [*wanted], [u32(inner.fd)] * len(wanted)))
    return made, wanted


def cookies(maps: Maps, map_type: MapType) -> tuple[TestMap, dict[bytes, bytes]]:
    made = objects(maps, map_type, value_size=8)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if map_type is MapType.REUSEPORT_SOCKARRAY:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    maps.keep(listener)
    cookie = listener.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE
    key = u32(3)
    assert made.each(Op.UPDATE, [key], [struct.pack("=Q", listener.fileno())]) == [0]
    return made, {key: cookie}


def stacks(maps: Maps) -> tuple[TestMap, dict[bytes, bytes]]:
    """Stack traces, recorded by a program that leaves out more frames each time."""
    made = objects(maps, MapType.STACK_TRACE, value_size=8 * 127, max_entries=4_096)
    for skip in range(4):
        asm = Assembler()
        asm.map_pointer(Reg.R2, made.fd)
        asm.mov(Reg.R3, skip | REUSE_STACKID)
        asm.call(Helper.GET_STACKID)
        asm.exit()
        with load_program(asm.assemble(), ProgramType.RAW_TRACEPOINT) as owned, owned.lease() as prog_fd:
            assert run_program(prog_fd, Buffer.allocate(8)) < made.max_entries
    keys = made.walk()
    assert len(keys) > 1
    values = made.lookup(keys)
    return made, {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)}


Case = Callable[[Maps], tuple[TestMap, dict[bytes, bytes]]]

CASES: dict[MapType, tuple[Case, str]] = {
    MapType.STACK_TRACE: (stacks, "next_key"),
    MapType.PROG_ARRAY: (programs, "indexes"),
    MapType.CPUMAP: (queues, "indexes"),
    MapType.DEVMAP: (lambda maps: devices(maps, MapType.DEVMAP), "indexes"),
    MapType.DEVMAP_HASH: (lambda maps: devices(maps, MapType.DEVMAP_HASH), "next_key"),
    MapType.ARRAY_OF_MAPS: (lambda maps: inner_maps(maps, MapType.ARRAY_OF_MAPS), "lookup_batch"),
    MapType.HASH_OF_MAPS: (lambda maps: inner_maps(maps, MapType.HASH_OF_MAPS), "lookup_batch"),
    MapType.SOCKMAP: (lambda maps: cookies(maps, MapType.SOCKMAP), "indexes"),
    MapType.SOCKHASH: (lambda maps: cookies(maps, MapType.SOCKHASH), "next_key"),
    MapType.REUSEPORT_SOCKARRAY: (lambda maps: cookies(maps, MapType.REUSEPORT_SOCKARRAY), "indexes"),
}


def filled(map_type: MapType) -> Case:
    def case(maps: Maps) -> tuple[TestMap, dict[bytes, bytes]]:
        made = maps.create(map_type, max_entries=4_096)
        made.fill(1_000)
        numbers = range(4_096 if "ARRAY" in map_type.name else 1_000)
        return made, {made.key(n): made.value(n if n < 1_000 else 0) for n in numbers}

    return case


CASES.update(
    {
        map_type: (filled(map_type), "lookup_batch")
        for map_type in (*HASHES, MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE)
    }
)


def test_every_type_that_can_be_walked_is_walked_here() -> None:
    assert sorted(CASES) == sorted(number for number, traits in TYPES.items() if traits.iterable)


@pytest.mark.parametrize("map_type", sorted(CASES), ids=lambda number: MapType(number).name.lower())
@pytest.mark.parametrize("resume", [False, True], ids=["at once", "resumed"])
def test_a_scan_finds_what_is_there(maps: Maps, map_type: MapType, resume: bool) -> None:
    case, method = CASES[map_type]
    made, wanted = case(maps)
    scan, found = read(made, resume=resume)
    assert found == wanted
    assert scan.method == method


def test_a_socket_map_without_room_for_a_cookie_cannot_be_read(maps: Maps) -> None:
    made = objects(maps, MapType.SOCKMAP, value_size=4)
    with pytest.raises(MapError, match="ENOSPC") as caught:
        read(made)
    assert caught.value.reason is Reason.OPERATION_UNSUPPORTED


def test_stack_traces_are_looked_up_and_removed(maps: Maps) -> None:
    made, wanted = stacks(maps)
    key, other = list(wanted)[:2]
    assert made.lookup([key]) == [wanted[key]]
    assert made.each(Op.DELETE, [key, key]) == [0, 2]
    assert made.lookup([other], Op.LOOKUP_AND_DELETE) == [wanted[other]]
    assert set(made.walk()) == set(wanted) - {key, other}
    assert made.each(Op.UPDATE, [other], [wanted[other]]) == [22]
    assert MapFlag(KERNEL.info(made.fd).map_flags) == 0
