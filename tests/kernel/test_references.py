"""Elements that stand for kernel objects: what each map takes, what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mapd.bpf import (
    AttachType,
    CreateMap,
    Fault,
    FaultyKernel,
    FreezeMap,
    OpenProgramId,
    OwnedFd,
    Pin,
    ProgramType,
    load_program,
    possible_cpus,
)
from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.programs import Programs
from mapd.maps.references import update_reference
from mapd.maps.store import MapStore
from mapd.maps.targets import CpuQueue, Device, Inner, ProgramId, ProgramPin, Target
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.programs import pin_program, program_id, returning
from tests.kernel.stores import store

LO = socket.if_nametoindex("lo")
XDP_PASS = 2


def u32(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers)


def opening(owned: OwnedFd, facts: MapFacts) -> OpenMap:
    return OpenMap(fd=owned, facts=facts, programs=Programs().enter(facts.id, owned))


@dataclass
class Bench:
    """Maps and programs of all kinds, and the store that writes them."""

    maps: Maps
    store: MapStore
    stack: contextlib.ExitStack
    folder: Path

    def map(self, map_type: MapType, value_size: int = 4, max_entries: int = 4, flags: int = 0) -> OpenMap:
        request = CreateMap(
            map_type=map_type, key_size=4, value_size=value_size, max_entries=max_entries, flags=flags
        )
        return self._open(KERNEL.control(request))

    def outer(self, map_type: MapType, template: OpenMap, max_entries: int = 2) -> OpenMap:
        request = CreateMap(
            map_type=map_type, key_size=4, value_size=4, max_entries=max_entries, with_inner=True
        )
        with template.lease() as fd:
            return self._open(KERNEL.control(request, [fd]))

    def _open(self, owned: OwnedFd) -> OpenMap:
        made = self.maps.adopt(owned)
        return opening(owned, self.store.facts_at(made.fd))

    def program(self, kind: ProgramType, attach: AttachType = AttachType.NONE) -> ProgramId:
        owned = self.stack.enter_context(load_program(returning(XDP_PASS), kind, attach=attach))
        with owned.lease() as prog_fd:
            return ProgramId(program_id(prog_fd))

    def write(self, of: OpenMap, key: int, target: Target, op: Op = Op.UPDATE) -> None:
        with of.lease() as map_fd:
            update_reference(self.store, of, map_fd, u32(key), op, target)

    def read(self, of: OpenMap, key: int) -> bytes | int:
        with of.lease() as map_fd:
            info = of.facts.info
            view = TestMap(map_fd, info.map_type, 4, info.value_size, info.max_entries)
            return view.lookup([u32(key)])[0]

    def all(self, of: OpenMap) -> dict[bytes, bytes | int]:
        with of.lease() as map_fd:
            info = of.facts.info
            view = TestMap(map_fd, info.map_type, 4, info.value_size, info.max_entries)
            keys = view.walk()
            return dict(zip(keys, view.lookup(keys), strict=True)) if keys else {}

    @contextlib.contextmanager
    def refused(self, of: OpenMap, reason: Reason, *says: str) -> Generator[None]:
        """Expect a refusal that says all this, and the map as it was."""
        before = self.all(of)
        with pytest.raises(MapError) as caught:
            yield
        assert caught.value.reason is reason, str(caught.value)
        missing = [word for word in says if word not in str(caught.value)]
        assert not missing, str(caught.value)
        assert self.all(of) == before


@pytest.fixture
def bench(maps: Maps, bpffs: Path) -> Generator[Bench]:
    with contextlib.ExitStack() as stack:
        yield Bench(maps, store(bpffs), stack, bpffs)


# ---- what is written reads as ids ----------------------------------------------------------------


@pytest.mark.parametrize("outer_type", [MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS])
def test_an_inner_map_reads_as_its_id(bench: Bench, outer_type: MapType) -> None:
    inner = bench.map(MapType.HASH)
    outer = bench.outer(outer_type, inner)
    bench.write(outer, 1, Inner(inner))
    assert bench.read(outer, 1) == u32(inner.facts.id)
    other = bench.map(MapType.HASH, max_entries=9)
    bench.write(outer, 1, Inner(other))
    assert bench.read(outer, 1) == u32(other.facts.id)


def test_an_inner_map_lives_in_the_outer_one_alone(bench: Bench) -> None:
    outer = bench.outer(MapType.HASH_OF_MAPS, bench.map(MapType.HASH))
    with KERNEL.control(CreateMap(map_type=1, key_size=4, value_size=4, max_entries=1)) as owned:
        with owned.lease() as fd:
            facts = bench.store.facts_at(fd)
        bench.write(outer, 0, Inner(opening(owned, facts)))
    assert bench.read(outer, 0) == u32(facts.id)


def test_a_program_reads_as_its_id_by_id_and_by_pin(bench: Bench) -> None:
    jumps = bench.map(MapType.PROG_ARRAY)
    program = bench.program(ProgramType.SOCKET_FILTER)
    bench.write(jumps, 0, program)
    with KERNEL.control(OpenProgramId(prog_id=program.id)) as owned, owned.lease() as prog_fd:
        pin_program(bench.folder / "program", prog_fd)
    bench.write(jumps, 3, ProgramPin(f"{bench.folder}/program"))
    assert bench.read(jumps, 0) == bench.read(jumps, 3) == u32(program.id)


@pytest.mark.parametrize("map_type", [MapType.DEVMAP, MapType.DEVMAP_HASH])
@pytest.mark.parametrize("device", [Device(name="lo"), Device(ifindex=LO)])
def test_a_device_reads_as_its_index_with_or_without_a_program(
    bench: Bench, map_type: MapType, device: Device
) -> None:
    plain = bench.map(map_type)
    bench.write(plain, 1, device)
    assert bench.read(plain, 1) == u32(LO)
    devices = bench.map(map_type, value_size=8)
    bench.write(devices, 1, device)
    assert bench.read(devices, 1) == u32(LO, 0)
    program = bench.program(ProgramType.XDP, AttachType.XDP_DEVMAP)
    bench.write(devices, 1, replace(device, program=program))
    assert bench.read(devices, 1) == u32(LO, program.id)


def test_a_queue_reads_as_its_size_and_0_removes_it(bench: Bench) -> None:
    plain = bench.map(MapType.CPUMAP)
    bench.write(plain, 0, CpuQueue(frames=192))
    assert bench.read(plain, 0) == u32(192)
    queues = bench.map(MapType.CPUMAP, value_size=8)
    program = bench.program(ProgramType.XDP, AttachType.XDP_CPUMAP)
    bench.write(queues, 0, CpuQueue(frames=16_384, program=program))
    assert bench.read(queues, 0) == u32(16_384, program.id)
    bench.write(queues, 0, CpuQueue(frames=0))
    assert bench.read(queues, 0) == errno.ENOENT


# ---- flags ---------------------------------------------------------------------------------------


def a_map_of(bench: Bench, map_type: MapType) -> tuple[OpenMap, Target]:
    """An empty map of a type, and something that it takes."""
    if map_type in (MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS):
        inner = bench.map(MapType.HASH)
        return bench.outer(map_type, inner), Inner(inner)
    target: Target = Device(name="lo")
    if map_type is MapType.PROG_ARRAY:
        target = bench.program(ProgramType.SOCKET_FILTER)
    elif map_type is MapType.CPUMAP:
        target = CpuQueue(frames=8)
    return bench.map(map_type, max_entries=2), target


REFERENCE_TYPES = (
    MapType.HASH_OF_MAPS,
    MapType.ARRAY_OF_MAPS,
    MapType.PROG_ARRAY,
    MapType.DEVMAP,
    MapType.DEVMAP_HASH,
    MapType.CPUMAP,
)


def test_noexist_and_exist_where_the_kernel_heeds_them(bench: Bench) -> None:
    for map_type in (MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH):
        made, target = a_map_of(bench, map_type)
        bench.write(made, 0, target, Op.UPDATE_NOEXIST)
        with bench.refused(made, Reason.KEY_EXISTS, "NOEXIST"):
            bench.write(made, 0, target, Op.UPDATE_NOEXIST)
    made, target = a_map_of(bench, MapType.HASH_OF_MAPS)
    with bench.refused(made, Reason.KEY_MISSING, "EXIST"):
        bench.write(made, 0, target, Op.UPDATE_EXIST)


@pytest.mark.parametrize(
    ("map_type", "op"),
    [
        *((kind, Op.UPDATE_NOEXIST) for kind in REFERENCE_TYPES if "HASH" not in kind.name),
        *((kind, Op.UPDATE_EXIST) for kind in REFERENCE_TYPES if kind is not MapType.HASH_OF_MAPS),
    ],
)
def test_flags_that_the_kernel_refuses_or_does_not_heed_are_refused(
    bench: Bench, map_type: MapType, op: Op
) -> None:
    made, target = a_map_of(bench, map_type)
    with bench.refused(made, Reason.BAD_FLAGS, "do not heed", "ANY"):
        bench.write(made, 0, target, op)


# ---- refusals that leave the map as it was ---------------------------------------------------------


@pytest.mark.parametrize("map_type", REFERENCE_TYPES)
def test_no_room_is_a_full_hash_or_an_index_past_the_end(bench: Bench, map_type: MapType) -> None:
    made, target = a_map_of(bench, map_type)
    if "HASH" in map_type.name:
        for key in (0, 1):
            bench.write(made, key, target)
        with bench.refused(made, Reason.MAP_FULL, "2 of max_entries=2"):
            bench.write(made, 2, target)
    else:
        with bench.refused(made, Reason.INDEX_OUT_OF_RANGE, "indexes go from 0 to 1"):
            bench.write(made, 2, target)


@pytest.mark.parametrize("map_type", REFERENCE_TYPES)
def test_another_kind_of_object_is_refused_with_the_kind_that_it_takes(
    bench: Bench, map_type: MapType
) -> None:
    made, target = a_map_of(bench, map_type)
    others: list[Target] = [
        Inner(bench.map(MapType.HASH)),
        ProgramId(1),
        Device(name="lo"),
        CpuQueue(frames=1),
    ]
    for other in others:
        if type(other) is not type(target):
            with bench.refused(made, Reason.BAD_SPEC, f"{made.facts.type_name} maps take a"):
                bench.write(made, 0, other)


@pytest.mark.parametrize("map_type", REFERENCE_TYPES)
def test_read_only_openings_short_keys_and_frozen_maps_are_refused(bench: Bench, map_type: MapType) -> None:
    made, target = a_map_of(bench, map_type)
    bench.write(made, 0, target)
    with bench.refused(made, Reason.READ_ONLY):
        bench.write(replace(made, read_only=True), 0, target)
    with bench.refused(made, Reason.KEY_SIZE_MISMATCH, "3 bytes", "4 bytes"), made.lease() as map_fd:
        update_reference(bench.store, made, map_fd, b"abc", Op.UPDATE, target)
    with made.lease() as map_fd:
        KERNEL.control(FreezeMap(), [map_fd])
    with bench.refused(made, Reason.MAP_FROZEN, "frozen"):
        bench.write(made, 0, target)


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        ({"map_type": MapType.LRU_HASH}, "type: hash in map"),
        ({"map_type": MapType.HASH, "value_size": 8}, "value_size: 4 in map"),
        ({"map_type": MapType.HASH, "flags": MapFlag.NO_PREALLOC}, "flags: 0x0 in map"),
    ],
)
def test_an_inner_map_of_another_shape_is_incompatible_and_names_the_fields(
    bench: Bench, shape: dict[str, int], field: str
) -> None:
    inner = bench.map(MapType.HASH)
    outer = bench.outer(MapType.HASH_OF_MAPS, inner)
    other = bench.map(**shape)  # type: ignore[arg-type]  # fields of a CreateMap by name
    with bench.refused(outer, Reason.INCOMPATIBLE, "must be those of the template", "EINVAL"):
        bench.write(outer, 0, Inner(other))
    bench.write(outer, 0, Inner(inner))
    with bench.refused(outer, Reason.INCOMPATIBLE, field, "here"):
        bench.write(outer, 1, Inner(other))


def test_inner_arrays_must_be_as_long_unless_they_say_otherwise(bench: Bench) -> None:
    inner = bench.map(MapType.ARRAY)
    outer = bench.outer(MapType.ARRAY_OF_MAPS, inner)
    bench.write(outer, 0, Inner(inner))
    with bench.refused(outer, Reason.INCOMPATIBLE, "max_entries: 4 in map", "9 here"):
        bench.write(outer, 1, Inner(bench.map(MapType.ARRAY, max_entries=9)))
    free = bench.map(MapType.ARRAY, flags=MapFlag.INNER_MAP)
    outer = bench.outer(MapType.ARRAY_OF_MAPS, free)
    bench.write(outer, 0, Inner(bench.map(MapType.ARRAY, max_entries=9, flags=MapFlag.INNER_MAP)))


def test_a_map_of_maps_in_a_map_of_maps_is_incompatible(bench: Bench) -> None:
    inner = bench.map(MapType.HASH)
    outer = bench.outer(MapType.HASH_OF_MAPS, inner)
    bench.write(outer, 0, Inner(inner))
    with bench.refused(outer, Reason.INCOMPATIBLE, "hash_of_maps here"):
        bench.write(outer, 1, Inner(outer))


def test_an_inner_map_that_was_closed_meanwhile_is_stale(bench: Bench) -> None:
    outer = bench.outer(MapType.HASH_OF_MAPS, bench.map(MapType.HASH))
    inner = bench.map(MapType.HASH)
    inner.fd.close()
    with bench.refused(outer, Reason.STALE_HANDLE):
        bench.write(outer, 0, Inner(inner))


def test_a_program_array_takes_the_type_of_its_first_program(bench: Bench) -> None:
    jumps = bench.map(MapType.PROG_ARRAY)
    bench.write(jumps, 0, bench.program(ProgramType.SOCKET_FILTER))
    for other in (bench.program(ProgramType.XDP), bench.program(ProgramType.SYSCALL)):
        with bench.refused(jumps, Reason.BAD_SPEC, "takes socket_filter programs"):
            bench.write(jumps, 1, other)


@pytest.mark.parametrize("map_type", [MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP])
def test_devices_and_queues_take_programs_made_for_them(bench: Bench, map_type: MapType) -> None:
    made = bench.map(map_type, value_size=8)
    place: Callable[[ProgramId], Target] = lambda program: Device(name="lo", program=program)  # noqa: E731
    wanted, other = "BPF_XDP_DEVMAP (33)", AttachType.XDP_CPUMAP
    if map_type is MapType.CPUMAP:
        place = lambda program: CpuQueue(frames=8, program=program)  # noqa: E731
        wanted, other = "BPF_XDP_CPUMAP (35)", AttachType.XDP_DEVMAP
    with bench.refused(made, Reason.BAD_SPEC, wanted, "is a socket_filter program"):
        bench.write(made, 0, place(bench.program(ProgramType.SOCKET_FILTER)))
    for attach in (other, AttachType.NONE):
        with bench.refused(made, Reason.BAD_SPEC, wanted):
            bench.write(made, 0, place(bench.program(ProgramType.XDP, attach)))


@pytest.mark.parametrize(
    "target", [Device(name="lo", program=ProgramId(1)), CpuQueue(frames=1, program=ProgramId(1))]
)
def test_four_bytes_have_no_room_for_a_program(bench: Bench, target: Target) -> None:
    made = bench.map(MapType.CPUMAP if isinstance(target, CpuQueue) else MapType.DEVMAP)
    with bench.refused(made, Reason.BAD_SPEC, "value_size 8"):
        bench.write(made, 0, target)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device(name="no-such-device0"), "no device 'no-such-device0'"),
        (Device(name="x" * 300), "no device"),
        (Device(name="nul\0"), "no device"),
        (Device(ifindex=2**31 - 1), f"index {2**31 - 1}"),
        (Device(ifindex=2**32 - 1), f"index {2**32 - 1}"),
    ],
)
def test_a_device_that_is_not_there_is_named(bench: Bench, device: Device, says: str) -> None:
    made = bench.map(MapType.DEVMAP)
    with bench.refused(made, Reason.BAD_SPEC, says, "network namespace"):
        bench.write(made, 0, device)


def test_a_queue_too_long_or_of_no_cpu_is_refused(bench: Bench) -> None:
    queues = bench.map(MapType.CPUMAP, max_entries=possible_cpus() + 1)
    with bench.refused(queues, Reason.BAD_SPEC, "16385 frames", "at most 16384"):
        bench.write(queues, 0, CpuQueue(frames=16_385))
    with bench.refused(queues, Reason.BAD_SPEC, f"CPU {possible_cpus()} is not possible", "ENODEV"):
        bench.write(queues, possible_cpus(), CpuQueue(frames=8))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (ProgramId(2**31 - 1), "no program has id"),
        (ProgramPin("{folder}/none"), "nothing is pinned at"),
        (ProgramPin("{folder}/map"), "is not a program"),
        (ProgramPin("{folder}/folder"), "this is a folder"),
        (ProgramPin("/etc/passwd"), "not a path below"),
        (ProgramPin("{folder}/../out"), "'..'"),
    ],
)
def test_a_program_that_cannot_be_opened_is_named(
    bench: Bench, program: ProgramId | ProgramPin, says: str
) -> None:
    (bench.folder / "folder").mkdir()
    pinned = Pin(root=str(bench.folder), path=f"{bench.folder}/map")
    KERNEL.control(pinned, [bench.maps.create().fd])
    if isinstance(program, ProgramPin):
        program = ProgramPin(program.path.format(folder=bench.folder))
    made = bench.map(MapType.PROG_ARRAY)
    with bench.refused(made, Reason.BAD_SPEC, says):
        bench.write(made, 0, program)


def test_a_daemon_without_the_right_to_ids_says_which_capability(bench: Bench) -> None:
    faulty = FaultyKernel(KERNEL, Fault(target=OpenProgramId, errno=errno.EPERM))
    made = bench.map(MapType.PROG_ARRAY)
    program = bench.program(ProgramType.SOCKET_FILTER)
    bench.store.kernel = faulty
    with bench.refused(made, Reason.DAEMON_CAPABILITY, "CAP_SYS_ADMIN"):
        bench.write(made, 0, program)


@pytest.mark.parametrize(
    ("map_type", "says"),
    [
        (MapType.HASH, "use update"),
        (MapType.SOCKMAP, "a socket cannot be named over RPC"),
        (MapType.SOCKHASH, "a socket cannot be named over RPC"),
        (MapType.XSKMAP, "a socket cannot be named over RPC"),
        (MapType.REUSEPORT_SOCKARRAY, "a socket cannot be named over RPC"),
        (MapType.CGROUP_ARRAY, "later"),
        (MapType.PERF_EVENT_ARRAY, "later"),
    ],
)
def test_maps_that_take_no_references_say_why(bench: Bench, map_type: MapType, says: str) -> None:
    made = bench.map(map_type)
    for target in (Inner(bench.map(MapType.HASH)), ProgramId(1), Device(name="lo"), CpuQueue(frames=1)):
        with pytest.raises(MapError, match=says) as caught:
            bench.write(made, 0, target)
        assert caught.value.reason is Reason.OPERATION_UNSUPPORTED
