"""Calls that are well formed and cannot be: no such key, no room, not writable, not with this type.

Every test compares the whole map, read by the kernel past the daemon, before and after.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mapd.bpf import CreateMap, Fault, NextMapId, OpenPin
from mapd.bpf.abi import Command
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2, types_pb2
from mapd_client import (
    U32,
    U64,
    Bytes,
    IndexOutOfRange,
    KeyExists,
    KeyMissing,
    Map,
    MapdError,
    MapFrozen,
    MapFull,
    MapNotFound,
    Misuse,
    PerCpu,
    PermissionDenied,
    Refused,
    SizeMismatch,
    Unsupported,
)
from tests.e2e.bad_input import Calls, Ground, by_name, check, on_ground, pin_foreign, refused, unchanged
from tests.support.daemon import Place

LOOK = Command.OBJ_GET_INFO_BY_FD
"""Opening a map asks for its info; that changes nothing."""

Flows = Map[int, int]


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


@pytest.fixture
async def flows(ground: Ground) -> Flows:
    """A hash map of 4 x (4, 8) bytes with one place free."""
    found = await ground.client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
    await found.update_many({1: 10, 2: 20, 3: 30})
    return found


@pytest.fixture
async def slots(ground: Ground) -> Flows:
    """An array of four."""
    found = await ground.client.create_map("slots", "array", key=U32, value=U64, max_entries=4)
    await found.update_many({0: 5, 1: 6, 2: 7, 3: 8})
    return found


@pytest.fixture
async def raw_bytes(ground: Ground, flows: Flows) -> Map[bytes, bytes]:
    """The same map without codecs."""
    del flows
    return await ground.client.open_map("flows")


UPDATE, LOOKUP = bytes([Op.UPDATE]), bytes([Op.LOOKUP])


# ---- what is not there, what is there already ----------------------------------------------------


async def test_an_absent_key_is_none_and_a_key_missing_in_brackets(ground: Ground, flows: Flows) -> None:
    with unchanged(ground.pin("flows")):
        assert await flows.lookup(99) is None
        assert await flows.delete(99) is False
        assert await flows.lookup_and_delete(99) is None
        with refused(KeyMissing, Reason.KEY_ABSENT, "lookup flows", "no such key", "63000000") as caught:
            await flows[99]
        assert isinstance(caught.value, KeyError)
        answer = await ground.raw.call(
            "Lookup", pb.LookupRequest(map=by_name("flows"), key=U32.encode(99)), pb.LookupResponse
        )
        assert not answer.HasField("value")


async def test_noexist_on_a_key_that_is_there_is_refused(ground: Ground, flows: Flows) -> None:
    with unchanged(ground.pin("flows")):
        with refused(KeyExists, Reason.KEY_EXISTS, "update flows", "exists", "noexist", "01000000"):
            await flows.update(1, 99, flags="noexist")
        request = pb.UpdateRequest(
            map=by_name("flows"), key=U32.encode(1), value=U64.encode(99), flag=pb.UPDATE_FLAG_NOEXIST
        )
        check(
            await ground.raw.refusal("Update", request),
            Reason.KEY_EXISTS,
            "update map ",
            "NOEXIST",
            operation="update",
            errno="EEXIST",
        )


async def test_exist_on_a_key_that_is_not_there_is_refused(ground: Ground, flows: Flows) -> None:
    with unchanged(ground.pin("flows")):
        with refused(KeyMissing, Reason.KEY_MISSING, "update flows", "no such key", "exist", "63000000"):
            await flows.update(99, 1, flags="exist")
        request = pb.UpdateRequest(
            map=by_name("flows"), key=U32.encode(99), value=U64.encode(1), flag=pb.UPDATE_FLAG_EXIST
        )
        refusal = await ground.raw.refusal("Update", request)
        check(refusal, Reason.KEY_MISSING, "update map ", "EXIST", operation="update", errno="ENOENT")


@pytest.mark.parametrize("index", [4, 5, (1 << 32) - 1])
async def test_an_index_past_the_end_is_refused_with_the_size(
    ground: Ground, slots: Flows, index: int
) -> None:
    """The kernel says ENOENT to a lookup and E2BIG to an update; it is one thing."""
    with unchanged(ground.pin("slots")):
        for call in (
            lambda: slots.lookup(index),
            lambda: slots[index],
            lambda: slots.update(index, 1),
            lambda: slots.update(index, 1, flags="exist"),
            lambda: slots.lookup_many([0, index]),
        ):
            shown = U32.encode(index).hex()
            with refused(
                IndexOutOfRange, Reason.INDEX_OUT_OF_RANGE, "slots", "max_entries=4", shown
            ) as caught:
                await call()
            assert isinstance(caught.value, IndexError)
        key = U32.encode(index)
        for method, request in (
            ("Lookup", pb.LookupRequest(map=by_name("slots"), key=key)),
            ("Update", pb.UpdateRequest(map=by_name("slots"), key=key, value=bytes(8))),
        ):
            check(
                await ground.raw.refusal(method, request),
                Reason.INDEX_OUT_OF_RANGE,
                f"{method.lower()} map ",
                "max_entries=4",
                "0 to 3",
                max_entries=4,
            )


async def test_noexist_on_an_array_is_refused_with_the_reason(ground: Ground, slots: Flows) -> None:
    with unchanged(ground.pin("slots")):
        with refused(KeyExists, Reason.KEY_EXISTS, "update slots"):
            await slots.update(1, 1, flags="noexist")
        request = pb.UpdateRequest(
            map=by_name("slots"), key=bytes(4), value=bytes(8), flag=pb.UPDATE_FLAG_NOEXIST
        )
        refusal = await ground.raw.refusal("Update", request)
        check(refusal, Reason.KEY_EXISTS, "all exist from the start", "without NOEXIST")


# ---- no room -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "flags", "number"), [("hash", 0, "E2BIG"), ("hash", 1, "E2BIG"), ("lpm_trie", 1, "ENOSPC")]
)
async def test_a_full_map_is_refused_with_n_of_max(
    ground: Ground, type: str, flags: int, number: str
) -> None:
    full = await ground.client.create_map("full", type, key=U64, value=U64, max_entries=2, flags=flags)
    # Of a trie: 32 bits of prefix length, then an address.
    keys = [32 | (address << 56) for address in range(3)]
    await full.update_many({keys[0]: 1, keys[1]: 2})
    with unchanged(ground.pin("full")):
        for flag in ("any", "noexist"):
            with refused(MapFull, Reason.MAP_FULL, "update full", "full, 2 of max_entries=2", "larger"):
                await full.update(keys[2], 3, flags=flag)
        request = pb.UpdateRequest(map=by_name("full"), key=U64.encode(keys[2]), value=bytes(8))
        check(
            await ground.raw.refusal("Update", request),
            Reason.MAP_FULL,
            "update map ",
            "full, 2 of max_entries=2",
            "larger map",
            errno=number,
            max_entries=2,
        )


@pytest.mark.parametrize("operation", ["update", "lookup"])
async def test_a_prefix_longer_than_the_address_is_no_key_of_a_trie(ground: Ground, operation: str) -> None:
    trie = await ground.client.create_map(
        "trie", "lpm_trie", key=Bytes(8), value=U64, max_entries=4, flags=MapFlag.NO_PREALLOC
    )
    await trie.update(U32.encode(8) + b"\x0a\0\0\0", 1)
    long = U32.encode(33) + b"\x0a\0\0\0"
    with unchanged(ground.pin("trie")):
        if operation == "lookup":
            assert await trie.lookup(long) is None
            return
        with refused(Misuse, Reason.BAD_COLUMNS, "update trie", "refuses", long.hex()):
            await trie.update(long, 2)
        request = pb.UpdateRequest(map=by_name("trie"), key=long, value=bytes(8))
        check(await ground.raw.refusal("Update", request), Reason.BAD_COLUMNS, "32 bits", errno="EINVAL")


async def test_a_lock_where_the_value_has_none_is_refused(ground: Ground, flows: Flows) -> None:
    with unchanged(ground.pin("flows")):
        with refused(Unsupported, None, "update flows", "lock=True", "bpf_spin_lock"):
            await flows.update(1, 99, lock=True)
        request = pb.UpdateRequest(map=by_name("flows"), key=bytes(4), value=bytes(8), lock=True)
        check(await ground.raw.refusal("Update", request), Reason.BAD_FLAGS, "bpf_spin_lock", flags="0x4")


# The kernel has memory for one more element whenever it is asked for in a test.
async def test_no_memory_for_an_element_is_told_from_a_full_map(ground: Ground, flows: Flows) -> None:
    ground.kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, errno=12, name="ENOMEM"))
    with unchanged(ground.pin("flows")):
        with refused(Refused, Reason.KERNEL_MEMORY, "update flows", "memory", "04000000") as caught:
            await flows.update(4, 40)
        assert not isinstance(caught.value, MapFull)
        request = pb.UpdateRequest(map=by_name("flows"), key=U32.encode(4), value=bytes(8))
        refusal = await ground.raw.refusal("Update", request)
        check(refusal, Reason.KERNEL_MEMORY, "memory", "cgroup", errno="ENOMEM")
    assert [fault.name for fault in ground.kernel.fired] == ["ENOMEM", "ENOMEM"]


# ---- not writable ----------------------------------------------------------------------------------


async def test_a_frozen_map_takes_no_write_of_any_kind(ground: Ground, flows: Flows) -> None:
    await flows.freeze()
    with unchanged(ground.pin("flows")):
        calls: Calls = (
            ("update", lambda: flows.update(1, 99)),
            ("update", lambda: flows.update(4, 40, flags="noexist")),
            ("update", lambda: flows.update_many({1: 99})),
            ("update", lambda: flows.update_many(dict.fromkeys(range(8), 99))),
            ("delete", lambda: flows.delete(1)),
            ("delete", lambda: flows.delete_many([1, 2, 3, 4, 5])),
            ("lookup_and_delete", lambda: flows.lookup_and_delete(1)),
            ("load", lambda: flows.load({1: 99})),
        )
        for operation, call in calls:
            with refused(MapFrozen, Reason.MAP_FROZEN, f"{operation} ", "flows", "frozen", "never"):
                await call()
        assert await flows[1] == 10
        for method, request in (
            ("Update", pb.UpdateRequest(map=by_name("flows"), key=U32.encode(1), value=bytes(8))),
            ("Delete", pb.DeleteRequest(map=by_name("flows"), key=U32.encode(1))),
        ):
            refusal = await ground.raw.refusal(method, request)
            check(refusal, Reason.MAP_FROZEN, f"{method.lower()} map ", "frozen", errno="EPERM")
        await flows.freeze()


async def test_a_read_only_handle_writes_nothing_and_asks_the_kernel_nothing(
    ground: Ground, flows: Flows
) -> None:
    del flows
    reader = await ground.client.open_map("flows", key=U32, value=U64, read_only=True)
    handle = await ground.raw.open(by_name("flows"), read_only=True)
    with unchanged(ground.pin("flows")), ground.no_call():
        calls: Calls = (
            ("update", lambda: reader.update(1, 99)),
            ("update", lambda: reader.update(1, 99, flags="exist")),
            ("update", lambda: reader.update_many({1: 99})),
            ("delete", lambda: reader.delete(1)),
            ("delete", lambda: reader.delete_many([1])),
            ("lookup_and_delete", lambda: reader.lookup_and_delete(1)),
            ("load", lambda: reader.load({1: 99})),
            ("freeze", reader.freeze),
        )
        for operation, call in calls:
            with refused(
                PermissionDenied, Reason.READ_ONLY, f"{operation} map ", "flows", "read-only", "again"
            ):
                await call()
        # Reads and writes in one group: nothing of it is done.
        group = pb.OpGroup(map=handle, count=2, ops=LOOKUP + UPDATE, keys=bytes(8), values=bytes(8))
        check(await ground.raw.group_refusal(group), Reason.READ_ONLY, "update map ", operation="update")


async def write_only(ground: Ground) -> types_pb2.MapRef:
    """The creator's handle of a map that it can only write."""
    request = maps_pb2.CreateMapRequest(
        type=types_pb2.MAP_TYPE_HASH,
        key_size=4,
        value_size=8,
        max_entries=4,
        map_flags=MapFlag.WRONLY,
        named=maps_pb2.Named(name="only-write-too"),
    )
    answer = await ground.raw.call("CreateMap", request, maps_pb2.CreateMapResponse)
    return types_pb2.MapRef(handle=answer.handle)


