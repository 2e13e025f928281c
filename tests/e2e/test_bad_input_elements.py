"""Elements that are wrong: a clear error, by the client before anything is sent and by the daemon without it.

Every test compares the whole map, read by the kernel past the daemon, before and after.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from grpc import aio

from mapd.bpf import CreateMap, OpenPin
from mapd.bpf.abi import Command
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import types_pb2
from mapd_client import (
    U32,
    U64,
    Bytes,
    Map,
    MapdError,
    Misuse,
    PerCpu,
    SizeMismatch,
    TypeMismatch,
    methods,
)
from mapd_client.failures import Asked, Failure, of_failure
from mapd_client.link import Link
from tests.e2e.bad_input import Ground, by_name, check, on_ground, pin_foreign, refused
from tests.support.daemon import Place
from tests.support.pinned import unchanged

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


# ---- sizes and types, refused by the client ----------------------------------------------------


@pytest.mark.parametrize(
    ("key", "kind", "says"),
    [
        (b"abc", SizeMismatch, ("3 bytes given", "4 needed")),
        (b"abcde", SizeMismatch, ("5 bytes given", "4 needed")),
        (b"", SizeMismatch, ("0 bytes given", "4 needed")),
        ("abcd", TypeMismatch, ("bytes", "not str")),
        (1, TypeMismatch, ("bytes", "not int")),
    ],
)
async def test_a_key_of_another_size_or_type_is_refused_unsent(
    ground: Ground, raw_bytes: Map[Any, Any], key: Any, kind: type[MapdError], says: tuple[str, ...]
) -> None:
    value = bytes(8)
    for operation, call in (
        ("lookup", lambda: raw_bytes.lookup(key)),
        ("lookup", lambda: raw_bytes[key]),
        ("update", lambda: raw_bytes.update(key, value)),
        ("delete", lambda: raw_bytes.delete(key)),
        ("lookup_and_delete", lambda: raw_bytes.lookup_and_delete(key)),
    ):
        with unchanged(ground.pin("flows")), ground.no_call():
            with refused(kind, None, operation, "flows", "key", *says) as caught:
                await call()
            assert caught.value.operation == operation
            assert caught.value.map == "flows"


@pytest.mark.parametrize(("size", "kind"), [(7, SizeMismatch), (9, SizeMismatch), (0, SizeMismatch)])
async def test_a_value_of_another_size_is_refused_unsent_with_both_numbers(
    ground: Ground, raw_bytes: Map[bytes, bytes], size: int, kind: type[MapdError]
) -> None:
    with (
        unchanged(ground.pin("flows")),
        ground.no_call(),
        refused(kind, None, "update flows: value", f"{size} bytes given", "8 needed"),
    ):
        await raw_bytes.update(bytes(4), bytes(size))


@pytest.mark.parametrize("number", [-1, 1 << 32])
async def test_a_number_outside_its_codec_is_refused_unsent_with_the_bounds(
    ground: Ground, flows: Flows, number: int
) -> None:
    with (
        unchanged(ground.pin("flows")),
        ground.no_call(),
        refused(SizeMismatch, None, "update flows: key", number, "U32", "0 to 4294967295"),
    ):
        await flows.update(number, 1)


async def test_an_element_of_many_that_is_wrong_is_named_by_its_place(ground: Ground, flows: Flows) -> None:
    """Nothing is sent where the first message already holds it."""
    bad: Any = [(7, 1), (8, -1)]
    pairs: Any = [(7, 1), 8]
    keys: Any = [1, "x"]
    with unchanged(ground.pin("flows")), ground.no_call():
        with refused(SizeMismatch, None, "update flows", "value of element 1", "-1", "U64"):
            await flows.update_many(bad)
        with refused(SizeMismatch, None, "load flows", "value of element 1", "-1", "U64"):
            await flows.load(bad)
        with refused(TypeMismatch, None, "update flows", "element 1", "(key, value) pair", "8"):
            await flows.update_many(pairs)
        with refused(TypeMismatch, None, "lookup flows", "key of element 1", "U32", "str"):
            await flows.lookup_many(keys)
        with refused(TypeMismatch, None, "delete flows", "key of element 1", "U32", "str"):
            await flows.delete_many(keys)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (U64, U64, ("U64 has 8 bytes", "key_size is 4")),
        (U32, U32, ("U32 has 4 bytes", "value_size is 8")),
        (U32, PerCpu(U64), ("PerCpu(U64)", "one value per key")),
    ],
)
async def test_codecs_of_another_size_do_not_open_the_map(
    ground: Ground, flows: Flows, key: Any, value: Any, says: tuple[str, ...]
) -> None:
    del flows
    held = len(ground.ready.host.handles)
    with unchanged(ground.pin("flows")), refused(SizeMismatch, None, "open flows", *says) as caught:
        await ground.client.open_map("flows", key=key, value=value)
    assert (caught.value.operation, caught.value.map) == ("open", "flows")
    assert len(ground.ready.host.handles) == held, "the handle was not given back"


async def test_one_value_for_all_cpus_is_refused_with_the_codec_to_use(ground: Ground) -> None:
    made = ground.client.create_map("percpu", "percpu_hash", key=U32, value=PerCpu(U64), max_entries=4)
    counters = await made
    cpus = counters.info.slots()
    await counters.update(1, list(range(cpus)))
    with unchanged(ground.pin("percpu")), ground.no_call(OpenPin, LOOK):
        with refused(SizeMismatch, None, "open percpu", "PerCpu(U64)"):
            await ground.client.open_map("percpu", key=U32, value=U64)
        with refused(SizeMismatch, None, "update percpu", f"{cpus + 1} elements", f"{cpus} needed"):
            await counters.update(1, [0] * (cpus + 1))


@pytest.mark.parametrize("flags", ["never", "ANY", ""])
async def test_an_update_flag_that_is_none_is_refused_unsent_with_those_there_are(
    ground: Ground, flows: Flows, flags: Any
) -> None:
    with unchanged(ground.pin("flows")), ground.no_call():
        for call in (
            lambda: flows.update(1, 1, flags=flags),
            lambda: flows.update_many({1: 1}, flags=flags),
            lambda: flows.load({1: 1}, flags=flags),
        ):
            with refused(Misuse, None, repr(flags), "any", "noexist", "exist"):
                await call()


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_dump_of_less_than_one_element_is_refused_unsent(
    ground: Ground, flows: Flows, limit: int
) -> None:
    with unchanged(ground.pin("flows")), ground.no_call(), refused(Misuse, None, f"limit={limit}", "None"):
        flows.items(limit=limit)


# ---- sizes, counts and columns, refused by the daemon alone --------------------------------------


@pytest.mark.parametrize("size", [0, 3, 5, 4096])
async def test_the_daemon_refuses_a_key_of_another_size_with_both_numbers(
    ground: Ground, flows: Flows, size: int
) -> None:
    del flows
    ref, key = by_name("flows"), bytes(size)
    requests = {
        "Lookup": ("lookup", pb.LookupRequest(map=ref, key=key)),
        "Update": ("update", pb.UpdateRequest(map=ref, key=key, value=bytes(8))),
        "Delete": ("delete", pb.DeleteRequest(map=ref, key=key)),
        "GetNextKey": ("get_next_key", pb.GetNextKeyRequest(map=ref, key=key)),
    }
    for method, (operation, request) in requests.items():
        with unchanged(ground.pin("flows")), ground.no_call(OpenPin, LOOK):
            check(
                await ground.raw.refusal(method, request),
                Reason.KEY_SIZE_MISMATCH,
                f"{operation} map ",
                "(flows)",
                f"{size} bytes",
                "hash map's keys have 4 bytes",
                operation=operation,
                map_type="hash",
                given=size,
                expected=4,
            )


@pytest.mark.parametrize("size", [0, 7, 9, 16])
async def test_the_daemon_refuses_a_value_of_another_size_with_both_numbers(
    ground: Ground, flows: Flows, size: int
) -> None:
    del flows
    request = pb.UpdateRequest(map=by_name("flows"), key=bytes(4), value=bytes(size))
    with unchanged(ground.pin("flows")), ground.no_call(OpenPin, LOOK):
        check(
            await ground.raw.refusal("Update", request),
            Reason.VALUE_SIZE_MISMATCH,
            "update map ",
            f"{size} bytes",
            "values have 8 bytes",
            operation="update",
            given=size,
            expected=8,
        )


UPDATE, LOOKUP = bytes([Op.UPDATE]), bytes([Op.LOOKUP])


@pytest.mark.parametrize(
    ("group", "reason", "says"),
    [
        pytest.param(
            {"count": 0, "ops": UPDATE}, Reason.BAD_COLUMNS, ("count is 0", "1 to 16384"), id="none"
        ),
        pytest.param(
            {"count": 16_385, "ops": LOOKUP, "keys": bytes(4 * 16_385)},
            Reason.BAD_COLUMNS,
            ("count is 16385", "1 to 16384"),
            id="too-many",
        ),
        pytest.param(
            {"count": 1, "ops": UPDATE, "keys": bytes(8), "values": bytes(16)},
            Reason.KEY_SIZE_MISMATCH,
            ("keys of 8 bytes", "have 4 bytes"),
            id="fewer-than-its-columns",
        ),
        pytest.param(
            {"count": 3, "ops": UPDATE, "keys": bytes(8), "values": bytes(16)},
            Reason.BAD_COLUMNS,
            ("the key column has 8 bytes", "3 keys of 4 bytes"),
            id="more-than-its-columns",
        ),
        pytest.param(
            {"count": 2, "ops": UPDATE, "keys": bytes(8), "values": bytes(15)},
            Reason.BAD_COLUMNS,
            ("the value column has 15 bytes", "2 values of 8 bytes"),
            id="value-cut",
        ),
        pytest.param(
            {"count": 2, "ops": UPDATE, "keys": bytes(8)},
            Reason.VALUE_SIZE_MISMATCH,
            ("values of 0 bytes", "have 8 bytes"),
            id="no-values",
        ),
        pytest.param(
            {"count": 2, "ops": LOOKUP, "keys": bytes(8), "values": bytes(16)},
            Reason.BAD_COLUMNS,
            ("the value column has 16 bytes", "0 values"),
            id="values-nobody-takes",
        ),
        pytest.param(
            {"count": 3, "ops": UPDATE * 2, "keys": bytes(12), "values": bytes(24)},
            Reason.BAD_COLUMNS,
            ("op column has 2 bytes", "3 elements"),
            id="op-column-cut",
        ),
        pytest.param(
            {"count": 1, "keys": bytes(4)}, Reason.BAD_COLUMNS, ("op column is empty",), id="no-ops"
        ),
        pytest.param(
            {"count": 2, "ops": UPDATE + b"\x63", "keys": bytes(8), "values": bytes(8)},
            Reason.BAD_FLAGS,
            ("99 is no operation", "1 LOOKUP", "6 LOOKUP_AND_DELETE", "features"),
            id="op-of-a-newer-client",
        ),
        pytest.param(
            {"count": 1, "ops": b"\0", "keys": bytes(4)}, Reason.BAD_FLAGS, ("0 is no operation",), id="op-0"
        ),
        pytest.param(
            {"count": 1, "ops": UPDATE, "keys": bytes(4), "values": bytes(8), "flags": 1},
            Reason.BAD_FLAGS,
            ("update", "flags 0x1", "BPF_F_LOCK (4) or 0", "NOEXIST"),
            id="flag-of-update",
        ),
        pytest.param(
            {"count": 1, "ops": UPDATE, "keys": bytes(4), "values": bytes(8), "flags": 1 << 31},
            Reason.BAD_FLAGS,
            ("flags 0x80000000",),
            id="unknown-flag",
        ),
    ],
)
async def test_the_daemon_refuses_a_group_that_does_not_add_up_whole(
    ground: Ground, flows: Flows, group: dict[str, Any], reason: Reason, says: tuple[str, ...]
) -> None:
    del flows
    with unchanged(ground.pin("flows")), ground.no_call(OpenPin, LOOK):
        check(await ground.raw.group_refusal(pb.OpGroup(map=by_name("flows"), **group)), reason, *says)


async def test_a_group_that_is_refused_does_not_stop_the_next(ground: Ground, flows: Flows) -> None:
    bad = pb.OpGroup(map=by_name("nosuch"), count=1, ops=UPDATE, keys=bytes(4), values=bytes(8))
    good = pb.OpGroup(map=by_name("flows"), count=1, ops=UPDATE, keys=U32.encode(9), values=U64.encode(90))
    answer = await ground.raw.call("Apply", pb.ApplyRequest(groups=[bad, good]), pb.ApplyResponse)
    assert [result.HasField("error") for result in answer.results] == [True, False]
    assert await flows[9] == 90


async def test_the_daemon_refuses_more_groups_than_a_message_has(ground: Ground, flows: Flows) -> None:
    del flows
    group = pb.OpGroup(map=by_name("flows"), count=1, ops=bytes([Op.DELETE]), keys=U32.encode(1))
    request = pb.ApplyRequest(groups=[group] * (limits.GROUPS + 1))
    with unchanged(ground.pin("flows")), ground.no_call():
        refusal = await ground.raw.refusal("Apply", request)
        check(refusal, Reason.BAD_COLUMNS, limits.GROUPS + 1, limits.GROUPS)


async def test_the_daemon_refuses_stamps_outside_a_session(ground: Ground, flows: Flows) -> None:
    """A stamp asks to be recognised when it comes again; where it is not, it must not be taken and ignored."""
    del flows
    group = pb.OpGroup(map=by_name("flows"), count=1, ops=bytes([Op.DELETE]), keys=U32.encode(1))
    request = pb.ApplyRequest(stamp=pb.Stamp(session="s", slot=1, sequence=1), groups=[group])
    with unchanged(ground.pin("flows")), ground.no_call():
        refusal = await ground.raw.refusal("Apply", request)
        check(refusal, Reason.BAD_SPEC, "messages of a Session", "without a stamp")


@pytest.mark.parametrize("flag", [4, 99])
async def test_the_daemon_refuses_an_update_flag_it_does_not_know(
    ground: Ground, flows: Flows, flag: Any
) -> None:
    del flows
    columns = types_pb2.Columns(count=1, keys=bytes(4), values=bytes(8))
    requests: dict[str, Any] = {
        "Update": pb.UpdateRequest(map=by_name("flows"), key=bytes(4), value=bytes(8), flag=flag),
        "Load": pb.LoadRequest(map=by_name("flows"), flag=flag, columns=columns),
    }
    for method, request in requests.items():
        with unchanged(ground.pin("flows")), ground.no_call(OpenPin, LOOK):
            refusal = await ground.raw.refusal(method, request)
            check(refusal, Reason.BAD_FLAGS, flag, "1 ANY, 2 NOEXIST, 3 EXIST", operation=method.lower())


async def test_the_daemon_refuses_lookup_flags_it_does_not_know(ground: Ground, flows: Flows) -> None:
    del flows
    request = pb.LookupRequest(map=by_name("flows"), key=bytes(4), flags=3)
    with ground.no_call(OpenPin, LOOK):
        check(await ground.raw.refusal("Lookup", request), Reason.BAD_FLAGS, "lookup map", "flags 0x3")


async def test_a_request_without_a_map_is_refused_with_the_ways_to_name_one(ground: Ground) -> None:
    columns: Any = 9
    requests: dict[str, Any] = {
        "Lookup": pb.LookupRequest(key=bytes(4)),
        "Update": pb.UpdateRequest(key=bytes(4), value=bytes(8)),
        "Delete": pb.DeleteRequest(key=bytes(4)),
        "GetNextKey": pb.GetNextKeyRequest(),
        "Dump": pb.DumpRequest(columns=columns),
        "Load": pb.LoadRequest(),
    }
    with ground.no_call():
        for method, request in requests.items():
            refusal = await ground.raw.refusal(method, request)
            check(refusal, Reason.BAD_SPEC, "names no map", "handle, name, pin or id")


async def test_bytes_that_are_no_message_are_refused_as_such(ground: Ground, flows: Flows) -> None:
    """Not as a fault of the daemon, and without the text of an exception."""
    del flows
    with unchanged(ground.pin("flows")), ground.no_call():
        for method in ("Lookup", "Update", "Delete", "Apply", "Load"):
            refusal = await ground.raw.refusal(method, b"\xff" * 5)
            check(refusal, Reason.BAD_SPEC, "5 bytes", f"{method}Request", "proto")


async def test_a_load_whose_message_does_not_add_up_writes_none_of_it(ground: Ground, flows: Flows) -> None:
    del flows
    columns = types_pb2.Columns(count=2, keys=bytes(8), values=bytes(8))
    with unchanged(ground.pin("flows")), ground.no_call(OpenPin, LOOK):
        refusal = await ground.raw.refusal("Load", pb.LoadRequest(map=by_name("flows"), columns=columns))
        check(refusal, Reason.BAD_COLUMNS, "value column has 8 bytes", "2 values of 8", operation="load")
        check(await ground.raw.refusal("Load"), Reason.BAD_SPEC, "before it named a map")


async def test_a_load_refused_in_the_middle_says_how_far_it_came(ground: Ground, flows: Flows) -> None:
    good = types_pb2.Columns(count=1, keys=U32.encode(4), values=U64.encode(40))
    for second, reason in (
        (pb.LoadRequest(columns=types_pb2.Columns(count=1, keys=bytes(4))), Reason.BAD_COLUMNS),
        (pb.LoadRequest(map=by_name("flows"), columns=good), Reason.BAD_SPEC),
    ):
        first = pb.LoadRequest(map=by_name("flows"), columns=good)
        refusal = await ground.raw.refusal("Load", first, second)
        check(refusal, reason, "1 elements of this load had been written", applied=1, failed=0)
    assert await flows[4] == 40


# ---- larger than a message ---------------------------------------------------------------------


async def test_a_message_larger_than_any_is_refused_with_both_numbers(ground: Ground, flows: Flows) -> None:
    """By the client unsent; by the daemon's gRPC before it is read, which the client puts into words."""
    del flows
    group = pb.OpGroup(map=by_name("flows"), count=1, ops=UPDATE, values=bytes(limits.MESSAGE_BYTES))
    request = pb.ApplyRequest(groups=[group])
    numbers = (request.ByteSize(), limits.MESSAGE_BYTES)
    link = Link(f"unix:{ground.ready.socket}", 30)
    asked = Asked("update", "flows", mutates=True)
    with unchanged(ground.pin("flows")), ground.no_call():
        with refused(SizeMismatch, None, "update flows", *numbers):
            await link.call(methods.APPLY, request, asked)
        with pytest.raises(aio.AioRpcError) as caught:
            await ground.raw.call("Apply", request, pb.ApplyResponse)
        error = caught.value
        with refused(SizeMismatch, None, "update flows", *numbers, "less at once"):
            raise of_failure(Failure(error.code().name, error.details() or "", None, "unix:x"), asked)
    await link.aclose()


