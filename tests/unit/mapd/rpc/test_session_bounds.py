"""What a session may make the daemon do: how much it looks through, under which policy, how much it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import PolicyHolder
from mapd.bpf.abi import Command
from mapd.maps.groups import distinct_ops
from mapd.rpc import apply
from mapd.runtime.sessions import Conversation
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.support.rawsession import RawSession, group
from tests.unit.mapd.access.policies import text
from tests.unit.mapd.dictkernel import ROOT, DictMap, n, raw_info
from tests.unit.mapd.rpc.test_handlers import FLOWS
from tests.unit.mapd.rpc.test_sessions import Held, executed, put, talking, until
from tests.unit.mapd.rpc.wire import ADMIN, EPOCH, STRANGER, WAIT_S, Wire, serving

pytestmark = pytest.mark.usefixtures("watched_loop")


async def test_a_message_of_too_many_groups_is_refused_before_any_op_column_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scanned: list[int] = []

    def scanning(ops: bytes) -> frozenset[Op]:
        scanned.append(len(ops))
        return distinct_ops(ops)

    async with talking() as (wire, talk, ref):
        monkeypatch.setattr(apply, "distinct_ops", scanning)
        many = [put(ref, 1, 1)] * (limits.GROUPS + 1)
        assert (await talk.ask(0, 1, *many)).error.reason == errors.REASON_BAD_COLUMNS
        assert scanned == []
        first = await talk.ask(0, 1, put(ref, 1, 1))
        assert first.results[0].statuses == b"\0"
        assert await talk.ask(0, 1, put(ref, 1, 1)) == first
        assert (executed(wire), set(scanned)) == (1, {1})
        await talk.end()


@pytest.mark.parametrize("by_name", [False, True])
async def test_an_op_column_longer_than_a_group_is_refused_unscanned_and_other_groups_are_run(
    monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    scanned: list[int] = []

    def scanning(ops: bytes) -> frozenset[Op]:
        scanned.append(len(ops))
        return distinct_ops(ops)

    async with talking() as (wire, talk, ref):
        monkeypatch.setattr(apply, "distinct_ops", scanning)
        size = limits.BATCH_ELEMENTS + 1
        long = elements.OpGroup(map=FLOWS if by_name else ref, count=size, ops=bytes([Op.LOOKUP]) * size)
        answer = await talk.ask(0, 1, long, put(ref, 1, 1))
        assert answer.results[0].error.reason == errors.REASON_BAD_COLUMNS
        assert f"{size} bytes; a group has at most {limits.BATCH_ELEMENTS}" in answer.results[0].error.message
        assert answer.results[1].statuses == b"\0"
        assert await talk.ask(0, 1, long, put(ref, 1, 1)) == answer
        assert (executed(wire), set(scanned)) == (1, {1})
        await talk.end()


async def test_after_a_reload_that_revokes_the_next_group_of_the_same_session_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    viewer = text([{"who": ["web"], "role": "viewer", "every_map": True}])
    path.write_text(viewer)
    policy = PolicyHolder.start(path)
    async with serving(principal=STRANGER) as wire:
        monkeypatch.setattr(wire.guard, "_authorizer", Authorizer(policy))
        wire.kernel.add(DictMap(raw_info()), f"{ROOT}/web/flows").fill(1)
        talk = await RawSession.open(wire.channel)
        request = maps.OpenMapRequest(map=FLOWS, session=talk.opened.session, read_only=True)
        read = group(MapRef(handle=(await wire.call(request)).handle), Op.LOOKUP, n(0))
        assert (await talk.ask(0, 1, read, read)).results[1].values == n(100)
        path.write_text(text([]))
        assert policy.reload()
        for sequence in (2, 3):
            found = (await talk.ask(0, sequence, read)).results[0]
            assert (found.error.reason, found.values) == (errors.REASON_MAP_NOT_FOUND, b"")
        path.write_text(viewer)
        assert policy.reload()
        assert (await talk.ask(0, 4, read)).results[0].values == n(100)
        await talk.end()


@asynccontextmanager
async def talking_of_big_values() -> AsyncGenerator[tuple[Wire, RawSession, MapRef]]:
    """A session that has opened a map with a value of 1 MiB for key 0."""
    async with serving() as wire:
        big = raw_info(id=42, value_size=1 << 20, max_entries=4)
        wire.kernel.add(DictMap(big, {n(0): bytes(1 << 20)}), pin=f"{ROOT}/admin/big")
        talk = await RawSession.open(wire.channel)
        request = maps.OpenMapRequest(map=MapRef(name="big"), session=talk.opened.session)
        yield wire, talk, MapRef(handle=(await wire.call(request)).handle)


def conversation_of(wire: Wire, talk: RawSession) -> Conversation:
    found = wire.sessions.find(talk.opened.session, EPOCH, ADMIN)
    assert found is not None
    return found


async def test_what_is_queued_and_due_for_a_client_that_takes_no_answers_has_a_bound_in_bytes() -> None:
    count, high = 16, 0
    async with talking_of_big_values() as (wire, talk, ref):
        conversation = conversation_of(wire, talk)

        def out() -> int:
            return int(vars(conversation.stream)["_queued_bytes"]) + conversation.due

        async def sample() -> None:
            nonlocal high
            while True:
                high = max(high, out())
                await asyncio.sleep(0)

        sampling = asyncio.create_task(sample())
        for number in range(count):
            await talk.send(
                number % limits.SLOTS, number // limits.SLOTS + 1, group(ref, Op.LOOKUP, n(0), n(0), n(0))
            )
        await until(lambda: not conversation.due and out() > limits.SESSION_OUT_BYTES)
        answers = [await talk.answer() for _ in range(count)]
        assert {len(answer.results[0].values) for answer in answers} == {3 << 20}
        await until(lambda: out() == 0)
        sampling.cancel()
        assert limits.SESSION_OUT_BYTES < high <= limits.SESSION_OUT_BYTES + limits.MESSAGE_BYTES
        await talk.end()


@pytest.mark.parametrize("by_name", [False, True])
async def test_no_message_is_begun_while_those_under_way_may_be_answered_more_than_is_kept(
    by_name: bool,
) -> None:
    async with talking_of_big_values() as (wire, talk, ref):
        named = MapRef(name="big") if by_name else ref
        held = Held(wire, Command.MAP_LOOKUP_ELEM)
        for slot in range(limits.SLOTS):
            await talk.send(slot, 1, group(named, Op.LOOKUP, n(0), n(0), n(0)))
        await held.reached()
        other = await RawSession.open(wire.channel)  # on the same connection, behind what was sent
        await other.ask(0, 1)
        assert wire.guard.messages.count == 2
        assert conversation_of(wire, talk).due > limits.SESSION_OUT_BYTES
        again = await RawSession.open(
            wire.channel, talk.opened
        )  # what is due is the session's, not a stream's
        await again.send(7, 1, group(named, Op.LOOKUP, n(0), n(0), n(0)))
        await other.ask(0, 2)
        assert wire.guard.messages.count == 2
        held.let_go()
        assert {(await again.answer()).stamp.slot for _ in range(3)} == {0, 1, 7}
        assert conversation_of(wire, talk).due == 0
        await again.end()
        await other.end()


async def test_small_messages_of_all_slots_are_under_way_together() -> None:
    async with talking() as (wire, talk, ref):
        held = Held(wire, Command.MAP_LOOKUP_ELEM)
        for slot in range(limits.SLOTS):
            await talk.send(slot, 1, *[group(ref, Op.LOOKUP, n(0))] * 64)
        await held.reached()
        await until(lambda: wire.guard.messages.count == limits.SLOTS)
        held.let_go()
        assert len([await talk.answer() for _ in range(limits.SLOTS)]) == limits.SLOTS
        await talk.end()


async def test_streams_that_say_nothing_are_no_more_than_a_principal_may_have() -> None:
    async with serving() as wire:
        silent = [wire.callable("Session")(timeout=WAIT_S) for _ in range(limits.SESSIONS + 1)]
        codes = [asyncio.ensure_future(one.code()) for one in silent]
        done, _ = await asyncio.wait(codes, timeout=WAIT_S / 2, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result() for one in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        for one in silent:
            one.cancel()
        await asyncio.wait(codes)
        talk = await RawSession.open(wire.channel)  # nothing is left of those that ended
        await talk.end()