async def test_a_creators_one_way_handle_says_so_and_others_work(ground: Ground) -> None:
    """BPF_F_RDONLY and WRONLY bind the descriptor that creation gave, not the map."""
    for name, flag in (("only-read", MapFlag.RDONLY), ("only-write", MapFlag.WRONLY)):
        made = await ground.client.create_map(name, "hash", key=U32, value=U64, max_entries=4, flags=flag)
        with unchanged(ground.pin(name)):
            if flag is MapFlag.RDONLY:
                with refused(
                    PermissionDenied, Reason.READ_ONLY, "update ", "BPF_F_RDONLY", "open the map again"
                ):
                    await made.update(1, 1)
                with refused(PermissionDenied, Reason.READ_ONLY, "freeze ", "BPF_F_RDONLY"):
                    await made.freeze()
                assert await made.lookup(1) is None
            else:
                with refused(Unsupported, Reason.OPERATION_UNSUPPORTED, "lookup ", "BPF_F_WRONLY", "again"):
                    await made.lookup(1)
                with refused(Unsupported, Reason.OPERATION_UNSUPPORTED, "dump ", "BPF_F_WRONLY", "again"):
                    await anext(made.items())
                refusal = await ground.raw.refusal(
                    "GetNextKey", pb.GetNextKeyRequest(map=await write_only(ground))
                )
                check(refusal, Reason.OPERATION_UNSUPPORTED, "get_next_key ", "BPF_F_WRONLY")
        again = await ground.client.open_map(name, key=U32, value=U64)
        await again.update(1, 1)
        assert await again[1] == 1


