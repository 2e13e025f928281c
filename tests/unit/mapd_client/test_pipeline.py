"""What leaves when, in which message, and what each call is told. No grpc, no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client import gathering
from mapd_client.codec import Int
from mapd_client.errors import (
    DeadlineExceeded,
    KeyExists,
    MapdError,
    MapFrozen,
    MapNotFound,
    Misuse,
    NotSent,
    OutcomeUnknown,
    Unavailable,
)
from mapd_client.held import Tenure
from mapd_client.pipeline import Pipeline
from tests.unit.mapd_client.pipes import (
    TIMEOUT,
    Scripted,
    World,
    connected,
    groups,
    held,
    key,
    sent,
    terms,
    value,
)

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
    pipeline, _ = connected(World(), slots=8)
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
    behind = pipeline.room(100)
    assert waiting.done()
    assert behind is not None
    pipeline.come(waiting, 100)
    assert behind.done()


async def test_nobody_overtakes_a_call_that_waits_for_room_or_was_admitted_and_has_yet_to_come() -> None:
    pipeline, _ = connected(World(), slots=2)
    asked = terms(held(1))
    assert pipeline.open_to_all
    for _ in range(2):
        _ = pipeline.bulk(asked, Op.UPDATE, 1, b"", bytes(4 << 20))
    assert not pipeline.open_to_all
    first = pipeline.room(100)
    assert first is not None
    sent(pipeline)
    assert first.done()
    assert pipeline.queued < gathering.QUEUE_BYTES
    assert not pipeline.open_to_all
    second = pipeline.room(100)
    assert second is not None
    assert not second.done()
    pipeline.come(first, 100)
    assert second.done()
    assert not pipeline.open_to_all
    pipeline.come(second, 100)
    assert pipeline.open_to_all


async def test_an_admitted_call_that_is_never_made_gives_its_room_to_the_next() -> None:
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    calls = [pipeline.bulk(asked, Op.UPDATE, 1, b"", bytes(4 << 20)) for _ in range(2)]
    large, small = pipeline.room(gathering.QUEUE_BYTES), pipeline.room(100)
    assert large is not None
    assert small is not None
    for call in calls:
        call.cancel()
    assert pipeline.next() is None
    assert large.done()
    assert not small.done()
    pipeline.come(large, gathering.QUEUE_BYTES)
    assert small.done()


async def test_calls_whose_map_is_opened_again_count_until_they_leave_or_end() -> None:
    world = World()
    pipeline, tenure = connected(world)
    asked = terms(held(1, tenure))
    pipeline.begun(Tenure("s2", "e2"), 2)
    calls = [pipeline.bulk(asked, Op.UPDATE, 1, b"", bytes(3 << 20)) for _ in range(3)]
    before = pipeline.queued
    assert pipeline.next() is None
    assert world.to_reopen == [asked.held]
    assert pipeline.queued == before
    waiting = pipeline.room(100)
    assert waiting is not None
    calls[0].cancel()
    pipeline.room(100)
    assert waiting.done(), "what is set aside was not looked at for calls that were cancelled"
    pipeline.come(waiting, 100)
    asked.held.handle, asked.held.tenure = 5555, Tenure("s2", "e2")
    kept = pipeline.queued
    pipeline.reopened(asked.held)
    assert kept - 300 <= pipeline.queued <= kept
    while pipeline.next() is not None:
        pass
    assert pipeline.queued == 100


async def test_calls_whose_map_cannot_be_opened_again_make_room() -> None:
    pipeline, tenure = connected(World())
    asked = terms(held(1, tenure))
    pipeline.begun(Tenure("s2", "e2"), 2)
    calls = [pipeline.bulk(asked, Op.LOOKUP, 1, b"", bytes(4 << 20)) for _ in range(2)]
    assert pipeline.next() is None
    waiting = pipeline.room(100)
    assert waiting is not None
    assert not waiting.done()
    pipeline.reopened(asked.held, MapNotFound("no such map"))
    assert waiting.done()
    pipeline.come(waiting, 100)
    assert pipeline.queued == 0
    for call in calls:
        with pytest.raises(MapNotFound):
            await call


async def test_a_session_that_is_refused_keeps_the_room_of_calls_that_have_yet_to_come() -> None:
    pipeline, _ = connected(World(), slots=2)
    asked = terms(held(1))
    calls = [pipeline.bulk(asked, Op.LOOKUP, 1, b"", bytes(4 << 20)) for _ in range(2)]
    waiting = pipeline.room(100)
    assert waiting is not None
    sent(pipeline)
    assert waiting.done()
    pipeline.refuse(Misuse("no session"))
    assert pipeline.queued == 100
    pipeline.come(waiting, 100)
    assert pipeline.queued == 0
    for call in calls:
        with pytest.raises(MapdError):
            await call


@pytest.mark.parametrize("end", [Pipeline.close, Pipeline.abandon])
async def test_a_call_on_a_pipeline_that_is_over_fails_at_once(end: Callable[[Pipeline], None]) -> None:
    pipeline, _ = connected(World())
    asked = terms(held(1))
    # Not asleep, and full: what is asked next neither rouses nor finds room.
    for _ in range(2):
        _ = pipeline.bulk(asked, Op.LOOKUP, 1, b"", bytes(4 << 20))
    end(pipeline)
    pipeline.resumed()
    assert pipeline.room(100) is None
    for call, error in (
        (pipeline.single(asked, Op.LOOKUP, key(1)), Unavailable),
        (pipeline.bulk(asked, Op.LOOKUP, 1, key(1), b""), Unavailable),
        (pipeline.single(asked, Op.UPDATE, key(1), value(1)), NotSent),
    ):
        assert call.done()
        with pytest.raises(error, match="map1: the client was closed meanwhile"):
            await call


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


async def test_a_call_behind_one_that_was_late_has_its_own_time_also_without_a_connection() -> None:
    world = World()
    pipeline, _ = connected(world)
    pipeline.cut("it broke")
    asked = terms(held(1))
    for _ in range(2):
        call = pipeline.single(asked, Op.LOOKUP, key(1), b"", 0.5)
        world.time = world.alarms[-1]
        pipeline.expire()
        with pytest.raises(DeadlineExceeded, match=r"not sent within 0\.5 s: it broke"):
            await call
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


async def test_a_group_does_not_overtake_one_of_its_map_that_stands_behind_another_in_its_message() -> None:
    daemon = Scripted()
    pipeline, _ = connected(World(), slots=8)
    first, second = terms(held(1)), terms(held(2))
    _ = pipeline.single(first, Op.UPDATE, key(1), value(1))
    _ = pipeline.single(second, Op.UPDATE, key(1), value(1))
    both = sent(pipeline)
    _ = pipeline.single(second, Op.LOOKUP, key(1))
    _ = pipeline.single(first, Op.UPDATE, key(1), value(2))
    _ = pipeline.bulk(second, Op.UPDATE, 1, key(1), value(2))
    assert groups(sent(pipeline)) == [(1001, 1, bytes([Op.UPDATE]))]
    assert pipeline.next() is None
    pipeline.answered(daemon.arrive(both))
    assert groups(sent(pipeline)) == [(1002, 1, bytes([Op.LOOKUP])), (1002, 1, bytes([Op.UPDATE]))]


async def test_reads_of_many_maps_overtake_nothing_and_do_not_wait() -> None:
    pipeline, _ = connected(World(), slots=8)
    for _ in range(3):
        for number in (1, 2, 3):
            _ = pipeline.single(terms(held(number)), Op.LOOKUP, key(1))
        assert len(sent(pipeline).apply.groups) == 3
