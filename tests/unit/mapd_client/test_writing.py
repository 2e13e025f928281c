"""Many elements, some messages of them under way at once: what is counted, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mapd_api.reasons import Reason
from mapd_client import replies
from mapd_client.batches import Batch
from mapd_client.codec import U32
from mapd_client.errors import BatchFailed, MapFrozen, NotSent, OutcomeUnknown, Unavailable
from mapd_client.failures import Asked
from mapd_client.replies import Outcome
from mapd_client.tally import Tally
from mapd_client.writing import write_all
from tests.unit.mapd_client.daemon import map_info

ASKED = Asked("update", "flows", mutates=True)


class Wire:
    """Messages that a test answers one by one."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.answers: list[asyncio.Future[Outcome]] = []

    def send(self, batch: Batch) -> asyncio.Future[Outcome]:
        self.sent.append(batch)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return answer

    def done(self, at: int, *statuses: Reason) -> None:
        self.answers[at].set_result(Outcome(bytes(statuses or (Reason.DONE, Reason.DONE)), b""))


def tally() -> Tally:
    return Tally(ASKED, replies.map_info(map_info("ns/flows")), U32)


def batches(count: int) -> Iterator[Batch]:
    return (Batch(2 * at, 2, bytes(8)) for at in range(count))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_messages_are_under_way_and_no_more() -> None:
    wire, counted = Wire(), tally()
    writing = asyncio.create_task(write_all(batches(5), wire.send, counted, 3, None))
    await turns()
    assert [batch.first for batch in wire.sent] == [0, 2, 4]
    wire.done(1)  # behind the first: its place is not free yet
    await turns()
    assert len(wire.sent) == 3
    wire.done(0)
    await turns()
    assert len(wire.sent) == 5
    for at in (2, 3, 4):
        wire.done(at)
    await writing
    assert (counted.applied, counted.sent, counted.failure()) == (10, 10, None)


async def test_answers_are_shown_in_the_order_of_the_elements() -> None:
    wire, counted = Wire(), tally()
    seen: list[int] = []
    reading = write_all(batches(3), wire.send, counted, 3, lambda batch, _: seen.append(batch.first))
    writing = asyncio.create_task(reading)
    await turns()
    for at in (2, 0, 1):
        wire.done(at)
    await writing
    assert seen == [0, 2, 4]


async def test_a_message_that_fails_ends_it_and_those_under_way_are_counted_nevertheless() -> None:
    wire, counted = Wire(), tally()
    writing = asyncio.create_task(write_all(batches(9), wire.send, counted, 3, None))
    await turns()
    lost = OutcomeUnknown("lost")
    wire.answers[0].set_exception(lost)
    wire.done(1, Reason.DONE, Reason.KEY_EXISTS)
    wire.answers[2].set_exception(NotSent("never left"))
    with pytest.raises(OutcomeUnknown) as caught:
        await writing
    assert caught.value is lost is counted.cause
    assert len(wire.sent) == 3
    made = counted.ended()
    assert isinstance(made, BatchFailed)
    assert (made.applied, made.sent, made.cause) == (1, 4, lost)
    assert list(made.errors) == [0, 1, 3, 4, 5]


async def test_where_no_message_was_answered_the_first_failure_is_the_callers() -> None:
    wire, counted = Wire(), tally()
    writing = asyncio.create_task(write_all(batches(9), wire.send, counted, 2, None))
    await turns()
    frozen = MapFrozen("frozen")
    for answer, error in zip(wire.answers, (frozen, MapFrozen("frozen too")), strict=True):
        answer.set_exception(error)
    with pytest.raises(MapFrozen):
        await writing
    assert counted.ended() is frozen


async def test_a_source_that_raises_is_passed_on_when_what_was_sent_is_answered() -> None:
    def source() -> Iterator[Batch]:
        yield from batches(1)
        raise ZeroDivisionError

    wire, counted = Wire(), tally()
    writing = asyncio.create_task(write_all(source(), wire.send, counted, 3, None))
    await turns()
    assert not writing.done()
    wire.done(0)
    with pytest.raises(ZeroDivisionError):
        await writing
    assert counted.applied == 2


async def test_a_cancelled_call_cancels_what_is_under_way() -> None:
    wire = Wire()
    writing = asyncio.create_task(write_all(batches(9), wire.send, tally(), 3, None))
    await turns()
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    assert all(answer.cancelled() for answer in wire.answers)


def test_a_refused_message_does_not_hide_that_another_one_was_lost() -> None:
    counted = tally()
    counted.fail(Batch(0, 2, bytes(8)), Unavailable("full; nothing was executed", reason=Reason.BUSY))
    counted.fail(Batch(2, 2, bytes(8)), OutcomeUnknown("the connection broke"))
    failed = counted.ended()
    assert isinstance(failed, BatchFailed)
    assert isinstance(failed.cause, OutcomeUnknown)
    assert [type(failed.errors[at]) for at in range(4)] == [Unavailable] * 2 + [OutcomeUnknown] * 2


def test_whatever_was_lost_first_is_told_by_itself_where_nothing_was_answered() -> None:
    counted = tally()
    for first in (0, 2):
        counted.fail(Batch(first, 2, bytes(8)), OutcomeUnknown(f"lost {first}"))
    assert str(counted.ended()) == "lost 0"
