"""Whatever is called, written, answered and cut in whatever order. No grpc, no daemon."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2
from tests.unit.mapd_client.pipes import (
    Scripted,
    World,
    connected,
    held,
    key,
    terms,
    value,
)

# Everything at once

_OPS = st.sampled_from([Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.DELETE, Op.LOOKUP_AND_DELETE])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 3), _OPS, st.integers(0, 3)),
        st.tuples(st.just("bulk"), st.integers(1, 3), _OPS, st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(1, 3)),
        st.tuples(st.just("answer"), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.booleans()),
    ),
    max_size=60,
)


@given(steps=_STEPS, slots=st.integers(1, 4))
@settings(deadline=None)
def test_operations_on_a_map_are_executed_once_each_in_the_order_they_were_called(
    steps: list[tuple[Any, ...]], slots: int
) -> None:
    asyncio.run(_any_order(steps, slots))


async def _any_order(steps: list[tuple[Any, ...]], slots: int) -> None:
    """Replies come in any order; streams break, with or without the messages that were written last."""
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=slots)
    asked = {number: terms(held(number), limit=3) for number in (1, 2, 3)}
    called: list[tuple[int, Op, bytes]] = []
    calls: list[asyncio.Future[Any]] = []
    stored: dict[tuple[int, int], elements_pb2.ApplyResponse] = {}
    unanswered: list[elements_pb2.ApplyResponse] = []

    def write() -> bool:
        request = pipeline.next()
        if request is None:
            return False
        stamp = request.apply.stamp
        assert stamp.slot < slots
        name = (stamp.slot, stamp.sequence)
        if name not in stored:
            stored[name] = daemon.arrive(request)
        unanswered.append(stored[name])
        assert len(unanswered) <= slots
        return True

    def answer(at: int) -> None:
        if unanswered:
            pipeline.answered(unanswered.pop(at % len(unanswered)))

    for step in [*steps, ("cut", True), *[("write", 9), ("answer", 0)] * 70]:
        match step:
            case ("call", number, op, at):
                called.append((1000 + number, op, key(at)))
                calls.append(pipeline.single(asked[number], op, key(at), _operand(op)))
            case ("bulk", number, op, at):
                called += [(1000 + number, op, key(at))] * 2
                calls.append(pipeline.bulk(asked[number], op, 2, key(at) * 2, _operand(op) * 2))
            case ("write", times):
                for _ in range(times):
                    if not write():
                        break
            case ("answer", at):
                answer(at)
            case _:
                if step[1]:
                    unanswered.clear()
                while unanswered:
                    answer(0)
                pipeline.cut("it broke")
                pipeline.resumed()
    await asyncio.gather(*calls, return_exceptions=True)
    for number in asked:
        ours = [one for one in called if one[0] == 1000 + number]
        assert [one for one in daemon.executed if one[0] == 1000 + number] == ours
    assert pipeline.queued == 0
    assert not pipeline.wanted


def _operand(op: Op) -> bytes:
    return value(1) if op in (Op.UPDATE, Op.UPDATE_NOEXIST) else b""