# ---- not with this type ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "operations"),
    [
        ("array", ("delete", "lookup_and_delete")),
        ("percpu_array", ("delete", "lookup_and_delete")),
        ("lpm_trie", ("lookup_and_delete",)),
    ],
)
async def test_an_operation_that_the_type_lacks_is_refused_without_a_syscall(
    ground: Ground, type: str, operations: tuple[str, ...]
) -> None:
    size = 8 if type == "lpm_trie" else 4
    value: Any = PerCpu(U64) if type == "percpu_array" else U64
    flags = MapFlag.NO_PREALLOC if type == "lpm_trie" else MapFlag(0)
    made = await ground.client.create_map(
        "typed", type, key=Bytes(size), value=value, max_entries=2, flags=flags
    )
    key = bytes(size)
    calls: dict[str, Any] = {
        "delete": (lambda: made.delete(key), lambda: made.delete_many([key])),
        "lookup_and_delete": (lambda: made.lookup_and_delete(key),),
    }
    ref = await ground.raw.open(by_name("typed"))
    with unchanged(ground.pin("typed")), ground.no_call():
        for operation in operations:
            says = (f"{operation} map ", "(typed)", f"{type} maps have no {operation}", "lookup, update")
            for call in calls[operation]:
                with refused(Unsupported, Reason.OPERATION_UNSUPPORTED, *says):
                    await call()
            group = pb.OpGroup(map=ref, count=1, ops=bytes([Op[operation.upper()]]), keys=key)
            check(
                await ground.raw.group_refusal(group),
                Reason.OPERATION_UNSUPPORTED,
                *says,
                operation=operation,
                map_type=type,
            )
            assert operation not in made.info.supported_operations


