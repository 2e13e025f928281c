"""Sessions as a state machine: no mutation is begun twice, whatever is lost, sent again or resumed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.access.quotas import always
from mapd.maps.errors import MapError
from mapd.runtime.handles import HandleTable
from mapd.runtime.pool import Lane
from mapd.runtime.sessions import Arrival, Conversation, Order, Sessions, Slots
from mapd.runtime.shares import Shares
from mapd_api import limits
from mapd_api.reasons import Reason

ADMIN = Principal(name="admin", namespace="admin")
OTHER = Principal(name="web", namespace="web")
EPOCH = "00ff"
REPLY_BYTES = 100


def refused(slots: Slots, slot: int, sequence: int, acknowledged: int = 0, *, reads: bool = False) -> Reason:
    with pytest.raises(MapError) as caught:
        slots.arrive(slot, sequence, acknowledged, reads=reads)
    assert caught.value.refusal.metadata["sequence"] == str(sequence)
    return caught.value.reason


def run(slots: Slots, slot: int, sequence: int, reply: bytes = b"reply", *, reads: bool = False) -> None:
    assert slots.arrive(slot, sequence, 0, reads=reads) is Arrival.RUN
    slots.begin(slot, sequence)
    slots.answer(slot, reply, reads=reads)


# ---- slots ------------------------------------------------------------------------------------


def test_a_new_sequence_runs_and_sequences_may_skip_numbers() -> None:
    slots = Slots(2, REPLY_BYTES)
    run(slots, 0, 1)
    run(slots, 0, 7)
    run(slots, 1, 3)


def test_asking_begins_nothing() -> None:
    slots = Slots(1, REPLY_BYTES)
    for _ in range(2):
        assert slots.arrive(0, 1, 0, reads=False) is Arrival.RUN
    assert slots.running == 0


@pytest.mark.parametrize(("slot", "sequence", "acknowledged"), [(2, 1, 0), (0, 0, 0), (0, 1, 1), (0, 1, 5)])
def test_numbers_that_make_no_sense_are_refused(slot: int, sequence: int, acknowledged: int) -> None:
    assert refused(Slots(2, REPLY_BYTES), slot, sequence, acknowledged) is Reason.BAD_SPEC


def test_a_message_that_runs_is_joined_and_another_one_of_its_slot_is_refused() -> None:
    slots = Slots(1, REPLY_BYTES)
    run(slots, 0, 4)
    slots.begin(0, 5)
    for reads in (False, True):
        assert slots.arrive(0, 5, 0, reads=reads) is Arrival.JOINED
        assert refused(slots, 0, 6, reads=reads) is Reason.BAD_SPEC
    assert refused(slots, 0, 4) is Reason.OUTCOME_UNKNOWN
    assert refused(slots, 0, 4, reads=True) is Reason.BAD_SPEC  # it would be run again, and the slot is busy
    assert slots.running == 1


def test_a_reply_is_given_again_until_it_is_acknowledged_or_the_slot_goes_on() -> None:
    slots = Slots(2, REPLY_BYTES)
    run(slots, 0, 1)
    assert slots.arrive(0, 1, 0, reads=False) == b"reply"
    assert refused(slots, 0, 0) is Reason.BAD_SPEC
    assert slots.arrive(0, 2, 1, reads=False) is Arrival.RUN
    assert slots.kept == 0
    assert refused(slots, 0, 1) is Reason.OUTCOME_UNKNOWN
    run(slots, 1, 1)
    slots.begin(1, 2)
    assert slots.kept == 0


def test_reads_are_not_kept_and_run_again() -> None:
    slots = Slots(1, REPLY_BYTES)
    run(slots, 0, 1, reads=True)
    assert slots.kept == 0
    run(slots, 0, 1, reads=True)
    assert (
        refused(slots, 0, 1) is Reason.OUTCOME_UNKNOWN
    )  # the same number, and now it would change something


def test_replies_are_kept_within_their_bytes_and_given_back_ones_make_room() -> None:
    slots = Slots(3, REPLY_BYTES)
    run(slots, 0, 1, bytes(60))
    run(slots, 1, 1, bytes(41))
    run(slots, 2, 1, bytes(40))
    assert slots.kept == 2
    assert refused(slots, 1, 1) is Reason.OUTCOME_UNKNOWN
    assert slots.arrive(0, 2, 1, reads=True) is Arrival.RUN
    run(slots, 1, 2, bytes(60))
    assert slots.kept == 2
    slots.forget()
    assert slots.kept == 0
    run(slots, 0, 3, bytes(REPLY_BYTES))
    assert slots.kept == 1


STEP = st.tuples(
    st.sampled_from(["send", "again", "end", "acknowledge"]),
    st.integers(0, 2),  # slot
    st.booleans(),  # reads
    st.integers(0, 3),  # how far back, or how many are skipped
    st.integers(0, 60),  # bytes of the reply
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_no_message_that_changes_something_is_begun_twice_and_each_answer_is_the_first_one(
    steps: list[tuple[str, int, bool, int, int]],
) -> None:
    """A client that forgets nothing against one that sends anything again: old ones, running ones, answered ones."""
    slots = Slots(3, REPLY_BYTES)
    begun: Counter[tuple[int, int]] = Counter()
    answers: dict[tuple[int, int], bytes] = {}
    high, running, acknowledged = [0] * 3, dict[int, tuple[int, bool]](), [0] * 3

    def send(slot: int, sequence: int, reads: bool) -> None:
        try:
            found = slots.arrive(slot, sequence, min(acknowledged[slot], max(0, sequence - 1)), reads=reads)
        except MapError as error:
            if error.reason is Reason.OUTCOME_UNKNOWN:
                assert sequence <= high[slot]
                assert not reads
            else:
                assert sequence == 0 or (slot in running and sequence != running[slot][0])
            return
        if isinstance(found, bytes):
            assert found == answers[slot, sequence]
        elif found is Arrival.JOINED:
            assert running[slot][0] == sequence
        else:
            assert slot not in running
            slots.begin(slot, sequence)
            begun[slot, sequence] += not reads
            high[slot] = max(high[slot], sequence)
            running[slot] = sequence, reads

    for what, slot, reads, number, size in steps:
        match what:
            case "send":
                send(slot, high[slot] + 1 + number, reads)
            case "again":
                send(slot, max(0, high[slot] - number), reads)
            case "end" if slot in running:
                sequence, read = running.pop(slot)
                answers[slot, sequence] = f"{slot} {sequence} {len(answers)}".encode() + bytes(size)
                slots.answer(slot, answers[slot, sequence], reads=read)
            case "acknowledge":
                acknowledged[slot] = max(acknowledged[slot], high[slot] - (slot in running))
            case _:
                pass
        assert slots.running == len(running)
        assert slots.kept <= 3
    assert all(count <= 1 for count in begun.values())


# ---- order ------------------------------------------------------------------------------------


def test_what_a_session_has_under_way_for_a_map_stays_in_one_lane() -> None:
    order = Order()
    assert order.enter(41, Lane.BULK) is Lane.BULK
    assert order.enter(41, Lane.POINT) is Lane.BULK
    assert order.enter(42, Lane.POINT) is Lane.POINT
    order.leave(41)
    assert order.enter(41, Lane.POINT) is Lane.BULK
    order.leave(41)
    order.leave(41)
    assert order.enter(41, Lane.POINT) is Lane.POINT
    order.leave(41)
    order.leave(42)
    assert len(order) == 0


# ---- sessions ---------------------------------------------------------------------------------


class Heard:
    """A stream that remembers what it was told."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.supplanted = 0

    def deliver(self, reply: bytes) -> None:
        self.replies.append(reply)

    def supplant(self) -> None:
        self.supplanted += 1


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    handles = HandleTable(shares=Shares(always(Quotas(streams=2))))
    made = Sessions(handles, EPOCH)
    yield made
    made.close_all()
    assert (len(made), made.detached, made.kept_replies, handles.sessions) == (0, 0, 0, 0)


