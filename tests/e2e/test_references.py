"""Elements that stand for kernel objects, from a client to the kernel and back as ids; rights on both maps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from mapd.bpf import AttachType, ProgramType, load_program
from mapd.runtime.pool import Lane
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_client import (
    U32,
    Bytes,
    Codec,
    Incompatible,
    IndexOutOfRange,
    KeyExists,
    Map,
    MapFrozen,
    MapFull,
    MapNotFound,
    Misuse,
    PermissionDenied,
    Struct,
    Unavailable,
    Unsupported,
)
from tests.e2e.bad_input import Ground, by_name, check, on_ground, refused
from tests.kernel.programs import pin_program, program_id, returning
from tests.support.daemon import Place
from tests.support.pinned import unchanged

LO = socket.if_nametoindex("lo")


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


@pytest.fixture
async def inner(ground: Ground) -> Map[int, int]:
    return await ground.client.create_map("inner", "hash", key=U32, value=U32, max_entries=4)


@pytest.fixture
async def outer(ground: Ground, inner: Map[int, int]) -> Map[int, int]:
    del inner
    return await ground.client.create_map(
        "outer", "hash_of_maps", key=U32, value=U32, max_entries=2, inner="inner"
    )


@contextlib.contextmanager
def program(kind: ProgramType, attach: AttachType = AttachType.NONE, pin: str = "") -> Generator[int]:
    """The id of a loaded program, which is also pinned where a path is given."""
    with load_program(returning(2), kind, attach=attach) as owned, owned.lease() as prog_fd:
        if pin:
            pin_program(Path(pin), prog_fd)
        yield program_id(prog_fd)


async def test_an_inner_map_by_every_reference_reads_as_its_id(
    ground: Ground, inner: Map[int, int], outer: Map[int, int]
) -> None:
    pin = str(ground.pin("inner"))
    for named in (inner, "inner", "admin/inner", f"pin:{pin}", f"id:{inner.info.id}"):
        await outer.update_reference(1, inner=named)
        assert await outer.lookup(1) == inner.info.id
        assert await outer.delete(1)
    await outer.update_reference(0, inner=inner, flags="noexist")
    assert [pair async for pair in outer.items()] == [(0, inner.info.id)]


async def test_what_was_awaited_is_read_and_a_read_overtakes_what_was_not(
    inner: Map[int, int], outer: Map[int, int]
) -> None:
    """Writes wait 8 ms for a grace period in a lane of their own; reads do not wait for them."""
    for _ in range(3):
        await outer.update_reference(0, inner=inner)
        assert await outer.lookup(0) == inner.info.id
        assert await outer.delete(0)
        assert await outer.lookup(0) is None
    writes = [asyncio.create_task(outer.update_reference(0, inner=inner)) for _ in range(8)]
    await asyncio.wait_for(asyncio.gather(*(inner.lookup(1) for _ in range(8))), 10)
    await asyncio.gather(*writes)


async def test_programs_by_id_and_by_pin(ground: Ground) -> None:
    jumps = await ground.client.create_map("jumps", "prog_array", key=U32, value=U32, max_entries=4)
    pin = f"{ground.place.bpffs}/program"
    with program(ProgramType.SOCKET_FILTER, pin=pin) as number:
        await jumps.update_reference(0, program=number)
        await jumps.update_reference(1, program=f"pin:{pin}")
        assert await jumps.lookup_many([0, 1, 2]) == [number, number, None]
    with (
        program(ProgramType.XDP) as other,
        unchanged(ground.pin("jumps")),
        refused(Misuse, Reason.BAD_SPEC, "takes socket_filter programs"),
    ):
        await jumps.update_reference(1, program=other)


async def test_devices_by_name_and_index_with_and_without_programs(ground: Ground) -> None:
    for kind in ("devmap", "devmap_hash"):
        value: Codec[tuple[int, int]] = Struct("=II")
        devices = await ground.client.create_map(kind, kind, key=U32, value=value, max_entries=4)
        with program(ProgramType.XDP, AttachType.XDP_DEVMAP) as number:
            await devices.update_reference(0, device="lo", program=number)
            await devices.update_reference(1, device=LO)
            assert [pair async for pair in devices.items()] == [(0, (LO, number)), (1, (LO, 0))]
        with unchanged(ground.pin(kind)), refused(Misuse, Reason.BAD_SPEC, "no device 'nowhere9'"):
            await devices.update_reference(0, device="nowhere9")


async def test_queues_of_cpus(ground: Ground) -> None:
    queues = await ground.client.create_map("queues", "cpumap", key=U32, value=Struct("=II"), max_entries=2)
    with program(ProgramType.XDP, AttachType.XDP_CPUMAP) as number:
        await queues.update_reference(0, queue=192, program=number)
        assert await queues.lookup(0) == (192, number)
    with program(ProgramType.XDP) as other, unchanged(ground.pin("queues")):
        with refused(Misuse, Reason.BAD_SPEC, "BPF_XDP_CPUMAP (35)"):
            await queues.update_reference(1, queue=8, program=other)
        with refused(Misuse, Reason.BAD_SPEC, "16385", "16384"):
            await queues.update_reference(1, queue=16_385)
    await queues.update_reference(0, queue=0)
    assert await queues.lookup(0) is None


async def test_what_is_refused_leaves_the_outer_map_as_it_was(
    ground: Ground, inner: Map[int, int], outer: Map[int, int]
) -> None:
    client = ground.client
    await outer.update_reference(0, inner=inner)
    other = await client.create_map("other", "hash", key=U32, value=Bytes(8), max_entries=4)
    read_only = await client.open_map("outer", key=U32, value=U32, read_only=True)
    with unchanged(ground.pin("outer"), ground.pin("inner")):
        with refused(Incompatible, Reason.INCOMPATIBLE, "value_size: 4 in map", "8 here"):
            await outer.update_reference(1, inner=other)
        with refused(MapNotFound, Reason.MAP_NOT_FOUND, "nothing"):
            await outer.update_reference(1, inner="nothing")
        with refused(KeyExists, Reason.KEY_EXISTS):
            await outer.update_reference(0, inner=inner, flags="noexist")
        with refused(Misuse, Reason.BAD_SPEC, "hash_of_maps maps take an inner map"):
            await outer.update_reference(1, program=1)
        with refused(PermissionDenied, Reason.READ_ONLY):
            await read_only.update_reference(1, inner=inner)
        await other.aclose()
        with refused(Unavailable, Reason.STALE_HANDLE):
            await outer.update_reference(1, inner=other)
    await outer.update_reference(1, inner=inner)
    with unchanged(ground.pin("outer")), refused(MapFull, Reason.MAP_FULL, "2 of max_entries=2"):
        await outer.update_reference(2, inner=inner)
    await outer.freeze()
    with unchanged(ground.pin("outer")), refused(MapFrozen, Reason.MAP_FROZEN):
        await outer.update_reference(0, inner=inner)


async def test_an_index_past_the_end_is_out_of_range(ground: Ground, inner: Map[int, int]) -> None:
    array = await ground.client.create_map(
        "array", "array_of_maps", key=U32, value=U32, max_entries=2, inner="inner"
    )
    with unchanged(ground.pin("array")), refused(IndexOutOfRange, Reason.INDEX_OUT_OF_RANGE, "0 to 1"):
        await array.update_reference(2, inner=inner)
    with refused(Misuse, Reason.BAD_FLAGS, "do not heed NOEXIST"):
        await array.update_reference(0, inner=inner, flags="noexist")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give inner="),
        ({"inner": "a", "program": 1}, "give inner="),
        ({"device": "lo", "queue": 1}, "give inner="),
        ({"program": "flows"}, "'pin:'"),
        ({"program": -1}, "program=-1"),
        ({"device": 1 << 32, "program": 1}, "device="),
        ({"queue": True}, "queue=True"),
        ({"inner": "No Name"}, "No Name"),
    ],
)
async def test_what_names_no_object_is_not_sent(
    ground: Ground, outer: Map[int, int], arguments: dict[str, object], says: str
) -> None:
    with ground.no_call(), refused(Misuse, None, says):
        await outer.update_reference(0, **arguments)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_message_that_names_nothing_is_refused(ground: Ground, outer: Map[int, int]) -> None:
    del outer
    key, of = bytes(4), by_name("outer")
    jumps = await ground.client.create_map("jumps", "prog_array", key=U32, value=U32, max_entries=1)
    del jumps
    for request, says in (
        (pb.UpdateReferenceRequest(map=of, key=key), "names no target"),
        (pb.UpdateReferenceRequest(map=of, key=key, program=pb.ProgramRef()), "ProgramRef has id or pin"),
        (pb.UpdateReferenceRequest(map=of, key=key, device=pb.DeviceRef()), "DeviceRef has ifindex or name"),
        (
            pb.UpdateReferenceRequest(map=of, key=key, device=pb.DeviceRef(ifindex=0)),
            "ifindex 0 is no device",
        ),
        (pb.UpdateReferenceRequest(map=of, key=key, inner=by_name("")), "update_reference"),
    ):
        check(await ground.raw.refusal("UpdateReference", request), Reason.BAD_SPEC, says)
    bad_flag = pb.UpdateReferenceRequest(map=of, key=key, inner=by_name("inner"))
    bad_flag.flag = 9  # type: ignore[assignment]  # a number that a newer client may send
    check(await ground.raw.refusal("UpdateReference", bad_flag), Reason.BAD_FLAGS, "9 is no UpdateFlag")


@pytest.mark.parametrize(
    ("kind", "says"),
    [("hash", "use update"), ("sockmap", "a socket cannot be named"), ("xskmap", "a socket cannot be named")],
)
async def test_maps_that_take_no_references_make_no_syscall(ground: Ground, kind: str, says: str) -> None:
    made = await ground.client.create_map(kind, kind, key=U32, value=U32, max_entries=1)
    with ground.no_call(), refused(Unsupported, Reason.OPERATION_UNSUPPORTED, kind, says):
        await made.update_reference(0, program=1)


async def test_without_a_value_codec_values_are_ids(
    ground: Ground, inner: Map[int, int], outer: Map[int, int]
) -> None:
    await outer.update_reference(7, inner=inner)
    async with ground.client.open_map("outer", key=U32) as again:
        assert await again.lookup(7) == inner.info.id
        assert [pair async for pair in again.items()] == [(7, inner.info.id)]
    with refused(Misuse, None, "hash values of 4 bytes are no ids"):
        await ground.client.open_map("inner", key=U32)
    await ground.client.create_map("devices", "devmap", key=U32, value=Struct("=II"), max_entries=1)
    with refused(Misuse, None, 'Struct("=II")'):
        await ground.client.open_map("devices", key=U32)


async def test_writes_that_wait_for_the_kernel_have_a_lane_of_their_own(
    ground: Ground, inner: Map[int, int], outer: Map[int, int]
) -> None:
    pool = ground.ready.host._pool  # pyright: ignore[reportPrivateUsage]  # nobody else counts by lane
    slow = pool.counts(Lane.SLOW)
    before = slow.jobs
    await outer.update_reference(0, inner=inner)
    await outer.update_reference(1, inner=inner)
    await outer.delete(0)
    await outer.delete_many([0, 1])
    assert slow.jobs == before + 4
    assert await outer.lookup(0) is None
    assert [pair async for pair in outer.items()] == []
    await inner.update(1, 1)
    await inner.delete(1)
    assert slow.jobs == before + 4
    await outer.freeze()
    assert slow.jobs == before + 5