async def test_elements_of_a_type_not_served_are_refused_without_a_syscall(ground: Ground) -> None:
    pin = ground.place.bpffs / "queue"
    request = CreateMap(map_type=MapType.QUEUE, key_size=0, value_size=8, max_entries=2)
    with pin_foreign(pin, request), unchanged(pin):
        queue = await ground.client.open_map(f"pin:{pin}")
        ref = await ground.raw.open(types_pb2.MapRef(pin=str(pin)))
        with ground.no_call():
            for call in (
                lambda: queue.lookup(b""),
                lambda: queue.update(b"", bytes(8)),
                lambda: queue.delete(b""),
                lambda: queue.load([(b"", bytes(8))]),
                lambda: anext(queue.items()),
            ):
                with refused(Unsupported, Reason.OPERATION_UNSUPPORTED, "queue"):
                    await call()
            refusal = await ground.raw.refusal("GetNextKey", pb.GetNextKeyRequest(map=ref))
            check(refusal, Reason.OPERATION_UNSUPPORTED, "queue", map_type="queue")


# ---- no such map, or no longer -----------------------------------------------------------------------


async def test_a_handle_that_was_closed_is_stale_and_says_what_to_do(ground: Ground, flows: Flows) -> None:
    handle = await ground.raw.open(by_name("flows"))
    await ground.raw.call(
        "CloseMap", maps_pb2.CloseMapRequest(handle=handle.handle), maps_pb2.CloseMapResponse
    )
    await flows.aclose()
    with unchanged(ground.pin("flows")), ground.no_call():
        with refused(Misuse, None, "flows", "closed"):
            await flows.update(1, 99)
        request = pb.UpdateRequest(map=handle, key=U32.encode(1), value=bytes(8))
        check(await ground.raw.refusal("Update", request), Reason.STALE_HANDLE, "open the map again")


