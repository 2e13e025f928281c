"""Selections of dumps: what is refused before anything is sent, and what becomes of older daemons."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode

from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2
from mapd_client import (
    I64,
    U8,
    U32,
    U64,
    Bytes,
    DumpIncomplete,
    MapdError,
    Misuse,
    PerCpu,
    Reduce,
    TypeMismatch,
    Unsupported,
    connect,
)
from mapd_client.codec import Codec
from mapd_client.percpu import PerCpuReduced
from mapd_client.selecting import Reducing
from tests.unit.mapd_client.clients import opened
from tests.unit.mapd_client.daemon import POSSIBLE_CPUS, Daemon, map_info, refuse


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("mean",), Misuse, "'mean'"),
        (("sum", 0, 3), Misuse, "size=3"),
        (("sum", -1), Misuse, "-1"),
        (("sum", 1 << 32), Misuse, "4294967296"),
        (("sum", "x"), TypeMismatch, "int, not str"),
        (("sum", True), TypeMismatch, "int, not bool"),
    ],
)
def test_reductions_that_there_are_not(arguments: tuple[Any, ...], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Reduce(*arguments)


@pytest.mark.parametrize(
    ("value_range", "kind"),
    [
        ((0, 0), Misuse),
        ((-1, 2), Misuse),
        ((0, 1 << 40), Misuse),
        ((0,), TypeMismatch),
        (("0", 1), TypeMismatch),
    ],
)
async def test_ranges_that_are_none(daemon: Daemon, value_range: Any, kind: type[Exception]) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        with pytest.raises(kind, match="value_range"):
            flows.chunks(value_range=value_range)


@pytest.mark.parametrize(
    "arguments", [{"nonzero": True}, {"value_range": (0, 4)}, {"reduce": [Reduce("sum")]}], ids=str
)
async def test_a_daemon_that_would_take_no_notice_is_not_asked(
    daemon: Daemon, arguments: dict[str, Any]
) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        await flows.update(1, 1)
        with pytest.raises(Unsupported, match="no feature 'dump-select'"):
            await anext(flows.chunks(**arguments))


async def test_a_sum_of_an_older_daemons_values_is_made_here(daemon: Daemon) -> None:
    daemon.add(map_info("ns/hits", MapType.PERCPU_HASH))
    async with (
        connect(daemon.target) as client,
        client.open_map("ns/hits", key=U32, value=PerCpu(U64)) as hits,
    ):
        await hits.update(1, [5] * POSSIBLE_CPUS)
        async with client.open_map("ns/hits", key=U32, value=PerCpu(U64).sum()) as sums:
            assert [pair async for pair in sums.items()] == [(1, 5 * POSSIBLE_CPUS)]


async def test_a_newer_daemon_is_asked_for_the_sum(daemon: Daemon) -> None:
    asked: list[elements_pb2.DumpRequest] = []

    async def dump(request: elements_pb2.DumpRequest, context: Any) -> None:
        asked.append(request)
        chunk = elements_pb2.DumpChunk()
        width = 0 if request.columns == elements_pb2.DUMP_COLUMNS_KEYS else 8
        chunk.columns.count, chunk.columns.keys = 1, bytes(4)
        chunk.columns.values = (7).to_bytes(8, "little")[:width]
        await context.write(elements_pb2.DumpResponse(header=elements_pb2.DumpHeader(value_bytes=width)))
        await context.write(elements_pb2.DumpResponse(chunk=chunk))
        trailer = elements_pb2.DumpTrailer(entries=1, complete=True)
        await context.write(elements_pb2.DumpResponse(trailer=trailer))

    daemon.features = ("dump-select",)
    daemon.hooks["Dump"] = dump
    daemon.add(map_info("ns/hits", MapType.PERCPU_HASH))
    async with (
        connect(daemon.target) as client,
        client.open_map("ns/hits", key=U32, value=PerCpu(U64).sum()) as sums,
    ):
        assert [pair async for pair in sums.items(nonzero=True)] == [(0, 7)]
        every_key = sums.keys()
        assert [key async for key in every_key] == [0]
    with_values, keys_alone = asked
    assert with_values.nonzero_values
    (one,) = with_values.reductions
    assert (one.offset, one.size, one.kind) == (0, 8, elements_pb2.REDUCTION_KIND_SUM)
    assert not keys_alone.reductions


@pytest.mark.parametrize(
    ("type", "value", "arguments"),
    [(MapType.HASH, U64, {"nonzero": True}), (MapType.PERCPU_HASH, PerCpu(U64).sum(), {})],
    ids=["by the caller", "by the codec"],
)
async def test_a_dump_does_not_go_on_at_a_daemon_that_would_take_no_notice(
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    type: MapType,
    value: Codec[int],
    arguments: dict[str, Any],
) -> None:
    """The daemon is replaced by an older one while a dump is under way."""
    asked: list[bytes] = []

    async def dump(request: elements_pb2.DumpRequest, context: Any) -> None:
        asked.append(request.resume_token)
        if not daemon.sessions:
            await refuse(context, Refusal(Reason.STALE_HANDLE, "no such handle"))
        if len(asked) > 1:
            await refuse(context, Refusal(Reason.POLICY, "asked for what it does not know"))
        chunk = elements_pb2.DumpChunk(token=b"1")
        chunk.columns.count, chunk.columns.keys, chunk.columns.values = 1, bytes(4), bytes(8)
        await context.write(elements_pb2.DumpResponse(header=elements_pb2.DumpHeader(value_bytes=8)))
        await context.write(elements_pb2.DumpResponse(chunk=chunk))
        monkeypatch.setattr("tests.unit.mapd_client.daemon.EPOCH", "epoch-2")
        daemon.features = ()
        daemon.handles.clear()
        daemon.sessions.clear()
        await context.abort(StatusCode.UNAVAILABLE, "replaced")

    daemon.features = ("dump-select",)
    daemon.hooks["Dump"] = dump
    daemon.add(map_info("ns/flows", type))
    async with connect(daemon.target) as client, client.open_map("flows", key=U32, value=value) as flows:
        with pytest.raises(DumpIncomplete, match="no feature 'dump-select'") as caught:
            _ = [pair async for pair in flows.items(**arguments)]
    assert caught.value.token == b"1"
    assert asked == [b"", b"1"], "the older one was not asked for what it does not know"


async def test_values_of_another_width_than_was_asked_for_are_refused(daemon: Daemon) -> None:
    async def dump(request: object, context: Any) -> None:
        del request
        await context.write(elements_pb2.DumpResponse(header=elements_pb2.DumpHeader(value_bytes=9)))

    daemon.hooks["Dump"] = dump
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        with pytest.raises(MapdError, match="announced values of 9 bytes, 8 are due"):
            await anext(flows.items())


@pytest.mark.parametrize(
    ("codec", "slots", "expected"),
    [
        (PerCpu(U64).sum(), [(1 << 64) - 1, 2], 1),
        (PerCpu(I64).sum(), [-(1 << 63), -1], (1 << 63) - 1),
        (PerCpu(U32).sum(), [(1 << 32) - 1, 2], (1 << 32) + 1),
        (PerCpu(U8).max(), [3, 200], 200),
        (PerCpu(I64).min(), [3, -200], -200),
    ],
)
def test_what_all_cpus_come_to(codec: Codec[int], slots: list[int], expected: int) -> None:
    bound = codec.bind("little", 2)
    assert isinstance(bound, PerCpuReduced)
    assert bound.decode(bound.per_cpu.encode(slots)) == expected


@pytest.mark.parametrize(
    ("inner", "kind", "reduction"),
    [
        (U64, "sum", Reduce("sum")),
        (I64, "max", Reduce("max", signed=True)),
        (U32, "min", Reduce("min", size=4)),
        (U32, "sum", None),  # exact here, and the daemon's would wrap
        (Bytes(8), "min", None),
    ],
)
def test_what_a_daemon_can_do_the_same_way(
    inner: Codec[Any], kind: Reducing, reduction: Reduce | None
) -> None:
    assert PerCpuReduced(PerCpu(inner), kind).reduction == reduction