def opened(sessions: Sessions) -> tuple[Conversation, Heard]:
    conversation, stream = sessions.open(ADMIN), Heard()
    sessions.attach(conversation, stream)
    return conversation, stream


async def turn() -> None:
    """Let the loop run what is ready, its timers too."""
    await asyncio.sleep(0)


async def test_an_answer_goes_to_the_stream_that_is_attached_when_it_is_given_once(
    sessions: Sessions,
) -> None:
    conversation, first = opened(sessions)
    conversation.slots.begin(0, 1)
    sessions.detach(conversation, first)
    second = Heard()
    sessions.attach(conversation, second)
    conversation.answered(0, b"reply", reads=False)
    assert (first.replies, second.replies) == ([], [b"reply"])


async def test_an_answer_that_finds_no_stream_is_kept(sessions: Sessions) -> None:
    conversation, stream = opened(sessions)
    conversation.slots.begin(0, 1)
    sessions.detach(conversation, stream)
    conversation.answered(0, b"reply", reads=False)
    assert conversation.slots.arrive(0, 1, 0, reads=False) == b"reply"
    assert sessions.kept_replies == 1


def test_a_second_stream_ends_the_first_whose_end_changes_nothing_then(sessions: Sessions) -> None:
    conversation, first = opened(sessions)
    second = Heard()
    sessions.attach(conversation, second)
    assert (first.supplanted, second.supplanted) == (1, 0)
    sessions.detach(conversation, first)
    assert sessions.detached == 0
    assert conversation.stream is second