@pytest.mark.parametrize("prefix", [b"12345", bytes(4096)])
async def test_a_prefix_longer_than_the_keys_is_refused_with_both_numbers(
    ground: Ground, flows: Flows, prefix: bytes
) -> None:
    with (
        ground.no_call(OpenPin, LOOK),
        refused(SizeMismatch, Reason.KEY_SIZE_MISMATCH, "dump map ", f"{len(prefix)} bytes", "4 bytes"),
    ):
        await anext(flows.items(prefix=prefix))


@pytest.mark.parametrize("token", [b"x", bytes(64), b"\x01\x07" + bytes(40)])
async def test_a_token_that_is_none_is_refused(ground: Ground, flows: Flows, token: bytes) -> None:
    with ground.no_call(), pytest.raises(MapdError) as caught:
        await anext(flows.items(resume=token))
    assert caught.value.reason in (Reason.BAD_SPEC, Reason.MAP_REPLACED)
    assert "dump map " in str(caught.value)
    assert "start anew" in str(caught.value)


async def test_a_token_of_another_map_is_refused_with_both_ids(ground: Ground, flows: Flows) -> None:
    other = await ground.client.create_map("other", "hash", key=U32, value=U64, max_entries=4)
    async with flows.items() as dump:
        _ = [entry async for entry in dump]
        token = dump.token
    with ground.no_call(), pytest.raises(MapdError) as caught:
        await anext(other.items(resume=token))
    assert caught.value.reason is Reason.MAP_REPLACED
    assert f"token is of map {flows.info.id}" in str(caught.value)
    assert str(other.info.id) in str(caught.value)


async def test_dump_columns_that_are_none_are_refused(ground: Ground, flows: Flows) -> None:
    del flows
    columns: Any = 9
    with ground.no_call(OpenPin, LOOK):
        refusal = await ground.raw.refusal("Dump", pb.DumpRequest(map=by_name("flows"), columns=columns))
        check(refusal, Reason.BAD_FLAGS, "dump", "9 is no DumpColumns")


@pytest.mark.parametrize("by", ["name", "pin", "id"])
async def test_elements_of_a_map_that_is_not_there_are_not_found(ground: Ground, by: str) -> None:
    ref = {
        "name": types_pb2.MapRef(name="nosuch"),
        "pin": types_pb2.MapRef(pin=f"{ground.place.bpffs}/nosuch"),
        "id": types_pb2.MapRef(id=4_000_000_000),
    }[by]
    named = {"name": "admin/nosuch", "pin": f"pin:{ground.place.bpffs}/nosuch", "id": "id:4000000000"}[by]
    for method, request in (
        ("Lookup", pb.LookupRequest(map=ref, key=bytes(4))),
        ("Update", pb.UpdateRequest(map=ref, key=bytes(4), value=bytes(8))),
        ("Delete", pb.DeleteRequest(map=ref, key=bytes(4))),
        ("Dump", pb.DumpRequest(map=ref)),
    ):
        check(await ground.raw.refusal(method, request), Reason.MAP_NOT_FOUND, named, map=named)
    group = pb.OpGroup(map=ref, count=1, ops=UPDATE, keys=bytes(4), values=bytes(8))
    check(await ground.raw.group_refusal(group), Reason.MAP_NOT_FOUND, named)
    with refused(MapNotFound, Reason.MAP_NOT_FOUND, "open ", named):
        await ground.client.open_map("nosuch" if by == "name" else named)
    assert NextMapId not in {seen.target for seen in ground.kernel.seen}
