"""What leaves when, in which message, and what becomes of it. No grpc, no daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client import gathering
from mapd_client.codec import U32, U64, Int
from mapd_client.errors import (
    DeadlineExceeded,
    KeyExists,
    MapFrozen,
    Misuse,
    NotSent,
    OutcomeUnknown,
    Unavailable,
)
from mapd_client.held import Tenure
from mapd_client.pipeline import TRIES, Pipeline
from tests.unit.mapd_client.pipes import TIMEOUT, Scripted, World, connected, held, terms


def key(number: int) -> bytes:
    return U32.encode(number)


def value(number: int) -> bytes:
    return U64.encode(number)


def groups(request: elements_pb2.SessionRequest | None) -> list[tuple[int, int, bytes]]:
    assert request is not None
    return [(group.map.handle, group.count, group.ops) for group in request.apply.groups]


def sent(pipeline: Pipeline) -> elements_pb2.SessionRequest:
    request = pipeline.next()
    assert request is not None
    return request


def refusal(request: elements_pb2.SessionRequest, reason: Reason) -> elements_pb2.ApplyResponse:
    answer = elements_pb2.ApplyResponse(stamp=request.apply.stamp)
    answer.error.reason = errors_pb2.Reason.Name(int(reason))  # type: ignore[assignment]  # by its name
    answer.error.message = "no"
    return answer


# What leaves together


async def test_calls_of_one_turn_are_one_message_with_one_group_per_map_in_call_order() -> None:
    pipeline, _ = connected(World())
    first, second = terms(held(1)), terms(held(2))
    _ = pipeline.single(second, Op.LOOKUP, key(1))
    _ = pipeline.single(first, Op.UPDATE, key(1), value(5))
    _ = pipeline.single(second, Op.DELETE, key(1))
    request = sent(pipeline)
    assert groups(request) == [(1002, 2, bytes([Op.LOOKUP, Op.DELETE])), (1001, 1, bytes([Op.UPDATE]))]
    assert request.apply.groups[1].keys + request.apply.groups[1].values == key(1) + value(5)
    assert pipeline.next() is None


async def test_elements_of_one_operation_have_one_op_byte() -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1))
    for number in range(5):
        _ = pipeline.single(asked, Op.LOOKUP, key(number))
    assert groups(sent(pipeline)) == [(1001, 5, bytes([Op.LOOKUP]))]


async def test_other_terms_of_the_same_map_begin_another_group_and_the_order_stays() -> None:
    pipeline, _ = connected(World())
    of = held(1)
    plain, raw = terms(of), terms(of, codec=None)
    _ = pipeline.single(plain, Op.LOOKUP, key(1))
    _ = pipeline.single(raw, Op.UPDATE, key(1), value(1))
    _ = pipeline.single(plain, Op.LOOKUP, key(2))
    assert [group.keys for group in sent(pipeline).apply.groups] == [key(1), key(1), key(2)]


async def test_two_handles_of_one_map_keep_the_order_of_their_calls() -> None:
    pipeline, _ = connected(World())
    one, other = held(1), held(1)
    other.handle = 2222
    for number, asked in enumerate((terms(one), terms(other), terms(one))):
        _ = pipeline.single(asked, Op.UPDATE, key(1), value(number))
    assert [group.values for group in sent(pipeline).apply.groups] == [value(0), value(1), value(2)]


async def test_a_group_takes_no_more_elements_than_its_map_allows() -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1), limit=4)
    for number in range(10):
        _ = pipeline.single(asked, Op.LOOKUP, key(number))
    assert [count for _, count, _ in groups(sent(pipeline))] == [4, 4, 2]


async def test_a_large_group_travels_alone_and_keeps_its_place_among_the_calls_on_its_map() -> None:
    pipeline, _ = connected(World(), slots=8)
    asked = terms(held(1))
    count = gathering.ALONE_BYTES // 4 + 1
    _ = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    _ = pipeline.bulk(asked, Op.LOOKUP, count, bytes(4 * count), b"")
    _ = pipeline.single(asked, Op.UPDATE, key(1), value(2))
    assert [groups(sent(pipeline)) for _ in range(3)] == [
        [(1001, 1, bytes([Op.UPDATE]))],
        [(1001, count, bytes([Op.LOOKUP]))],
        [(1001, 1, bytes([Op.UPDATE]))],
    ]


async def test_a_message_has_no_more_groups_and_bytes_than_the_daemon_takes() -> None:
    pipeline, _ = connected(World(), slots=8)
    for number in range(1, limits.GROUPS + 11):
        _ = pipeline.single(terms(held(number)), Op.LOOKUP, key(1))
    assert [len(sent(pipeline).apply.groups) for _ in range(2)] == [limits.GROUPS, 10]
    half = gathering.ALONE_BYTES - 1
    for number in range(100):
        _ = pipeline.bulk(terms(held(number + 1)), Op.UPDATE, 1, b"", bytes(half))
    request = sent(pipeline)
    assert limits.COLUMN_BYTES - 2 * half < request.ByteSize() <= limits.COLUMN_BYTES


# When it leaves


async def test_while_all_slots_are_busy_calls_gather_and_leave_when_one_is_free() -> None:
    world, daemon = World(), Scripted()
    pipeline, _ = connected(world, slots=2)
    asked = terms(held(1))
    flying: list[elements_pb2.SessionRequest] = []
    for number in range(2):
        _ = pipeline.single(asked, Op.LOOKUP, key(number))
        flying.append(sent(pipeline))
    assert pipeline.next() is None
    before = world.roused
    gathered = [pipeline.single(asked, Op.LOOKUP, key(number)) for number in range(50)]
    assert world.roused == before + 1
    assert pipeline.next() is None
    pipeline.answered(daemon.arrive(flying[1]))
    assert world.roused == before + 2
    request = sent(pipeline)
    assert groups(request) == [(1001, 50, bytes([Op.LOOKUP]))]
    pipeline.answered(daemon.arrive(request))
    assert [await one for one in gathered] == [None] * 50


async def test_a_slot_numbers_its_messages_and_acknowledges_what_it_was_answered() -> None:
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    stamps: list[tuple[str, str, int, int, int]] = []
    for _ in range(3):
        _ = pipeline.single(asked, Op.LOOKUP, key(1))
        request = sent(pipeline)
        stamp = request.apply.stamp
        stamps.append((stamp.session, stamp.epoch, stamp.slot, stamp.sequence, stamp.acknowledged))
        pipeline.answered(Scripted().arrive(request))
    assert stamps == [("s1", "e1", 0, 1, 0), ("s1", "e1", 0, 2, 1), ("s1", "e1", 0, 3, 2)]


async def test_calls_beyond_the_bound_wait_in_turn_before_anything_of_theirs_is_kept() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    first = sent(pipeline)
    chunk = bytes(4 << 20)
    for _ in range(2):
        assert pipeline.room(len(chunk)) is None
        _ = pipeline.bulk(asked, Op.UPDATE, 1, b"", chunk)
    waiting = pipeline.room(100)
    behind = pipeline.room(100)
    assert waiting is not None
    assert behind is not None
    pipeline.answered(daemon.arrive(first))
    assert not waiting.done()
    pipeline.next()
    assert waiting.done()
    assert behind.done()
    held_back = pipeline.queued
    pipeline.come(waiting, 100)
    pipeline.come(behind, 100)
    assert held_back - pipeline.queued == 200


async def test_cancelled_calls_make_room_for_those_that_wait() -> None:
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    sent(pipeline)
    calls = [pipeline.bulk(asked, Op.UPDATE, 1, b"", bytes(4 << 20)) for _ in range(2)]
    waiting = pipeline.room(100)
    assert waiting is not None
    for call in calls:
        call.cancel()
    assert pipeline.room(100) is None
    assert waiting.done()


# Answers


async def test_each_call_is_told_of_its_own_element() -> None:
    daemon = Scripted({1001: {key(1): value(7)}})
    pipeline, _ = connected(World())
    asked = terms(held(1))
    calls = [
        pipeline.single(asked, Op.LOOKUP, key(1)),
        pipeline.single(asked, Op.LOOKUP, key(2)),
        pipeline.single(asked, Op.UPDATE_NOEXIST, key(1), value(8)),
        pipeline.single(asked, Op.DELETE, key(2)),
        pipeline.single(asked, Op.LOOKUP_AND_DELETE, key(1)),
        pipeline.single(asked, Op.UPDATE, key(3), value(9)),
    ]
    pipeline.answered(daemon.arrive(sent(pipeline)))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert found[:2] == [7, None]
    assert isinstance(found[2], KeyExists)
    assert "update map1: the key exists" in str(found[2])
    assert found[3:] == [Reason.KEY_ABSENT, 7, 0]
    assert daemon.maps == {1001: {key(3): value(9)}}


async def test_an_answer_of_another_shape_is_the_daemons_fault_and_nobody_is_left_waiting() -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1))
    calls: list[asyncio.Future[Any]] = [pipeline.single(asked, Op.LOOKUP, key(1))]
    calls.append(pipeline.bulk(asked, Op.LOOKUP, 2, key(1) + key(2), b""))
    request = sent(pipeline)
    answer = elements_pb2.ApplyResponse(stamp=request.apply.stamp)
    for _ in range(2):
        answer.results.add().statuses = b"\0\0\0"
    pipeline.answered(answer)
    for call in calls:
        with pytest.raises(Exception, match="the daemon answered 3 statuses and 0 bytes"):
            await call


async def test_a_group_that_is_refused_does_not_touch_the_next() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World())
    frozen = pipeline.single(terms(held(1)), Op.UPDATE, key(1), value(1))
    other = pipeline.single(terms(held(2)), Op.LOOKUP, key(1))
    answer = daemon.arrive(sent(pipeline))
    answer.results[0].Clear()
    answer.results[0].error.reason = errors_pb2.REASON_MAP_FROZEN
    pipeline.answered(answer)
    with pytest.raises(MapFrozen, match="update map1"):
        await frozen
    assert await other is None


async def test_what_a_codec_cannot_read_is_told_to_that_call_alone() -> None:
    class Small(Int):
        def decode_many(self, column: Any) -> list[int]:
            numbers = super().decode_many(column)
            if any(number > 9 for number in numbers):
                raise Misuse("not a small number")
            return numbers

    daemon = Scripted({1001: {key(1): value(1), key(2): value(10)}})
    pipeline, _ = connected(World())
    asked = terms(held(1), codec=Small(8, signed=False))
    calls = [pipeline.single(asked, Op.LOOKUP, key(number)) for number in (1, 2)]
    pipeline.answered(daemon.arrive(sent(pipeline)))
    assert await calls[0] == 1
    with pytest.raises(Misuse):
        await calls[1]


# Cancelling


async def test_a_call_that_is_cancelled_before_its_message_is_written_is_not_sent() -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1))
    calls = [pipeline.single(asked, Op.UPDATE, key(number), value(number)) for number in range(4)]
    calls[0].cancel()
    calls[2].cancel()
    group = sent(pipeline).apply.groups[0]
    assert (group.count, group.keys, group.values) == (2, key(1) + key(3), value(1) + value(3))


async def test_calls_that_are_all_cancelled_leave_no_message() -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1))
    pipeline.single(asked, Op.LOOKUP, key(1)).cancel()
    pipeline.bulk(asked, Op.LOOKUP, 1, key(1), b"").cancel()
    assert pipeline.next() is None
    assert pipeline.queued == 0


async def test_a_call_that_is_cancelled_after_that_goes_on_and_the_others_are_answered() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World())
    asked = terms(held(1))
    calls = [pipeline.single(asked, Op.UPDATE, key(number), value(number)) for number in range(2)]
    request = sent(pipeline)
    calls[0].cancel()
    pipeline.answered(daemon.arrive(request))
    assert await calls[1] == 0
    assert daemon.maps == {1001: {key(0): value(0), key(1): value(1)}}


# Deadlines


async def test_a_message_that_is_not_answered_in_time_is_late_for_reads_and_unknown_for_writes() -> None:
    world = World()
    pipeline, _ = connected(world)
    asked = terms(held(1))
    read = pipeline.single(asked, Op.LOOKUP, key(1))
    write = pipeline.single(asked, Op.UPDATE, key(1), value(1))
    sent(pipeline)
    assert world.alarms == [pytest.approx(100 + TIMEOUT, abs=0.1)]
    world.time = world.alarms[-1]
    pipeline.expire()
    with pytest.raises(DeadlineExceeded, match="lookup map1: no answer from unix:/x within 30 s"):
        await read
    with pytest.raises(OutcomeUnknown, match=r"update map1: no answer .*; it may have been executed"):
        await write


async def test_what_was_never_written_in_time_was_not_sent() -> None:
    world = World()
    pipeline, _ = connected(world, slots=1)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    sent(pipeline)
    read = pipeline.single(asked, Op.LOOKUP, key(1), b"", 0.5)
    write = pipeline.single(asked, Op.DELETE, key(1), b"", 0.5)
    world.time = world.alarms[-1]
    assert world.time == pytest.approx(100.5, abs=0.05)
    pipeline.expire()
    with pytest.raises(DeadlineExceeded, match=r"not sent within 0\.5 s: 1 messages of this client"):
        await read
    with pytest.raises(NotSent, match=r"delete map1: not sent within 0\.5 s"):
        await write
    assert pipeline.queued == 0


async def test_a_group_says_how_much_time_is_left_to_it_when_it_leaves() -> None:
    world = World()
    pipeline, _ = connected(world)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1), b"", 8.0)
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    world.time += 5
    left = [group.remaining_ms for group in sent(pipeline).apply.groups]
    assert left == [pytest.approx(3000, abs=11), pytest.approx(25000, abs=11)]


async def test_calls_of_long_ago_are_not_joined_for_they_end_earlier() -> None:
    world = World()
    pipeline, _ = connected(world, slots=1)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    first = sent(pipeline)
    for _ in range(3):
        _ = pipeline.single(asked, Op.LOOKUP, key(1))
        assert pipeline.next() is None
        world.time += 1
    pipeline.answered(Scripted().arrive(first))
    left = [group.remaining_ms for group in sent(pipeline).apply.groups]
    assert left == [pytest.approx(1000 * (TIMEOUT - age), abs=11) for age in (3, 2, 1)]


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
