"""Rights on some keys of a map: what is theirs is done and told, and nothing else, by every operation."""

from __future__ import annotations

import struct
import uuid

import grpc.aio
import pytest
from google.protobuf.message import Message

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import Columns
from tests.support.rawsession import RawSession
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.dictkernel import n
from tests.unit.mapd.rpc.ruled import (
    FIRST,
    FLOWS,
    SOME_KEYS,
    add,
    dumped,
    keys_of,
    ruled,
)
from tests.unit.mapd.rpc.wire import WAIT_S, refusal_of

pytestmark = pytest.mark.usefixtures("watched_loop")


# ---- keys --------------------------------------------------------------------------------------


def ops(*pairs: tuple[Op, int]) -> elements.OpGroup:
    """Operations on numbers, each with the number and a thousand as its value where it takes one."""
    values = b"".join(n(number + 1_000) for op, number in pairs if op is Op.UPDATE)
    return elements.OpGroup(
        map=FLOWS,
        count=len(pairs),
        ops=bytes(op for op, _ in pairs),
        keys=b"".join(n(number) for _, number in pairs),
        values=values,
    )


MIXED = (
    (Op.LOOKUP, 10),
    (Op.LOOKUP, 11),
    (Op.UPDATE, 11),
    (Op.UPDATE, 10),
    (Op.LOOKUP, 10),
    (Op.DELETE, 12),
    (Op.DELETE, 10),
    (Op.LOOKUP, 10),
    (Op.UPDATE, 266),
)
POLICY, ABSENT = int(Reason.POLICY), int(Reason.KEY_ABSENT)


@pytest.mark.parametrize("inline", [0, 100])
@pytest.mark.parametrize("session", [False, True])
async def test_elements_of_others_are_not_executed_and_the_rest_is_in_order(
    session: bool, inline: int
) -> None:
    async with ruled(SOME_KEYS, inline_elements=inline) as wire:
        made = add(wire, "web/flows", count=20)
        before = dict(made.elements)
        request = ops(*MIXED)
        if session:
            talk = await RawSession.open(wire.channel)
            opened = await wire.call(maps.OpenMapRequest(map=FLOWS, session=talk.opened.session))
            request.map.handle = opened.handle
            (result,) = (await talk.ask(0, 1, request)).results
            await talk.end()
        else:
            (result,) = (await wire.call(elements.ApplyRequest(groups=[request]))).results
        assert list(result.statuses) == [0, POLICY, POLICY, 0, 0, POLICY, 0, ABSENT, 0]
        assert result.values == n(110) + n(0) + n(1_010) + n(0)
        assert [(one.index, int(one.reason), one.errno) for one in result.errors] == [
            (1, POLICY, 0),
            (2, POLICY, 0),
            (5, POLICY, 0),
        ]
        del before[n(10)]
        assert made.elements == {**before, n(266): n(1_266)}


async def test_an_operation_that_no_key_can_be_left_out_of_takes_the_right_to_all() -> None:
    async with ruled(SOME_KEYS) as wire:
        made = add(wire, "web/flows", count=20)
        (result,) = (await wire.call(elements.ApplyRequest(groups=[ops((Op.LOOKUP_AND_DELETE, 10))]))).results
        assert list(result.statuses) == [POLICY]
        assert len(made.elements) == 20
        for request in (elements.CountEntriesRequest(map=FLOWS), elements.GetNextKeyRequest(map=FLOWS)):
            found = await wire.refusal(request)
            assert (found.reason, "keys that begin with 0a" in found.message) == (Reason.POLICY, True)


async def test_a_call_with_one_element_is_refused_by_its_key() -> None:
    async with ruled(SOME_KEYS) as wire:
        made = add(wire, "web/flows", count=20)
        assert (await wire.call(elements.LookupRequest(map=FLOWS, key=n(10)))).value == n(110)
        requests: list[Message] = [
            elements.LookupRequest(map=FLOWS, key=n(11)),
            elements.LookupRequest(map=FLOWS, key=n(99)),
            elements.UpdateRequest(map=FLOWS, key=n(11), value=n(0)),
            elements.DeleteRequest(map=FLOWS, key=n(11)),
        ]
        for request in requests:
            found = await wire.refusal(request)
            assert found.reason is Reason.POLICY
            assert "keys that begin with 0a" in found.message
            assert "ops@example.org" in found.message
        assert made.elements[n(11)] == n(111)


