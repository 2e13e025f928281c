"""Streams that break, sessions that end, handles that go stale. No grpc, no daemon."""

from __future__ import annotations

import asyncio

import pytest

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client.errors import (
    NotSent,
    OutcomeUnknown,
    Unavailable,
)
from mapd_client.held import Tenure
from mapd_client.pipeline import TRIES
from tests.unit.mapd_client.pipes import (
    Scripted,
    World,
    connected,
    held,
    key,
    refusal,
    sent,
    terms,
    value,
)

# Streams that break, sessions that end


async def test_what_was_under_way_is_asked_for_again_under_its_stamp_when_the_session_is_resumed() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=2)
    asked = terms(held(1))
    calls = [pipeline.single(asked, Op.UPDATE_NOEXIST, key(1), value(1))]
    first = sent(pipeline)
    calls.append(pipeline.single(asked, Op.LOOKUP, key(1)))
    second = sent(pipeline)
    answers = [daemon.arrive(first), daemon.arrive(second)]  # and none of them came
    pipeline.cut("it broke")
    calls.append(pipeline.single(asked, Op.LOOKUP, key(1)))
    assert pipeline.next() is None
    pipeline.resumed()
    again = [sent(pipeline), sent(pipeline)]
    assert [one.apply.stamp for one in again] == [first.apply.stamp, second.apply.stamp]
    assert [one.apply.groups[0].keys for one in again] == [key(1), key(1)]
    assert pipeline.next() is None
    for answer in answers:
        pipeline.answered(answer)
    pipeline.answered(daemon.arrive(sent(pipeline)))
    assert await asyncio.gather(*calls) == [0, 1, 1]


async def test_what_nobody_waits_for_any_more_is_asked_for_again_without_its_operations() -> None:
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    call = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    first = sent(pipeline)
    call.cancel()
    pipeline.cut("it broke")
    pipeline.resumed()
    again = sent(pipeline)
    assert again.apply.stamp == first.apply.stamp
    assert not again.apply.groups
    behind = pipeline.single(asked, Op.LOOKUP, key(1))
    pipeline.answered(elements_pb2.ApplyResponse(stamp=again.apply.stamp))
    pipeline.answered(Scripted().arrive(sent(pipeline)))
    assert await behind is None


async def test_a_message_that_met_an_ended_stream_was_never_sent_and_its_sequence_is_free() -> None:
    pipeline, _ = connected(World(), slots=1)
    call = pipeline.single(terms(held(1)), Op.UPDATE, key(1), value(1))
    first = sent(pipeline)
    pipeline.unwritten(first)
    pipeline.cut("it broke")
    pipeline.begun(Tenure("s2", "e2"), 1)
    again = sent(pipeline)
    assert (again.apply.stamp.session, again.apply.stamp.sequence) == ("s2", 1)
    pipeline.answered(Scripted().arrive(again))
    assert await call == 0


async def test_with_a_new_session_reads_are_repeated_and_writes_that_were_sent_are_unknown() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=2)
    asked = terms(held(1))
    read = pipeline.single(asked, Op.LOOKUP, key(1))
    write = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    many = pipeline.bulk(terms(held(2)), Op.DELETE, 1, key(1), b"")
    sent(pipeline)
    unsent = pipeline.single(asked, Op.UPDATE, key(2), value(2))
    pipeline.cut("it broke")
    pipeline.begun(Tenure("s2", "e1"), 2)
    request = sent(pipeline)
    assert [bytes(group.ops) for group in request.apply.groups] == [bytes([Op.LOOKUP]), bytes([Op.UPDATE])]
    pipeline.answered(daemon.arrive(request))
    assert await read is None
    assert await unsent == 0
    for lost in (write, many):
        with pytest.raises(OutcomeUnknown, match="the session was lost before the answer"):
            await lost
    assert daemon.maps == {1001: {key(2): value(2)}}