async def test_a_detached_session_is_closed_in_time_unless_it_is_resumed(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_RESUME_S", 0.02)
    resumed, stream = opened(sessions)
    left, other = opened(sessions)
    sessions.detach(resumed, stream)
    sessions.detach(left, other)
    sessions.attach(resumed, Heard())
    async with asyncio.timeout(10):
        while not left.closed:
            await turn()
    assert not resumed.closed
    assert resumed.expiry is None
    assert len(sessions) == 1


async def test_a_session_is_gone_on_with_by_its_principal_in_its_epoch_alone(sessions: Sessions) -> None:
    conversation, stream = opened(sessions)
    sessions.detach(conversation, stream)
    assert sessions.find(conversation.id, EPOCH, ADMIN) is conversation
    assert sessions.find(conversation.id, EPOCH, OTHER) is None
    assert sessions.find(conversation.id, "", ADMIN) is None
    assert sessions.find("", EPOCH, ADMIN) is None
    sessions.close(conversation)
    assert sessions.find(conversation.id, EPOCH, ADMIN) is None


async def test_the_session_that_was_detached_first_ends_for_a_new_one_at_the_quota(
    sessions: Sessions,
) -> None:
    first, stream = opened(sessions)
    second, other = opened(sessions)
    sessions.detach(second, other)
    sessions.detach(first, stream)
    third, _ = opened(sessions)
    assert (first.closed, second.closed, third.closed) == (False, True, False)
    assert sessions.find(second.id, EPOCH, ADMIN) is None


async def test_sessions_with_streams_and_those_of_others_end_for_nobody(sessions: Sessions) -> None:
    opened(sessions)
    opened(sessions)
    detached = sessions.open(OTHER)
    stream = Heard()
    sessions.attach(detached, stream)
    sessions.detach(detached, stream)
    with pytest.raises(MapError, match="2 sessions, dumps and loads open") as caught:
        sessions.open(ADMIN)
    assert caught.value.reason is Reason.QUOTA
    assert not detached.closed


def test_what_ends_after_its_session_was_closed_is_told_nobody_and_kept_nowhere(sessions: Sessions) -> None:
    conversation, stream = opened(sessions)
    conversation.slots.begin(0, 1)
    sessions.close(conversation)
    conversation.answered(0, b"reply", reads=False)
    assert stream.replies == []
    assert conversation.slots.kept == 0
    assert conversation.slots.running == 0
