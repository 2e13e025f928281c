"""Deadlines between the syscalls of one group: what was not executed in time says so, and nobody waits behind it."""

from __future__ import annotations

import time

import grpc
import pytest

from mapd.bpf import Fault
from mapd.bpf.abi import Command
from mapd.maps.job import BETWEEN_LOOKS
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import types_pb2 as types
from tests.unit.mapd.dictkernel import n
from tests.unit.mapd.rpc.test_handlers import FLOWS, add
from tests.unit.mapd.rpc.wire import Wire, serving

pytestmark = pytest.mark.usefixtures("watched_loop")

COUNT = 3 * BETWEEN_LOOKS
TIME_S = 0.2


def slowly(wire: Wire) -> None:
    """The first batch takes all the time that there is."""

    def wait() -> None:
        over = time.monotonic() + TIME_S
        while time.monotonic() <= over:
            pass

    wire.faulty.add(Fault(target=Command.MAP_UPDATE_BATCH, nth=1, after=True, failpoint=wait))


async def test_a_group_is_not_gone_on_with_when_its_time_is_over() -> None:
    async with serving() as wire:
        made = add(wire, max_entries=COUNT)
        slowly(wire)
        words = b"".join(map(n, range(COUNT)))
        late = pb.OpGroup(
            map=FLOWS, count=COUNT, ops=bytes([Op.UPDATE]), keys=words, values=words, remaining_ms=100
        )
        after = pb.OpGroup(map=FLOWS, count=1, ops=bytes([Op.LOOKUP]), keys=n(0))
        results = (await wire.call(pb.ApplyRequest(groups=[late, after]))).results
        assert results[0].statuses.count(0) == BETWEEN_LOOKS == len(made.elements)
        assert results[0].statuses.count(Reason.EXPIRED) == COUNT - BETWEEN_LOOKS
        assert results[1].values == n(0)


async def test_neither_is_a_load() -> None:
    async with serving() as wire:
        made = add(wire, max_entries=COUNT)
        slowly(wire)
        words = b"".join(map(n, range(COUNT)))
        columns = types.Columns(count=COUNT, keys=words, values=words)
        call = wire.callable("Load")(iter([pb.LoadRequest(map=FLOWS, columns=columns)]), timeout=TIME_S / 2)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # What its thread had begun has ended with the pool.
    assert len(made.elements) == BETWEEN_LOOKS