async def test_a_reply_that_the_daemon_has_forgotten_repeats_reads_and_leaves_writes_unknown() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World())
    asked = terms(held(1))
    write = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    read = pipeline.single(asked, Op.LOOKUP, key(2))
    pipeline.answered(refusal(sent(pipeline), Reason.OUTCOME_UNKNOWN))
    with pytest.raises(OutcomeUnknown):
        await write
    pipeline.answered(daemon.arrive(sent(pipeline)))
    assert await read is None
    assert daemon.executed == [(1001, Op.LOOKUP, key(2))]


@pytest.mark.parametrize("reason", [Reason.DRAINING, Reason.EPOCH_CHANGED])
async def test_a_message_that_is_refused_as_a_whole_unexecuted_is_sent_in_the_next_stream(
    reason: Reason,
) -> None:
    world = World()
    pipeline, _ = connected(world)
    write = pipeline.single(terms(held(1)), Op.UPDATE, key(1), value(1))
    pipeline.answered(refusal(sent(pipeline), reason))
    assert pipeline.next() is None
    assert pipeline.drained
    pipeline.cut("it is going")
    pipeline.begun(Tenure("s2", "e2"), 2)
    pipeline.answered(Scripted().arrive(sent(pipeline)))
    assert await write == 0


@pytest.mark.parametrize("reason", [Reason.EPOCH_CHANGED, Reason.DRAINING])
async def test_messages_that_are_refused_one_after_the_other_are_sent_again_in_their_order(
    reason: Reason,
) -> None:
    pipeline, _ = connected(World(), slots=4)
    daemon, asked = Scripted(), terms(held(1))
    flying: list[elements_pb2.SessionRequest] = []
    for number in range(3):
        _ = pipeline.single(asked, Op.UPDATE, key(number), value(1))
        flying.append(sent(pipeline))
    for request in flying:
        pipeline.answered(refusal(request, reason))
    _ = pipeline.single(asked, Op.UPDATE, key(3), value(1))
    pipeline.cut("gone")
    pipeline.begun(Tenure("s2", "e2"), 4)
    while (again := pipeline.next()) is not None:
        pipeline.answered(daemon.arrive(again))
    assert daemon.executed == [(1001, Op.UPDATE, key(number)) for number in range(4)]


async def test_after_a_goodbye_nothing_new_is_written_and_the_stream_ends_with_the_last_answer() -> None:
    world = World()
    pipeline, _ = connected(world)
    asked = terms(held(1))
    under_way = pipeline.single(asked, Op.LOOKUP, key(1))
    request = sent(pipeline)
    pipeline.farewell("it is old")
    waiting = pipeline.single(asked, Op.LOOKUP, key(2))
    assert pipeline.next() is None
    assert not pipeline.drained
    before = world.roused
    pipeline.answered(Scripted().arrive(request))
    assert world.roused == before + 1
    assert pipeline.drained
    assert await under_way is None
    assert not waiting.done()


async def test_an_operation_that_breaks_every_connection_is_given_up() -> None:
    pipeline, _ = connected(World(), slots=1)
    call = pipeline.single(terms(held(1)), Op.LOOKUP, key(1))
    for number in range(TRIES):
        sent(pipeline)
        pipeline.cut("it broke")
        pipeline.begun(Tenure(f"s{number + 2}", "e1"), 1)
    assert pipeline.next() is None
    with pytest.raises(Unavailable, match=f"lookup map1: given up after {TRIES} tries"):
        await call


async def test_closing_says_which_writes_may_have_been_executed() -> None:
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    written = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    read = pipeline.single(asked, Op.LOOKUP, key(1))
    sent(pipeline)
    unwritten = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    pipeline.close()
    for call, error in ((written, OutcomeUnknown), (read, Unavailable), (unwritten, NotSent)):
        with pytest.raises(error, match="the client was closed meanwhile"):
            await call


# Handles that are stale