async def test_more_values_than_a_message_holds_are_refused_with_how_many_do(ground: Ground) -> None:
    size = 1 << 20
    pages = await ground.client.create_map("pages", "hash", key=U32, value=Bytes(size), max_entries=8)
    await pages.update(1, b"\x01" * size)
    group = pb.OpGroup(map=by_name("pages"), count=4, ops=LOOKUP, keys=U32.encode(1) * 4)
    with ground.no_call(OpenPin, LOOK):
        check(await ground.raw.group_refusal(group), Reason.BAD_COLUMNS, 4 * (size + 1), limits.COLUMN_BYTES)
    # The client cuts by itself.
    assert await pages.lookup_many([1] * 9) == [b"\x01" * size] * 9


async def test_elements_larger_than_a_message_are_refused_with_both_numbers(ground: Ground) -> None:
    """The daemon creates no such map, but others may."""
    size = 5 << 20
    pin = ground.place.bpffs / "huge"
    request = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=size, max_entries=1)
    with pin_foreign(pin, request), unchanged(pin):
        huge = await ground.client.open_map(f"pin:{pin}", key=U32, value=Bytes(size))
        with ground.no_call():
            for call in (
                lambda: huge.lookup(0),
                lambda: huge.update(0, bytes(size)),
                lambda: huge.update_many({0: bytes(size)}),
                lambda: huge.load({0: bytes(size)}),
            ):
                with refused(SizeMismatch, None, "element of 52428", limits.COLUMN_BYTES):
                    await call()
            with refused(Misuse, Reason.BAD_COLUMNS, "dump map ", size + 4, limits.COLUMN_BYTES):
                await anext(huge.items())
        ref = types_pb2.MapRef(pin=str(pin))
        with ground.no_call(OpenPin, LOOK):
            refusal = await ground.raw.refusal("Lookup", pb.LookupRequest(map=ref, key=bytes(4)))
            check(refusal, Reason.BAD_COLUMNS, "lookup map ", size + 4, limits.COLUMN_BYTES)