async def test_a_load_writes_what_it_may_and_counts_the_rest() -> None:
    async with ruled(SOME_KEYS) as wire:
        made = add(wire, "web/flows")
        columns = Columns(count=3, keys=n(9) + n(10) + n(11), values=n(1) * 3)
        answer = await wire.callable("Load")(
            iter([elements.LoadRequest(map=FLOWS, columns=columns)]), timeout=WAIT_S
        )
        assert (answer.applied, answer.failed) == (1, 2)
        assert [(one.index, int(one.reason)) for one in answer.errors] == [(0, POLICY), (2, POLICY)]
        assert set(made.elements) == {n(10)}


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
async def test_a_dump_leaves_out_what_is_not_the_callers(kind: MapType) -> None:
    async with ruled(SOME_KEYS) as wire:
        add(wire, "web/flows", count=600, map_type=kind, max_entries=1_000)
        mine = {
            n(number)
            for number in (range(1_000) if kind is MapType.ARRAY else range(600))
            if number % 256 == 10
        }
        for more in ({}, {"columns": elements.DUMP_COLUMNS_KEYS}, {"prefix": FIRST.encode()[:0]}):
            found = await dumped(wire, **more)
            assert keys_of(found) == mine
            assert found[-1].trailer.entries == len(mine)
            assert found[-1].trailer.complete
        one = [message.chunk.columns for message in await dumped(wire, limit=1)]
        assert b"".join(column.values for column in one) == n(110)
        assert not keys_of(await dumped(wire, prefix=b"\x0b"))


LPM_KEYS: RuleDict = {**SOME_KEYS, "key_prefixes": ["20000000" + FIRST]}


async def test_no_token_names_a_key_of_others_and_none_is_taken_that_does() -> None:
    """The cursor of a trie is a key: one that is not there makes the kernel begin anew, and so would be told."""

    def key(number: int) -> bytes:
        return n(32) + bytes([number % 20, 0, number // 250, number % 250])

    async with ruled(LPM_KEYS) as wire:
        made = add(wire, "web/flows", map_type=MapType.LPM_TRIE, key_size=8, max_entries=100_000)
        for number in range(7_000):
            made.elements[key(number)] = n(number)
        mine = {one for one in made.elements if one[4] == 10}
        messages = await dumped(wire)
        column = b"".join(message.chunk.columns.keys for message in messages)
        got = {column[at : at + 8] for at in range(0, len(column), 8)}
        assert got == mine
        tokens = [message.chunk.token for message in messages if message.chunk.token]
        assert tokens
        assert {token[22:] for token in tokens} <= mine
        resumed = await dumped(wire, resume_token=tokens[0])
        seen = b"".join(message.chunk.columns.keys for message in resumed)
        assert {seen[at : at + 8] for at in range(0, len(seen), 8)} < mine
        for other in (key(11), key(31), n(32) + bytes(4)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await dumped(wire, resume_token=tokens[0][:22] + other)
            assert refusal_of(caught.value).reason is Reason.BAD_SPEC


async def test_no_mark_in_a_token_asks_whether_there_is_a_key_of_others() -> None:
    """What a range leaves out for the marks behind its end is counted in the trailer."""
    async with ruled(SOME_KEYS) as wire:
        made = add(wire, "web/flows", count=20)
        boot = uuid.UUID(int=7).bytes
        head = struct.pack("<BBI16s", 2, 0, made.info.id, boot)
        for key in (n(11), n(10), n(99)):
            token = head + struct.pack("<IIIB", 0, 1, 0xFFFF_FFFF, 1) + key
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await dumped(wire, resume_token=token)
            assert refusal_of(caught.value).reason is Reason.BAD_SPEC
        # The same of buckets alone tells of no key.
        found = await dumped(wire, resume_token=head + struct.pack("<IIIB", 0, 0xFFFF_FFFF, 0xFFFF_FFFF, 0))
        assert keys_of(found) == {n(10)}