async def test_a_map_whose_session_ended_is_opened_again_once_before_its_calls_leave_in_order() -> None:
    world, daemon = World(), Scripted()
    pipeline, tenure = connected(world)
    asked = terms(held(1, tenure))
    pipeline.cut("it broke")
    pipeline.begun(Tenure("s2", "e2"), 2)
    calls = [pipeline.single(asked, Op.UPDATE, key(1), value(number)) for number in range(2)]
    assert pipeline.next() is None
    calls.append(pipeline.bulk(asked, Op.UPDATE, 1, key(1), value(9)))
    assert pipeline.next() is None
    assert world.to_reopen == [asked.held]
    assert pipeline.waits_for(asked.held)
    asked.held.handle, asked.held.tenure = 5555, Tenure("s2", "e2")
    pipeline.reopened(asked.held)
    pipeline.answered(daemon.arrive(sent(pipeline)))
    assert (await asyncio.gather(*calls))[:2] == [0, 0]
    assert daemon.maps == {5555: {key(1): value(9)}}


async def test_a_map_that_cannot_be_opened_again_fails_its_calls_and_no_others() -> None:
    world = World()
    pipeline, tenure = connected(world)
    nameless, other = terms(held(1, tenure)), terms(held(2))
    nameless.held.ref = None
    pipeline.begun(Tenure("s2", "e2"), 2)
    read = pipeline.single(nameless, Op.LOOKUP, key(1))
    write = pipeline.single(nameless, Op.UPDATE, key(1), value(1))
    fine = pipeline.single(other, Op.LOOKUP, key(1))
    pipeline.answered(Scripted().arrive(sent(pipeline)))
    assert await fine is None
    for call, error in ((read, Unavailable), (write, NotSent)):
        with pytest.raises(error, match="open the map again") as caught:
            await call
        assert caught.value.reason is Reason.STALE_HANDLE
    assert world.to_reopen == []


async def test_a_handle_that_the_daemon_calls_stale_is_renewed_and_the_call_repeated() -> None:
    world, daemon = World(), Scripted()
    pipeline, _ = connected(world)
    asked = terms(held(1))
    call = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    request = sent(pipeline)
    answer = elements_pb2.ApplyResponse(stamp=request.apply.stamp)
    answer.results.add().error.reason = errors_pb2.REASON_STALE_HANDLE
    pipeline.answered(answer)
    assert world.to_reopen == [asked.held]
    asked.held.handle = 5555
    pipeline.reopened(asked.held)
    pipeline.answered(daemon.arrive(sent(pipeline)))
    assert await call == 0
    assert daemon.maps == {5555: {key(1): value(1)}}


async def test_a_map_that_its_owner_has_closed_is_not_opened_again() -> None:
    world = World()
    pipeline, tenure = connected(world)
    asked = terms(held(1, tenure))
    asked.held.closed = True
    pipeline.begun(Tenure("s2", "e2"), 2)
    call = pipeline.single(asked, Op.LOOKUP, key(1))
    assert pipeline.next() is None
    with pytest.raises(Unavailable):
        await call
    assert world.to_reopen == []


async def test_a_message_that_breaks_its_stream_each_time_is_given_up() -> None:
    """It may be what breaks them; all others would wait behind it until its time is over."""
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=2)
    change = pipeline.single(terms(held(1)), Op.UPDATE, key(1), value(1))
    look = pipeline.single(terms(held(2)), Op.LOOKUP, key(1))
    for _ in range(TRIES):
        assert len(sent(pipeline).apply.groups) == 2
        assert not change.done()
        pipeline.cut("it broke")
        pipeline.resumed()
    with pytest.raises(OutcomeUnknown, match=f"given up after {TRIES} streams"):
        await change
    with pytest.raises(Unavailable, match=f"given up after {TRIES} streams"):
        await look
    closing = sent(pipeline)
    assert not closing.apply.groups
    pipeline.answered(daemon.arrive(closing))
    assert not pipeline.wanted
