"""Sessions over a real socket: what a message is answered, however often it is sent, and how streams end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from mapd.access.authorize import Authorized, Authorizer, Denied
from mapd.access.policy.model import Subject
from mapd.access.principal import Principal
from mapd.bpf import Fault
from mapd.bpf.abi import Command
from mapd.maps.opened import OpenMap
from mapd.rpc.session import Age
from mapd_api import limits
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.support.rawsession import RawSession, group
from tests.unit.mapd.dictkernel import ROOT, DictMap, n, raw_info
from tests.unit.mapd.rpc.test_handlers import FLOWS, add, opened
from tests.unit.mapd.rpc.wire import EPOCH, WAIT_S, Wire, refusal_of, serving, turns

pytestmark = pytest.mark.usefixtures("watched_loop")


class Held:
    """While inside, the first update of the map stands still in its thread."""

    def __init__(self, wire: Wire, target: Command = Command.MAP_UPDATE_ELEM, *, after: bool = False) -> None:
        self._reached, self._let_go = threading.Event(), threading.Event()
        wire.faulty.add(Fault(target=target, nth=1, after=after, reached=self._reached, wait=self._let_go))

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, WAIT_S)

    def let_go(self) -> None:
        self._let_go.set()


def executed(wire: Wire, target: Command = Command.MAP_UPDATE_ELEM) -> int:
    return sum(seen.count for seen in wire.faulty.seen if seen.target is target)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await turns(1)


def put(ref: MapRef, key: int, value: int, op: Op = Op.UPDATE_NOEXIST) -> elements.OpGroup:
    return group(ref, op, n(key), value=n(value))


@asynccontextmanager
async def talking(**more: Any) -> AsyncGenerator[tuple[Wire, RawSession, MapRef]]:
    """A session that has opened a map of one element, 0: 100."""
    async with serving(**more) as wire:
        add(wire, count=1)
        talk = await RawSession.open(wire.channel)
        yield wire, talk, await opened(wire, talk.opened.session)


# ---- what a session is ------------------------------------------------------------------------


async def test_a_session_says_what_it_is() -> None:
    async with talking() as (_, talk, _ref):
        found = talk.opened
        assert (found.epoch, found.slots, found.resumed) == (EPOCH, limits.SLOTS, False)
        assert found.resume_within.ToNanoseconds() == limits.SESSION_RESUME_S * 1e9
        assert await talk.end() is grpc.StatusCode.OK


async def test_a_message_is_answered_beside_its_stamp() -> None:
    async with talking() as (_, talk, ref):
        answer = await talk.ask(3, 7, group(ref, Op.LOOKUP, n(0), n(1)), put(ref, 1, 5))
        assert (answer.stamp.slot, answer.stamp.sequence) == (3, 7)
        assert not answer.HasField("error")
        read, written = answer.results
        assert (read.statuses, read.values) == (bytes([0, Reason.KEY_ABSENT]), n(100) + n(0))
        assert written.statuses == b"\0"
        await talk.end()


async def test_a_group_that_is_refused_does_not_stop_the_next_and_a_message_of_no_group_is_answered() -> None:
    async with talking() as (_, talk, ref):
        stale = MapRef(handle=12)
        wrong = group(ref, Op.LOOKUP, b"too long")
        answer = await talk.ask(0, 1, put(stale, 1, 1), wrong, group(ref, Op.LOOKUP, n(0)))
        assert [result.error.reason for result in answer.results] == [
            errors.REASON_STALE_HANDLE,
            errors.REASON_KEY_SIZE_MISMATCH,
            0,
        ]
        assert answer.results[2].values == n(100)
        assert list((await talk.ask(0, 2)).results) == []
        await talk.end()


async def test_groups_may_name_their_map_otherwise_and_end_in_order() -> None:
    async with talking() as (wire, talk, ref):
        answer = await talk.ask(
            0,
            1,
            put(FLOWS, 1, 1),
            put(ref, 1, 2),
            group(FLOWS, Op.LOOKUP, n(1)),
            put(MapRef(name="none"), 1, 1),
        )
        assert [result.statuses for result in answer.results] == [
            b"\0",
            bytes([Reason.KEY_EXISTS]),
            b"\0",
            b"",
        ]
        assert answer.results[2].values == n(1)
        assert answer.results[3].error.reason == errors.REASON_MAP_NOT_FOUND
        assert len(wire.host.handles) == 1
        await talk.end()


async def test_messages_of_several_slots_for_one_map_are_executed_in_the_order_in_which_they_were_sent() -> (
    None
):
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1, Op.UPDATE))
        await held.reached()
        big = limits.BATCH_ELEMENTS // 16  # a group of the bulk lane, were it alone
        await talk.send(1, 1, group(ref, Op.UPDATE, *(n(1) for _ in range(big)), value=n(2)))
        await talk.send(2, 1, group(ref, Op.LOOKUP, n(1)))
        await talk.send(3, 1, put(ref, 1, 3, Op.UPDATE))
        await until(lambda: wire.guard.messages.count == 4)
        held.let_go()
        answers = [await talk.answer() for _ in range(4)]
        assert [answer.stamp.slot for answer in answers] == [0, 1, 2, 3]
        assert answers[2].results[0].values == n(2)
        await talk.end()


async def test_rights_are_asked_for_once_per_map_and_verbs_and_again_for_another_handle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[frozenset[Verb]] = []

    class Counting(Authorizer):
        def authorize_map(
            self,
            principal: Principal,
            verbs: frozenset[Verb],
            target: Any,
            subject: Subject | None,
            *,
            by_key: bool = False,
        ) -> Authorized[Any]:
            if isinstance(target, OpenMap):
                asked.append(verbs)
            if Verb.DELETE in verbs:
                raise Denied(principal, verbs, reveal=True)
            return super().authorize_map(principal, verbs, target, subject, by_key=by_key)

    async with talking() as (wire, talk, ref):
        monkeypatch.setattr(wire.guard, "_authorizer", Counting())
        again = await RawSession.open(wire.channel, talk.opened)
        for sequence in range(1, 4):
            answer = await again.ask(
                0, sequence, group(ref, Op.LOOKUP, n(0)), put(ref, 1, 1), group(ref, Op.DELETE, n(0))
            )
            assert [result.error.reason for result in answer.results] == [0, 0, errors.REASON_POLICY]
        read, write, delete = (frozenset({verb}) for verb in (Verb.READ, Verb.WRITE, Verb.DELETE))
        assert asked == [read, write, delete, delete, delete]
        other = await opened(wire, again.opened.session)
        asked.clear()
        await again.ask(0, 4, group(other, Op.LOOKUP, n(0)))
        assert asked == [read]
        await again.end()


async def test_a_group_whose_time_is_over_is_refused_unexecuted_beside_others() -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        late = put(ref, 2, 2)
        late.remaining_ms = 1
        await talk.send(1, 1, late, group(ref, Op.LOOKUP, n(2)))
        await until(lambda: wire.guard.messages.count == 2)
        overdue = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, overdue.set_result, None)
        await overdue
        held.let_go()
        await talk.answer()
        first, second = (await talk.answer()).results
        assert first.error.reason == errors.REASON_EXPIRED
        assert second.statuses == bytes([Reason.KEY_ABSENT])
        await talk.end()


# ---- what is refused --------------------------------------------------------------------------


async def test_a_message_that_is_refused_as_a_whole_executes_nothing_and_can_be_sent_again() -> None:
    async with talking() as (wire, talk, ref):
        cases: list[tuple[dict[str, Any], int]] = [
            ({"epoch": "another"}, errors.REASON_EPOCH_CHANGED),
            ({"epoch": ""}, errors.REASON_EPOCH_CHANGED),
            ({"session": "another"}, errors.REASON_BAD_SPEC),
            ({"slot": limits.SLOTS}, errors.REASON_BAD_SPEC),
            ({"sequence": 0}, errors.REASON_BAD_SPEC),
            ({"acknowledged": 1}, errors.REASON_BAD_SPEC),
        ]
        for changed, reason in cases:
            slot, sequence = changed.pop("slot", 0), changed.pop("sequence", 1)
            answer = await talk.ask(slot, sequence, put(ref, 1, 1), **changed)
            assert (answer.error.reason, list(answer.results)) == (reason, []), changed
        many = [elements.OpGroup()] * (limits.GROUPS + 1)
        assert (await talk.ask(0, 1, *many)).error.reason == errors.REASON_BAD_COLUMNS
        assert executed(wire) == 0
        assert (await talk.ask(0, 1, put(ref, 1, 1))).results[0].statuses == b"\0"
        await talk.end()


async def test_what_has_no_stamp_to_answer_to_is_refused_by_itself_and_the_session_goes_on() -> None:
    async with talking() as (_, talk, ref):
        for message, reason in (
            (elements.SessionRequest(apply=elements.ApplyRequest()), errors.REASON_BAD_SPEC),
            (elements.SessionRequest(open=elements.SessionOpen()), errors.REASON_BAD_SPEC),
            (elements.SessionRequest(), errors.REASON_OPERATION_UNSUPPORTED),
            (talk.message(0, 1, [], session="s" * 1_000_000), errors.REASON_BAD_SPEC),
        ):
            await talk.stream.write(message)
            assert (await talk.read()).error.reason == reason
        assert (await talk.ask(0, 1, put(ref, 1, 1))).results[0].statuses == b"\0"
        await talk.end()


async def test_bytes_that_are_no_message_are_refused_and_end_the_stream_cleanly_behind_what_is_under_way() -> (
    None
):
    async with talking() as (wire, talk, ref):
        channel: Any = wire.channel
        stream = channel.stream_stream("/mapd_api.v1.ElementService/Session")()
        resume = elements.SessionOpen(session=talk.opened.session, epoch=EPOCH)
        await stream.write(elements.SessionRequest(open=resume).SerializeToString())
        held = Held(wire)
        await stream.read()
        await stream.write(talk.message(0, 1, [put(ref, 1, 1)]).SerializeToString())
        await held.reached()
        with capture_logs() as logged:
            await stream.write(b"\xff\xff\xff")
            found = elements.SessionResponse.FromString(await stream.read())
            held.let_go()
            last = elements.SessionResponse.FromString(await stream.read())
            assert await stream.read() is grpc.aio.EOF
        assert found.error.reason == errors.REASON_BAD_SPEC
        assert last.apply.results[0].statuses == b"\0"
        assert await stream.code() is grpc.StatusCode.OK
        assert "fault" not in [event["event"] for event in logged]
        assert len(wire.sessions) == 0


async def test_a_fault_of_ours_is_a_groups_and_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (wire, talk, ref):

        def broken(*_: object, **__: object) -> None:
            raise ValueError("secret")

        with monkeypatch.context() as patched, capture_logs() as logged:
            patched.setattr(wire.host, "submit", broken)
            answer = await talk.ask(0, 1, put(ref, 1, 1))
        (result,) = answer.results
        assert result.error.reason == errors.REASON_INTERNAL
        assert "secret" not in result.error.message
        (fault,) = [event for event in logged if event["event"] == "fault"]
        # It runs outside of the stream's own task, and has the stream's id all the same.
        assert {"incident", "request_id"} == {k for k, v in result.error.metadata.items() if fault[k] == v}
        assert (await talk.ask(0, 2, put(ref, 1, 1))).results[0].statuses == b"\0"
        await talk.end()


# ---- the same message again -------------------------------------------------------------------


async def test_a_message_that_runs_is_joined_and_answered_once() -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        await talk.send(0, 1, put(ref, 1, 1))
        busy = await talk.ask(0, 2, put(ref, 2, 2))
        assert busy.error.reason == errors.REASON_BAD_SPEC
        assert "1 is under way" in busy.error.message
        held.let_go()
        assert (await talk.answer()).results[0].statuses == b"\0"
        again = await talk.ask(0, 2, put(ref, 2, 2))
        assert (again.stamp.sequence, again.results[0].statuses) == (2, b"\0")
        assert executed(wire) == 2
        await talk.end()


async def test_a_message_that_was_answered_is_answered_the_same_until_that_is_acknowledged() -> None:
    async with talking() as (wire, talk, ref):
        first = await talk.ask(0, 5, put(ref, 1, 1))
        assert await talk.ask(0, 5, put(ref, 1, 1)) == first
        assert wire.sessions.kept_replies == 1
        await talk.ask(0, 9, group(ref, Op.LOOKUP, n(1)), acknowledged=5)
        assert wire.sessions.kept_replies == 0
        unknown = await talk.ask(0, 5, put(ref, 1, 1))
        assert unknown.error.reason == errors.REASON_OUTCOME_UNKNOWN
        assert executed(wire) == 1
        await talk.end()


async def test_reads_are_not_kept_and_simply_made_again() -> None:
    async with talking() as (wire, talk, ref):
        assert (await talk.ask(0, 1, group(ref, Op.LOOKUP, n(0)))).results[0].values == n(100)
        assert wire.sessions.kept_replies == 0
        assert (await talk.ask(0, 1, group(ref, Op.LOOKUP, n(0)))).results[0].values == n(100)
        assert executed(wire, Command.MAP_LOOKUP_ELEM) == 2
        mixed = [group(ref, Op.LOOKUP, n(0)), put(ref, 1, 1)]
        await talk.ask(1, 1, *mixed)
        assert wire.sessions.kept_replies == 1
        await talk.end()


async def test_a_reply_that_does_not_fit_is_forgotten_and_its_retry_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSION_REPLY_BYTES", 120)
    async with talking() as (wire, talk, ref):
        await talk.ask(0, 1, group(ref, Op.UPDATE, *map(n, range(150)), value=n(1)))
        await talk.ask(1, 1, put(ref, 200, 1))
        assert wire.sessions.kept_replies == 1
        assert (await talk.ask(1, 1, put(ref, 200, 1))).results[0].statuses == b"\0"
        found = await talk.ask(0, 1, group(ref, Op.UPDATE, *map(n, range(150)), value=n(1)))
        assert found.error.reason == errors.REASON_OUTCOME_UNKNOWN
        await talk.end()


# ---- streams that end -------------------------------------------------------------------------


async def test_a_session_that_the_client_ends_is_closed_when_all_is_answered() -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        await talk.stream.done_writing()
        held.let_go()
        assert (await talk.answer()).results[0].statuses == b"\0"
        assert await talk.end() is grpc.StatusCode.OK
        assert (len(wire.sessions), len(wire.host.handles), wire.kernel.open_fds) == (0, 0, 0)
        found = await wire.refusal(maps.OpenMapRequest(map=FLOWS, session=talk.opened.session))
        assert found.reason is Reason.STALE_HANDLE


async def test_a_session_whose_stream_breaks_is_kept_and_resumed_with_handles_and_replies() -> None:
    async with talking() as (wire, talk, ref):
        first = await talk.ask(0, 1, put(ref, 1, 1))
        talk.cut()
        await until(lambda: wire.sessions.detached == 1)
        assert len(wire.host.handles) == 1
        again = await RawSession.open(wire.channel, talk.opened)
        assert (again.opened.session, again.opened.resumed) == (talk.opened.session, True)
        assert wire.sessions.detached == 0
        assert await again.ask(0, 1, put(ref, 1, 1)) == first
        assert (await again.ask(0, 2, group(ref, Op.LOOKUP, n(1)))).results[0].values == n(1)
        assert executed(wire) == 1
        await again.end()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("resumed", ["before it ends", "after it ended"])
async def test_what_is_under_way_when_a_stream_breaks_goes_on_and_its_answer_is_kept(
    after: bool, resumed: str
) -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire, after=after)
        await talk.send(0, 1, put(ref, 1, 1), put(ref, 2, 2))
        await held.reached()
        talk.cut()
        await until(lambda: wire.sessions.detached == 1)
        if resumed == "after it ended":
            held.let_go()
            await until(lambda: wire.guard.messages.count == 0)
        again = await RawSession.open(wire.channel, talk.opened)
        await again.send(0, 1, put(ref, 1, 1), put(ref, 2, 2))
        held.let_go()
        answer = await again.answer()
        assert [result.statuses for result in answer.results] == [b"\0", b"\0"]
        assert executed(wire) == 2
        assert await again.end() is grpc.StatusCode.OK


async def test_a_session_that_is_not_resumed_in_time_is_closed_and_nothing_of_it_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSION_RESUME_S", 0.05)
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1), put(ref, 2, 2))
        await held.reached()
        talk.cut()
        await until(lambda: len(wire.sessions) == 0)
        held.let_go()
        await until(lambda: wire.guard.messages.count == 0)
        assert executed(wire) == 1  # the second group was not begun any more
        await until(lambda: wire.kernel.open_fds == 0)
        again = await RawSession.open(wire.channel, talk.opened)
        assert not again.opened.resumed
        assert again.opened.session != talk.opened.session
        assert (await again.ask(0, 1, put(ref, 1, 1))).results[0].error.reason == errors.REASON_STALE_HANDLE
        await again.end()


async def test_a_new_stream_takes_the_session_from_one_that_is_still_there() -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        again = await RawSession.open(wire.channel, talk.opened)
        assert again.opened.resumed
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await talk.stream.read()
        assert refusal_of(caught.value).reason is Reason.STALE_HANDLE
        held.let_go()
        assert (await again.answer()).results[0].statuses == b"\0"
        assert (await again.ask(0, 2, group(ref, Op.LOOKUP, n(1)))).results[0].values == n(1)
        assert len(wire.sessions) == 1
        await again.end()


async def test_two_sessions_of_one_client_know_nothing_of_each_others_messages() -> None:
    async with talking() as (wire, talk, ref):
        other = await RawSession.open(wire.channel)
        assert (await talk.ask(0, 1, put(ref, 1, 1))).results[0].statuses == b"\0"
        assert (await other.ask(0, 1, put(ref, 1, 1))).results[0].statuses == bytes([Reason.KEY_EXISTS])
        forged = await other.ask(0, 2, put(ref, 2, 2), session=talk.opened.session)
        assert forged.error.reason == errors.REASON_BAD_SPEC
        await talk.end()
        await other.end()


async def test_another_principals_session_or_another_start_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking() as (wire, talk, _ref):
        talk.cut()
        await until(lambda: wire.sessions.detached == 1)
        forged = elements.SessionOpened(session=talk.opened.session, epoch="another")
        other = await RawSession.open(wire.channel, forged)
        assert not other.opened.resumed
        await other.end()
        admin = Principal(name="admin", namespace="admin")
        conversation = wire.sessions.find(talk.opened.session, EPOCH, admin)
        assert conversation is not None
        monkeypatch.setattr(conversation.owner, "principal", Principal(name="web", namespace="web"))
        other = await RawSession.open(wire.channel, talk.opened)
        assert not other.opened.resumed
        await other.end()


async def test_clients_that_were_cut_off_keep_no_new_one_out() -> None:
    async with serving() as wire:
        talks = [await RawSession.open(wire.channel) for _ in range(limits.SESSIONS)]
        with pytest.raises(grpc.aio.AioRpcError, match="64 sessions, dumps and loads open, its") as caught:
            await RawSession.open(wire.channel)
        assert refusal_of(caught.value).reason is Reason.QUOTA
        talks[0].cut()
        await until(lambda: wire.sessions.detached == 1)
        talks[1].cut()
        await until(lambda: wire.sessions.detached == 2)
        new = await RawSession.open(wire.channel)
        assert not new.opened.resumed
        again = await RawSession.open(wire.channel, talks[1].opened)
        assert again.opened.resumed
        await again.end()
        await new.end()


# ---- the daemon ends it -----------------------------------------------------------------------


async def test_a_session_says_goodbye_refuses_what_is_new_and_answers_what_is_under_way() -> None:
    async with talking() as (wire, talk, ref):
        await talk.ask(1, 1, put(ref, 5, 5))
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        wire.guard.draining.set()
        goodbye = (await talk.read()).goodbye
        assert goodbye.reason == errors.REASON_DRAINING
        assert not await wire.guard.wait_idle(0.0)
        assert (await talk.ask(2, 1, put(ref, 2, 2))).error.reason == errors.REASON_DRAINING
        assert (await talk.ask(1, 1, put(ref, 5, 5))).results[0].statuses == b"\0"  # a retry is not new
        held.let_go()
        assert (await talk.answer()).results[0].statuses == b"\0"
        assert await wire.guard.wait_idle(WAIT_S)
        assert await talk.end() is grpc.StatusCode.OK


async def test_an_idle_session_does_not_hold_up_the_drain() -> None:
    async with talking() as (wire, talk, _):
        assert wire.guard.running == 0
        wire.guard.draining.set()
        assert await wire.guard.wait_idle(0.0)
        assert (await talk.read()).goodbye.reason == errors.REASON_DRAINING
        await talk.end()


async def test_an_old_stream_is_told_goodbye_and_ended_and_its_session_can_be_resumed() -> None:
    async with talking(age=Age(limit=0.05, grace=0.05)) as (wire, talk, ref):
        held = Held(wire)
        await talk.send(0, 1, put(ref, 1, 1))
        await held.reached()
        assert (await talk.read()).goodbye.reason == errors.REASON_EXPIRED
        assert await talk.stream.read() is grpc.aio.EOF
        assert await talk.stream.code() is grpc.StatusCode.OK
        assert wire.sessions.detached == 1
        again = await RawSession.open(wire.channel, talk.opened)
        assert again.opened.resumed
        held.let_go()
        answered = [
            message for message in [await again.read(), await again.read()] if message.HasField("apply")
        ]
        assert [message.apply.results[0].statuses for message in answered] == [b"\0"]
        assert executed(wire) == 1
        again.cut()


async def test_a_client_that_takes_no_answers_stalls_its_own_messages_only_and_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STREAM_PROGRESS_S", 0.2)
    async with serving() as wire:
        add(wire, count=1)
        big = raw_info(id=42, value_size=1 << 20, max_entries=4)
        wire.kernel.add(DictMap(big, {n(0): bytes(1 << 20)}), pin=f"{ROOT}/admin/big")
        channel = wire.another_channel()
        stalled, healthy = await RawSession.open(channel), await RawSession.open(wire.channel)
        request = maps.OpenMapRequest(map=MapRef(name="big"), session=stalled.opened.session)
        ref = MapRef(handle=(await wire.call(request)).handle)
        own = await opened(wire, healthy.opened.session)
        for number in range(64):
            await stalled.send(number % limits.SLOTS, number // limits.SLOTS + 1, group(ref, Op.LOOKUP, n(0)))
        sequence = 0
        while wire.sessions.detached == 0:
            sequence += 1
            assert (await healthy.ask(0, sequence, group(own, Op.LOOKUP, n(0)))).results[0].values == n(100)
        looked_up = [seen for seen in wire.faulty.seen if seen.map_id == 42]
        # About 6 MiB are in grpc's and the kernel's hands; the rest was queued, under way, or never read.
        assert len(looked_up) <= 8 + 3 * limits.SLOTS
        stalled.cut()
        await healthy.end()
        await channel.close()


async def test_a_break_is_told_from_an_end_however_soon_it_comes() -> None:
    """Many at once: grpc reports the end of messages before it cancels the handler."""
    async with serving() as wire:
        talks = [await RawSession.open(wire.channel) for _ in range(limits.SESSIONS)]
        await turns()
        for talk in talks[: limits.SESSIONS // 2]:
            talk.cut()
        for talk in talks[limits.SESSIONS // 2 :]:
            assert await talk.end() is grpc.StatusCode.OK
        await until(lambda: wire.sessions.detached == len(wire.sessions) == limits.SESSIONS // 2)
        wire.sessions.close_all()


# ---- in the loop's own turn -------------------------------------------------------------------


async def test_short_groups_can_run_without_a_hop_and_never_before_what_is_queued_for_the_map() -> None:
    async with talking(inline_elements=2) as (wire, talk, ref):
        hops = wire.hops
        answer = await talk.ask(0, 1, group(ref, Op.LOOKUP, n(0)), put(ref, 1, 1), put(ref, 1, 2))
        assert [result.statuses for result in answer.results] == [b"\0", b"\0", bytes([Reason.KEY_EXISTS])]
        assert wire.hops == hops
        held = Held(wire)
        await talk.send(0, 2, group(ref, Op.UPDATE, n(2), n(3), n(4), value=n(9)))
        await held.reached()
        await talk.send(1, 1, group(ref, Op.LOOKUP, n(4)))
        await until(lambda: wire.guard.messages.count == 2)
        held.let_go()
        await talk.answer()
        assert (await talk.answer()).results[0].values == n(9)
        assert wire.hops == hops + 2
        await talk.end()
